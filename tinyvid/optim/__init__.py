"""Optimisers, gradient clipping, and schedules of the learning rate."""

from tinyvid.optim.algorithms import SGD, Adam, AdamW
from tinyvid.optim.clipping import clip_grad_norm_, clip_grad_value_
from tinyvid.optim.optimizer import Optimizer
from tinyvid.optim.schedules import (
    CosineAnnealingLR,
    LinearWarmup,
    Schedule,
    StepLR,
    WarmupCosine,
)

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "LinearWarmup",
    "Optimizer",
    "Schedule",
    "StepLR",
    "WarmupCosine",
    "clip_grad_norm_",
    "clip_grad_value_",
]
