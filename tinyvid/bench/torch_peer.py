"""PyTorch as a peer: on the CPU its convolutions are oneDNN's, on a GPU cuDNN's.

Each pass calls what PyTorch's own forward and backward call, without the engine around it; only
the LSTM's backward needs the engine. The same code runs on both devices.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from tinyvid.bench.peers import Contestant, Unfit
from tinyvid.bench.problems import Arrays, Task
from tinyvid.bench.taps import planes
from tinyvid.kernels.threads import get_num_threads

if TYPE_CHECKING:
    from tinyvid.bench.whole import Whole

Place = Callable[[np.ndarray], torch.Tensor]
aten = torch.ops.aten
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def prepare(task: Task, device: str, channels_last: bool, arithmetic: str) -> Contestant:
    """Return the task in PyTorch, its arguments on the device and in the layout.

    Raises:
        Unfit: PyTorch has no such pass, or the layout means nothing to it.
    """
    op = task.kernel.op
    place = _place(op, device, channels_last, arithmetic)
    if op not in _MAKE:
        raise Unfit("PyTorch has no single operation like it")
    return _contestant(_MAKE[op](task, place), device, arithmetic)


def whole(what: Whole, device: str, channels_last: bool, arithmetic: str) -> Contestant:
    """Return a whole operation in PyTorch, through its engine.

    Raises:
        Unfit: PyTorch has no such operation, or the layout means nothing to it.
    """
    place = _place(what.op, device, channels_last, arithmetic)
    fn, values = _WHOLE[what.op](what.case), [place(a) for a in what.inputs]
    inputs, gy = [t.clone() for t in values], place(what.gy)

    def forward() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return (fn(*inputs),)

    def step() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            for at in what.learned[1:]:
                inputs[at].copy_(values[at])
        for t in inputs:
            t.grad = None
        y = fn(*inputs)
        y.backward(gy)
        return (y, *(inputs[at].grad for at in what.learned))

    if what.backward:
        for at in what.learned:
            inputs[at].requires_grad_()
    return _contestant(step if what.backward else forward, device, arithmetic)


def _place(op: str, device: str, channels_last: bool, arithmetic: str) -> Place:
    """Return what puts an array on the device, in the layout."""
    torch.set_num_threads(get_num_threads())
    if channels_last and op == "lstm" and arithmetic == "float32":
        raise Unfit("layouts mean nothing to an LSTM")
    return partial(_placed, device=device, channels_last=channels_last, arithmetic=arithmetic)


def _contestant(run: Callable[[], Any], device: str, arithmetic: str) -> Contestant:
    def timed() -> Any:
        # On the CPU these flags do nothing; on a GPU the fastest of cuDNN's algorithms is taken.
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=True, deterministic=False, allow_tf32=arithmetic == "tf32"
        ):
            return run()

    if device == "cpu":
        return Contestant(run, _host, arithmetic)
    return Contestant(timed, _host, arithmetic, _captured)


def _captured(run: Callable[[], Any]) -> Callable[[], Any]:
    """Record a call as a CUDA graph, as PyTorch asks for it: after a call on another stream."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()

    def replay() -> Any:
        graph.replay()
        return results

    return replay


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


def _conv(task: Task, place: Place) -> Callable[[], Any]:
    g, rank = task.geometry, task.geometry.rank
    *sizes, groups = _conv_sizes(g)
    a, b = (place(planes(v, g)) for v in task.args[:2])
    if task.kernel.pass_ == "fprop":
        conv = F.conv3d if rank == 3 else F.conv2d
        return lambda: conv(a, b, None, *sizes, groups)
    sizes += [False, [0] * rank, groups]
    if task.kernel.pass_ == "dgrad":
        like = place(planes(np.empty(g.x, np.float32), g))  # only its size is looked at
        dgrad = [True, False, False]
        return lambda: _clips(
            aten.convolution_backward(a, like, b, None, *sizes, dgrad)[0], task.geometry.x
        )
    like = place(np.empty(g.w, np.float32))
    wgrad = [False, True, False]
    return lambda: aten.convolution_backward(a, b, like, None, *sizes, wgrad)[1]


