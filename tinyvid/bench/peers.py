"""Others to compare with, as plug-ins.

A peer makes of a task a function to time, or says why it cannot take it. To add one, append a
`Peer` to `PEERS`, in a file that `tinyvid bench --with FILE.py` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from tinyvid.bench.problems import BY_TAPS, Arrays, Task
from tinyvid.errors import UserError, nearest


class Unfit(Exception):
    """Why a peer cannot take a task."""


@dataclass(frozen=True)
class Contestant:
    """Something to time.

    Attributes:
        run: does the task once. host: makes of what `run` returned the task's results, in
            NumPy; a peer may leave out the last of them.
        arithmetic: `float32`, `tf32` or `bf16`.
        captured: on a GPU, records `run` as a CUDA graph and returns what replays it.
    """

    run: Callable[[], Any]
    host: Callable[[Any], Arrays]
    arithmetic: str = "float32"
    captured: Callable[[Callable[[], Any]], Callable[[], Any]] | None = None


@dataclass(frozen=True)
class Peer:
    """A library to compare with, in one of the ways that it can be used.

    Attributes:
        name: `<library>` or `<library>/<way>`. devices: where it can be used.
        missing: given the device, why it cannot be used here and how to get it; None if it can.
        prepare: makes a contestant of a task and a device, or raises `Unfit`.
        ways: given itself, a task and a device, the peers that take part in its place, such as one
            for each algorithm, or raises `Unfit`; None where it takes part itself.
        whole: as `prepare`, of a whole operation, see `tinyvid.bench.whole`; None if it has none.
    """

    name: str
    devices: tuple[str, ...]
    missing: Callable[[str], str | None]
    prepare: Callable[[Task, str], Contestant]
    ways: Callable[[Peer, Task, str], list[Peer]] | None = None
    whole: Callable[[Any, str], Contestant] | None = None


def chosen(names: Iterable[str] | None, device: str) -> tuple[list[Peer], list[str]]:
    """Return the peers of these names that can be used, and of the others why not.

    Args:
        names: of peers, or of libraries; None for all that a device has; empty for none.

    Raises:
        UserError: there is no such peer on this device.
    """
    here = [peer for peer in PEERS if device in peer.devices]
    if names is not None:
        known = list(dict.fromkeys(n for p in here for n in (p.name, p.name.partition("/")[0])))
        for name in names:
            if name not in known:
                raise UserError(
                    f"there is no peer {name!r} on device {device!r}; there is "
                    f"{', '.join(known)}.{nearest(name, known)}"
                )
        here = [p for p in here if p.name in names or p.name.partition("/")[0] in names]
    lacking = {peer.name: peer.missing(device) for peer in here}
    skipped = [f"{name} is skipped: {why}" for name, why in lacking.items() if why]
    return [peer for peer in here if not lacking[peer.name]], skipped


def _numpy(task: Task, device: str) -> Contestant:
    function = BY_TAPS.get(task.kernel.name)
    if function is None:  # of the LSTM, the loop over time that one writes is the reference
        function = task.kernel.variants["reference"].function
    take = function
    return Contestant(
        lambda: take(*task.args), lambda y: y if isinstance(y, tuple) else (np.asarray(y),)
    )


def _torch_missing(device: str) -> str | None:
    if find_spec("torch") is None:
        return "PyTorch is not installed: pip install 'tinyvid[bench]'"
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            return "this PyTorch finds no NVIDIA GPU: install a build for CUDA (pytorch.org)"
    return None


def _torch(
    name: str, devices: tuple[str, ...], channels_last: bool = False, arithmetic: str = "float32"
) -> Peer:
    def prepare(task: Task, device: str) -> Contestant:
        from tinyvid.bench import torch_peer

        return torch_peer.prepare(task, device, channels_last, arithmetic)

    def whole(what: Any, device: str) -> Contestant:
        from tinyvid.bench import torch_peer

        return torch_peer.whole(what, device, channels_last, arithmetic)

    return Peer(name, devices, _torch_missing, prepare, whole=whole)


def _cudnn(name: str, arithmetic: str) -> Peer:
    def missing(device: str) -> str | None:
        from tinyvid.bench import cudnn

        return cudnn.missing(device)

    def ways(peer: Peer, task: Task, device: str) -> list[Peer]:
        from tinyvid.bench import cudnn

        return cudnn.ways(peer, task, device, arithmetic)

    def prepare(task: Task, device: str) -> Contestant:
        raise Unfit("its algorithms take part in its place")

    return Peer(name, ("cuda",), missing, prepare, ways)


PEERS = [
    _torch("torch", ("cpu", "cuda")),
    _torch("torch/channels_last", ("cpu", "cuda"), True),
    _torch("torch/tf32", ("cuda",), True, "tf32"),
    _torch("torch/bf16", ("cuda",), True, "bf16"),
    _cudnn("cudnn", "float32"),
    _cudnn("cudnn/tf32", "tf32"),
    Peer("numpy", ("cpu",), lambda device: None, _numpy),
]
