"""PyTorch as a peer: on the CPU its convolutions are oneDNN's, on a GPU cuDNN's.

Each pass calls what PyTorch's own forward and backward call, without the engine around it; only
the LSTM's backward needs the engine. The same code runs on both devices.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tinyvid.bench.peers import Contestant, Unfit
from tinyvid.bench.problems import Arrays, Task
from tinyvid.kernels.threads import get_num_threads

aten = torch.ops.aten
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def prepare(task: Task, device: str, channels_last: bool, arithmetic: str) -> Contestant:
    """Return the task in PyTorch, its arguments on the device and in the layout.

    Raises:
        Unfit: PyTorch has no such pass, or the layout means nothing to it.
    """
    torch.set_num_threads(get_num_threads())
    op = task.kernel.op
    if channels_last and op == "lstm" and arithmetic == "float32":
        raise Unfit("layouts mean nothing to an LSTM")
    place = partial(_placed, device=device, channels_last=channels_last, arithmetic=arithmetic)
    if op not in _MAKE:
        raise Unfit("PyTorch has no single operation like it")
    run = _MAKE[op](task, place)

    def timed() -> Any:
        # On the CPU these flags do nothing; on a GPU the fastest of cuDNN's algorithms is taken.
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=True, deterministic=False, allow_tf32=arithmetic == "tf32"
        ):
            return run()

    return Contestant(run if device == "cpu" else timed, _host, arithmetic)


def _placed(a: np.ndarray, device: str, channels_last: bool, arithmetic: str) -> torch.Tensor:
    t = torch.from_numpy(np.ascontiguousarray(a)).to(device)
    if t.is_floating_point() and arithmetic == "bf16":
        t = t.bfloat16()
    if channels_last and t.ndim in _LAYOUTS:
        t = t.contiguous(memory_format=_LAYOUTS[t.ndim])
    return t


def _host(y: Any) -> Arrays:
    every = y if isinstance(y, (tuple, list)) else (y,)
    return tuple(t.detach().float().cpu().numpy() for t in every)


Place = Callable[[np.ndarray], torch.Tensor]


def _conv(task: Task, place: Place) -> Callable[[], Any]:
    g, rank = task.geometry, task.geometry.rank
    if any(low != high for low, high in g.padding):
        raise Unfit("PyTorch pads both sides alike, or copies the input first")
    a, b = (_as_planes(v, rank) for v in task.args[:2])
    stride, dilation, padding = g.stride, g.dilation, [low for low, _ in g.padding]
    a, b = place(a), place(b)
    if task.kernel.pass_ == "fprop":
        conv = F.conv3d if rank == 3 else F.conv2d
        return lambda: conv(a, b, None, stride, padding, dilation, g.groups)
    sizes = (stride, padding, dilation, False, [0] * rank, g.groups)
    if task.kernel.pass_ == "dgrad":
        like = place(_as_planes(np.empty(g.x, np.float32), rank))  # only its size is looked at
        dgrad = [True, False, False]
        return lambda: _clips(
            aten.convolution_backward(a, like, b, None, *sizes, dgrad)[0], task.geometry.x
        )
    like = place(np.empty(g.w, np.float32))
    wgrad = [False, True, False]
    return lambda: aten.convolution_backward(a, b, like, None, *sizes, wgrad)[1]


def _as_planes(v: np.ndarray, rank: int) -> np.ndarray:
    """Early fusion: all frames of a clip as channels, a view."""
    return v.reshape(v.shape[0], -1, *v.shape[3:]) if v.ndim - rank == 3 else v


def _clips(gx: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return gx.unflatten(1, shape[1:3]) if gx.ndim < len(shape) else gx


def _first_layer(task: Task, place: Place) -> Callable[[], Any]:
    g = task.geometry
    if any(low != high for low, high in g.padding):
        raise Unfit("PyTorch pads both sides alike, or copies the input first")
    fprop = task.kernel.pass_ == "fprop"
    clip, other = task.args[:2] if fprop else task.args[1::-1]
    x, other = place(clip), place(other)
    ones = [1] * (clip.ndim - 2)
    mean, std = (place(np.array(v, np.float32).reshape(-1, *ones)) for v in task.args[2:4])
    scale, offset = 1 / (255 * std), mean / std
    sizes = (g.stride, [low for low, _ in g.padding], g.dilation)
    flat = clip.ndim - g.rank == 3

    def normalised() -> torch.Tensor:
        u = x * scale - offset
        return u.flatten(1, 2) if flat else u  # early fusion: all frames as channels

    if fprop:
        bias, relu = place(task.args[5]), task.args[6]
        conv = F.conv3d if g.rank == 3 else F.conv2d

        def run() -> torch.Tensor:
            y = conv(normalised(), other, bias, *sizes, g.groups)
            return y.relu_() if relu else y

        return run
    w = place(np.empty(g.w, np.float32))
    rest = (*sizes, False, [0] * g.rank, g.groups, [False, True, False])
    return lambda: aten.convolution_backward(other, normalised(), w, None, *rest)[1]


def _conv_pool(task: Task, place: Place) -> Callable[[], Any]:
    g, pool = task.geometry, task.case.pool
    if any(low != high for low, high in g.padding):
        raise Unfit("PyTorch pads both sides alike, or copies the input first")
    x, w, bias = (place(a) for a in task.args[:3])
    sizes = (g.stride, [low for low, _ in g.padding], g.dilation, g.groups)
    pooling = (pool.window, pool.stride, [0] * 3, pool.dilation, False)
    pooled = aten.max_pool3d_with_indices
    return lambda: pooled(F.conv3d(x, w, bias, *sizes).relu_(), *pooling)[0]


def _max_pool(task: Task, place: Place) -> Callable[[], Any]:
    case, g = task.case, task.geometry
    padding = [low for low, _ in g.padding]
    sizes = (g.window, g.stride, padding, g.dilation, case.ceil_mode)
    first = place(task.args[0])
    if task.kernel.pass_ == "fprop":
        return lambda: aten.max_pool3d_with_indices(first, *sizes)[0]
    at = place(_indices(task.args[1], g))
    if task.kernel.pass_ == "dgrad":
        x = place(np.zeros(g.x, np.float32))
        backward = aten.max_pool3d_with_indices_backward
        return lambda: backward(first, x, *sizes, at)
    return lambda: first.flatten(2).gather(2, at.flatten(2)).view(g.y)


def _indices(argmax: np.ndarray, g: Any) -> np.ndarray:
    """Return offsets in windows as PyTorch has them: places in the volume D H W, int64."""
    taps = np.unravel_index(argmax, g.window)
    outputs = np.indices(g.y, sparse=True)[2:]
    cells = [
        z * stride + t * dilation - low
        for z, t, stride, dilation, (low, _) in zip(
            outputs, taps, g.stride, g.dilation, g.padding, strict=True
        )
    ]
    return np.ravel_multi_index(tuple(cells), g.x[2:]).astype(np.int64)


def _avg_pool(task: Task, place: Place) -> Callable[[], Any]:
    case, g = task.case, task.geometry
    first, (_, counted, divisor) = place(task.args[0]), task.args[1:]
    sizes = (g.window, g.stride, [low for low, _ in g.padding], case.ceil_mode, counted, divisor)
    if task.kernel.pass_ == "fprop":
        return lambda: aten.avg_pool3d(first, *sizes)
    x = place(np.zeros(g.x, np.float32))
    return lambda: aten.avg_pool3d_backward(first, x, *sizes)


def _lstm(task: Task, place: Place) -> Callable[[], Any]:
    case = task.case
    if case.reverse:
        raise Unfit("PyTorch reverses only beside a forward direction")
    if case.lengths is not None:
        raise Unfit("PyTorch packs sequences of unequal lengths")
    backward = task.kernel.pass_ == "bprop"
    x, w_ih, w_hh, *rest = task.args[2:] if backward else task.args
    b, h0, c0 = (np.zeros(4 * case.hidden, np.float32), *rest[:2]) if backward else rest[:3]
    given = [place(a).requires_grad_() for a in (x, w_ih, w_hh, b, h0[None], c0[None])]
    none = torch.zeros_like(given[3])  # the second of PyTorch's two biases

    def forward() -> tuple[torch.Tensor, ...]:
        x, w_ih, w_hh, b, h0, c0 = given
        weights = (w_ih, w_hh, b, none)
        return torch.lstm(x, (h0, c0), weights, True, 1, 0.0, True, False, True)

    if not backward:
        return lambda: forward()[0]  # with what its backward needs, as ours
    h, _, c = forward()
    gh, gc = place(task.args[0]), place(task.args[1][None, :, -1])

    def run() -> tuple[torch.Tensor, ...]:
        *grads, gh0, gc0 = torch.autograd.grad((h, c), given, (gh, gc), retain_graph=True)
        return *grads, gh0[0], gc0[0]

    return run


_MAKE: dict[str, Callable[[Task, Place], Callable[[], Any]]] = {
    "conv3d": _conv,
    "conv2d": _conv,
    "conv3d_uint8": _first_layer,
    "conv2d_uint8": _first_layer,
    "conv3d_relu_max_pool": _conv_pool,
    "max_pool3d": _max_pool,
    "avg_pool3d": _avg_pool,
    "lstm": _lstm,
}
