"""Stochastic gradient descent, Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tinyvid.errors import UserError
from tinyvid.optim.optimizer import Group, Optimizer
from tinyvid.tensor import Tensor


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

        d = g + weight_decay · p
        v = momentum · v + (1 - dampening) · d      (at the first step v = d)
        p = p - lr · v                              (nesterov: p - lr · (d + momentum · v))

    Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML
    2013; in PyTorch's form, where v does not contain the learning rate.

    Args:
        params: parameters or groups; see `Optimizer`.
        lr: the learning rate.
        momentum, dampening, weight_decay: as above.
        nesterov: look ahead by the momentum; needs momentum and no dampening.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def _check(self, group):
        super()._check(group)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise UserError("SGD: nesterov=True needs a momentum above 0 and dampening=0")

    def _state_names(self, group):
        return ("momentum_buffer",) if group["momentum"] else ()

    def _update(self, group, step, new, p, g, state, scratch):
        d = g
        if group["weight_decay"]:
            d = np.multiply(p, group["weight_decay"], out=scratch[: p.size])
            d += g
        if group["momentum"]:
            v = state["momentum_buffer"]
            if step == 1:
                v[:] = d
            else:
                v *= group["momentum"]
                v += np.multiply(d, 1 - group["dampening"], out=new)
            if group["nesterov"]:
                d = np.add(d, np.multiply(v, group["momentum"], out=new), out=new)
            else:
                d = v
        np.subtract(p, np.multiply(d, group["lr"], out=new), out=new)

    def _update_large(self, group, step, arrays, state):
        from tinyvid.kernels.updates import sgd, update  # not for small ones: it loads Numba

        v = state.get("momentum_buffer", arrays[0][:0])
        names = ("lr", "momentum", "dampening", "weight_decay")
        numbers = [float(group[name]) for name in names]
        update(sgd, [*arrays, v], step == 1, *numbers, bool(group["nesterov"]))


class Adam(Optimizer):
    """Adam: steps scaled by running means of the gradient and of its square.

        d = g + weight_decay · p
        m = β1 · m + (1 - β1) · d,  v = β2 · v + (1 - β2) · d²
        p = p - lr · m / (1 - β1^t) / (√(v / (1 - β2^t)) + eps)      at step t = 1, 2, ...

    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    Args:
        params: parameters or groups; see `Optimizer`.
        lr, betas, eps, weight_decay: as above.
        amsgrad: use the largest v so far in place of v (Reddi et al., "On the convergence of Adam
            and beyond", ICLR 2018).
    """

    decoupled = False  # whether weight decay acts beside the gradient, not through it

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
        }
        super().__init__(params, defaults)

    def _check(self, group):
        super()._check(group)
        betas = group["betas"]
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise UserError(f"{type(self).__name__}: betas={betas!r} must be two of [0, 1)")

    def _state_names(self, group):
        return ("exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * group["amsgrad"])

    def _update(self, group, step, new, p, g, state, scratch):
        lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
        scratch = scratch[: p.size]
        d = g
        if decay and not self.decoupled:
            d = np.add(g, np.multiply(p, decay, out=scratch), out=scratch)
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m *= beta1
        m += np.multiply(d, 1 - beta1, out=new)
        v *= beta2
        np.multiply(d, d, out=new)
        v += np.multiply(new, 1 - beta2, out=new)
        if group["amsgrad"]:
            v = np.maximum(v, state["max_exp_avg_sq"], out=state["max_exp_avg_sq"])
        np.sqrt(v, out=new)
        new /= math.sqrt(1 - beta2**step)
        new += group["eps"]
        np.divide(m, new, out=new)
        new *= lr / (1 - beta1**step)
        if decay and self.decoupled:
            p = np.multiply(p, 1 - lr * decay, out=scratch)
        np.subtract(p, new, out=new)

    def _update_large(self, group, step, arrays, state):
        from tinyvid.kernels.updates import adam, update

        lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
        largest = state.get("max_exp_avg_sq", arrays[0][:0])
        numbers = [beta1, 1 - beta1, beta2, 1 - beta2, math.sqrt(1 - beta2**step), group["eps"]]
        numbers += [lr / (1 - beta1**step)]
        numbers += [0, 1 - lr * decay] if self.decoupled else [decay, 1]
        arrays = [*arrays, state["exp_avg"], state["exp_avg_sq"], largest]
        update(adam, arrays, *(float(number) for number in numbers))


class AdamW(Adam):
    """Adam with weight decay apart from the gradient: p is first multiplied by 1 - lr · decay.

    Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2; in
    PyTorch's form, where the decay is scaled by the learning rate. Arguments as `Adam`.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)
