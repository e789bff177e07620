"""What the engine costs: an operation on four numbers, forward and backward, in a long chain."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import tinyvid
from tinyvid.bench.results import OURS, PEER, Line, Measured
from tinyvid.bench.run import Settings
from tinyvid.bench.timing import interleave

LENGTH = 200  # operations of a chain, so that its ends do not count
# All products of these, and L of them, are exact.
X = np.array([0.5, -1.5, 1.0, 0.25], np.float32)
B = np.array([1.0, -1.0, -1.0, 1.0], np.float32)
G = np.array([2.0, 1.0, -0.5, 1.0], np.float32)


def chain(x: Any, other: Any, cotangent: Any, operation: Callable[[Any, Any], Any]) -> Any:
    """Run `operation(operation(x, other), other) ...` forward and backward; return the result."""
    y = x
    for _ in range(LENGTH):
        y = operation(y, other)
    y.backward(cotangent)
    return y


def measure_tape(settings: Settings) -> Measured:
    """Check and time one multiplication, as a share of a chain of them, beside PyTorch's.

    y = x · b · b · ... is x · b^L; its gradients are g · b^L for x, and L · g · x · b^(L-1) for b.
    """
    how = "x · b^L and its gradients, exactly"
    measured = Measured("tape", "forward+backward", "mul", f"{X.size} numbers", 0, 0, how)
    runs: dict[str, Callable[[], Any]] = {"tinyvid": partial(_run, *_arrays(tinyvid.tensor))}
    measured.lines.append(Line("tinyvid", OURS))
    if any(peer.name == "torch" for peer in settings.peers):
        import torch

        measured.lines.append(Line("torch", PEER))
        runs["torch"] = partial(_run, *_arrays(torch.tensor))
    for line in measured.lines:
        line.fault = _fault(runs[line.name]())
    if any(line.fault for line in measured.lines):
        return measured
    times = interleave(runs, settings.seconds, settings.timer)
    for line in measured.lines:
        line.fault = _fault(runs[line.name]())
        line.seconds = [] if line.fault else (times[line.name] / LENGTH).tolist()
    return measured


def _arrays(tensor: Callable[..., Any]) -> tuple[Any, ...]:
    return tensor(X, requires_grad=True), tensor(B, requires_grad=True), tensor(G)


def _run(x: Any, b: Any, g: Any) -> tuple[Any, ...]:
    x.grad = b.grad = None
    y = chain(x, b, g, operator.mul)
    return y.detach().numpy(), x.grad.numpy(), b.grad.numpy()


def _fault(results: tuple[np.ndarray, ...]) -> str | None:
    power = B**LENGTH
    wanted = (X * power, G * power, LENGTH * G * X * B ** (LENGTH - 1))
    right = all(np.array_equal(y, want) for y, want in zip(results, wanted, strict=True))
    return None if right else "the result or a gradient of a chain of products is wrong"