def _clips(gx: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return gx.unflatten(1, shape[1:3]) if gx.ndim < len(shape) else gx


def _first_layer(task: Task, place: Place) -> Callable[[], Any]:
    g = task.geometry
    *sizes, groups = _conv_sizes(g)
    fprop = task.kernel.pass_ == "fprop"
    clip, other = task.args[:2] if fprop else task.args[1::-1]
    x, other = place(clip), place(other)
    ones = [1] * (clip.ndim - 2)
    mean, std = (place(np.array(v, np.float32).reshape(-1, *ones)) for v in task.args[2:4])
    scale, offset = 1 / (255 * std), mean / std
    flat = clip.ndim - g.rank == 3

    def normalised() -> torch.Tensor:
        u = x * scale - offset
        return u.flatten(1, 2) if flat else u  # early fusion: all frames as channels

    if fprop:
        bias, relu = place(task.args[5]), task.args[6]
        conv = F.conv3d if g.rank == 3 else F.conv2d

        def run() -> torch.Tensor:
            y = conv(normalised(), other, bias, *sizes, groups)
            return y.relu_() if relu else y

        return run
    w = place(np.empty(g.w, np.float32))
    rest = (*sizes, False, [0] * g.rank, groups, [False, True, False])
    return lambda: aten.convolution_backward(other, normalised(), w, None, *rest)[1]


def _conv_pool(task: Task, place: Place) -> Callable[[], Any]:
    if task.kernel.pass_ == "wgrad":
        gy, argmax, x, g, pool = task.args
        gy, x, at = place(gy), place(x), place(_indices(argmax, pool))
        y, w = place(np.empty(g.y, np.float32)), place(np.empty(g.w, np.float32))
        windows = (pool.window, pool.stride, [0] * 3, pool.dilation, False)
        padding = [low for low, _ in g.padding]
        sizes = (g.stride, padding, g.dilation, False, [0] * 3, g.groups, [False, True, False])

        def run() -> torch.Tensor:
            scattered = aten.max_pool3d_with_indices_backward(gy, y, *windows, at)
            return aten.convolution_backward(scattered, x, w, None, *sizes)[1]

        return run
    x, w, bias = (place(a) for a in task.args[:3])
    return partial(_whole_conv_pool(task.case), x, w, bias)


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


# ---- whole operations ----------------------------------------------------------------------------

Operation = Callable[..., torch.Tensor]


def _whole_conv(case: Any) -> Operation:
    g = case.geometry
    conv, sizes = F.conv3d if g.rank == 3 else F.conv2d, _conv_sizes(g)
    flat = len(case.x) - g.rank == 3  # early fusion: all frames of a clip as channels
    return lambda x, w, b: conv(x.flatten(1, 2) if flat else x, w, b, *sizes)


def _conv_sizes(g: Any) -> tuple[Any, ...]:
    """Return stride, padding, dilation and groups as PyTorch takes them."""
    if any(low != high for low, high in g.padding):
        raise Unfit("PyTorch pads both sides alike, or copies the input first")
    return g.stride, [low for low, _ in g.padding], g.dilation, g.groups


def _whole_conv_pool(case: Any) -> Operation:
    sizes, p = _conv_sizes(case.geometry), case.pool
    window = (p.window, p.stride, 0, p.dilation)
    return lambda x, w, b: F.max_pool3d(F.conv3d(x, w, b, *sizes).relu_(), *window)


def _whole_max_pool(case: Any) -> Operation:
    g = case.geometry
    padding = [low for low, _ in g.padding]
    return lambda x: F.max_pool3d(x, g.window, g.stride, padding, g.dilation, case.ceil_mode)


def _whole_avg_pool(case: Any) -> Operation:
    g = case.geometry
    sizes = (g.window, g.stride, [low for low, _ in g.padding], case.ceil_mode)
    return lambda x: F.avg_pool3d(x, *sizes, case.count_include_pad, case.divisor_override)


def _whole_lstm(case: Any) -> Operation:
    return lambda x, h, c, *w: torch.lstm(x, (h, c), w, True, 1, 0.0, True, False, True)[0]


_WHOLE: dict[str, Callable[[Any], Operation]] = {
    "conv3d": _whole_conv,
    "conv2d": _whole_conv,
    "conv3d_relu_max_pool": _whole_conv_pool,
    "max_pool3d": _whole_max_pool,
    "avg_pool3d": _whole_avg_pool,
    "lstm": _whole_lstm,
}
