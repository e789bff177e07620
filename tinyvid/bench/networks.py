"""Whole networks: a training step, or the scores of a batch, beside the same network in PyTorch.

Both sides get the same weights. Before anything is timed, the loss and every gradient (or the
scores) are compared with PyTorch's in float64; after, once more in float32 with the weights as
they are then. Without PyTorch, float32 is compared with tinyvid's own float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

import tinyvid
from tinyvid import models, nn, optim
from tinyvid.bench.results import OURS, PEER, Line, Measured
from tinyvid.bench.timing import TOO_SLOW, Timer, interleave, processor_timer
from tinyvid.errors import UserError
from tinyvid.kernels.threads import get_num_threads
from tinyvid.models.single_frame import SingleFrameModel
from tinyvid.summary import summarise, total
from tinyvid.trace import size_text

PASSES = ("step", "forward")
# Clips of a step: full-size networks take fewer, and are compared in float64 on one of them.
BATCH = {"c3d": 4, "karpathy": 4}
CLASSES = 10
EXACT, ROUNDED = 1e-7, 2e-2  # allowed differences, of the largest element: in float64, in float32

Arrays = dict[str, np.ndarray]


def measure_network(
    name: str,
    pass_: str = "step",
    batch: int | None = None,
    seconds: float = 20.0,
    with_peer: bool = True,
    timer: Timer = processor_timer,
) -> Measured:
    """Check and time a network of tinyvid's, and PyTorch's beside it where that is installed.

    Args:
        name: of the network. pass_: `step` (forward, cross-entropy, backward, SGD with momentum)
            or `forward` (scores, nothing kept). batch: clips; by default as many as `BATCH` has.
        seconds: the limit. with_peer: whether PyTorch is timed too.

    Raises:
        UserError: no such network, or a batch of nothing.
    """
    entry = models.entry(name)
    if batch is not None and batch < 1:
        raise UserError(f"--batch {batch}: at least 1")
    sizes = [size for start, size in BATCH.items() if name.startswith(start)]
    n = batch or (sizes[0] if sizes else 16)
    options: dict[str, Any] = {"dropout": 0.0} if "dropout" in entry.defaults else {}
    model = models.build(name, CLASSES, **options).train(pass_ == "step")
    rng = np.random.default_rng()
    clips = rng.standard_normal((n, *entry.clip), np.float32)
    labels = rng.integers(CLASSES, size=n)
    torch, lacking = _known(model)
    macs = total(summarise(model, entry.clip)).macs
    measured = Measured(
        "models",
        pass_,
        name,
        f"{n} clips {size_text(entry.clip)}",
        2 * macs * n * (3 if pass_ == "step" else 1),
        0,
        "PyTorch's loss and gradients" if torch else "the same network in float64",
    )
    ours, theirs = Line(name="tinyvid", role=OURS), Line(name="torch", role=PEER)
    measured.lines.append(ours)
    ours.note = lacking
    random = isinstance(model, SingleFrameModel) and model.training
    if random:
        measured.checked = "nothing: it draws its frames at random, each side its own"
        measured.flops = 0  # those of the layers count every frame
    else:
        few = slice(1 if sizes else n)
        ours.fault = fault(model, clips[few], labels[few], torch, exact=True)
    run = {"tinyvid": _ours(model, clips, labels)}
    if torch and with_peer:
        measured.lines.append(theirs)
        run["torch"] = _theirs(model, clips, labels)
    if ours.fault is None:
        times = interleave(run, seconds, timer, repeat=False)
        if not random:
            ours.fault = fault(model, clips, labels, torch, exact=False)
        for line in measured.lines:
            line.seconds = [] if ours.fault else times[line.name].tolist()
            line.note = line.note if line.seconds or ours.fault else TOO_SLOW
    return measured


def _known(model: nn.Module) -> tuple[bool, str]:
    """Return whether PyTorch is there and has the same network; and if not, what is lacking."""
    if find_spec("torch") is None:
        return False, ""
    from tinyvid.bench.torch_networks import NoTwin, twin

    try:
        twin(model)
    except NoTwin as reason:
        return False, f"not beside PyTorch's: {reason}"
    return True, ""


def fault(
    model: models.parts.Network,
    clips: np.ndarray,
    labels: np.ndarray,
    torch: bool,
    exact: bool,
) -> str | None:
    """Return what a network computes that PyTorch, or tinyvid in float64, does not; or None.

    In float32 the largest of a pooling's window is sometimes another one, by rounding, and a
    filter's gradient then differs by what one cell adds to it. So where they differ by more than is
    allowed, PyTorch in float64 decides: ours may be off from that by as much as PyTorch's own
    float32. Without PyTorch, other clips decide: these, mirrored.
    """
    dtype = np.float64 if exact and torch else np.float32
    model = _copy(model, dtype)

    def peer(of: Any) -> Arrays:
        from tinyvid.bench.torch_networks import twin

        return _peer_values(twin(_copy(model, of)), clips.astype(of), labels)

    def alone(given: np.ndarray) -> str:
        wanted = _values(_copy(model, np.float64), given.astype(np.float64), labels)
        return _beyond(_values(_copy(model, dtype), given.astype(dtype), labels), wanted, ROUNDED)

    if not torch:  # a fault is one on every input
        found = alone(clips) and alone(clips[..., ::-1]) and alone(clips[..., ::-1, :])
    else:
        wanted, got = peer(dtype), _values(model, clips.astype(dtype), labels)
        found = _beyond(got, wanted, EXACT if dtype == np.float64 else ROUNDED)
        if found and dtype == np.float32:
            truth = peer(np.float64)
            own = {key: _error(wanted[key], want) for key, want in truth.items()}
            found = _beyond(got, truth, ROUNDED, own)
    return f"{found}; compared in {dtype.__name__}" if found else None


def _beyond(
    got: Arrays, wanted: Arrays, allowed: float, besides: dict[str, float] | None = None
) -> str:
    """Say which array differs by more than the share `allowed` of its largest element, or than
    `besides` has for it; or ""."""
    largest = max(float(np.abs(v).max()) for v in wanted.values())
    for key, want in wanted.items():
        own, error = float(np.abs(want).max()), _error(got[key], want)
        # A gradient far smaller than the others, such as of a bias before a norm, is rounding.
        most = max(allowed * max(own, 1e-3 * largest), (besides or {}).get(key, 0.0))
        if not error <= most:
            return f"{key} is off by {error:.1e}, of at most {own:.1e}"
    return ""


def _error(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max())


def _copy(model: models.parts.Network, dtype: Any) -> models.parts.Network:
    copy = models.rebuild(model.config).train(model.training).to(dtype)
    copy.load_state_dict(model.state_dict())
    return copy


def _values(model: nn.Module, clips: np.ndarray, labels: np.ndarray) -> Arrays:
    if not model.training:
        with tinyvid.no_grad():
            return {"scores": model(tinyvid.from_numpy(clips)).numpy()}
    loss = tinyvid.cross_entropy(model(tinyvid.from_numpy(clips)), tinyvid.from_numpy(labels))
    loss.backward()
    found = {"loss": loss.numpy()}
    for key, p in model.named_parameters():
        assert p.grad is not None
        found[f"gradient of {key}"] = p.grad.numpy()
    return found


def _peer_values(peer: Any, clips: np.ndarray, labels: np.ndarray) -> Arrays:
    import torch

    if not peer.training:
        with torch.no_grad():
            return {"scores": peer(torch.tensor(clips)).numpy()}
    scores = peer(torch.tensor(clips))
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(labels))
    loss.backward()
    gradients = {f"gradient of {k}": p.grad.numpy() for k, p in peer.named_parameters()}
    return {"loss": loss.detach().numpy(), **gradients}


def _ours(model: nn.Module, clips: np.ndarray, labels: np.ndarray) -> Callable[[], Any]:
    x, target = tinyvid.from_numpy(clips), tinyvid.from_numpy(labels)
    if model.training:
        optimiser = optim.SGD(list(model.parameters()), lr=1e-3, momentum=0.9)
        return partial(_step, model, x, target, tinyvid.cross_entropy, optimiser)
    return tinyvid.no_grad()(partial(model, x))


def _theirs(model: nn.Module, clips: np.ndarray, labels: np.ndarray) -> Callable[[], Any]:
    import torch

    from tinyvid.bench.torch_networks import twin

    torch.set_num_threads(get_num_threads())
    peer = twin(model)
    x, target = torch.tensor(clips), torch.tensor(labels)
    if model.training:
        optimiser = torch.optim.SGD(peer.parameters(), lr=1e-3, momentum=0.9)
        return partial(_step, peer, x, target, torch.nn.functional.cross_entropy, optimiser)
    return torch.no_grad()(partial(peer, x))


def _step(model: Any, x: Any, target: Any, cross_entropy: Any, optimiser: Any) -> None:
    loss = cross_entropy(model(x), target)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
