"""The same networks in PyTorch, with the same weights.

A network of tinyvid becomes one of PyTorch layer by layer. A network's own `forward` is used
as it stands, since modules have the same names there; what is not made of layers alone is
written out here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tinyvid import models, nn
from tinyvid.models import parts
from tinyvid.models.multires import Fovea, Streams
from tinyvid.models.single_frame import SingleFrameModel


class NoTwin(Exception):
    """What of a network is not known in PyTorch."""


def twin(module: nn.Module) -> torch.nn.Module:
    """Return a PyTorch module that computes the same, with copies of the weights.

    Raises:
        NoTwin: it has a layer that is not known here.
    """
    peer = _convert(module)
    state = {name: torch.tensor(t.numpy()) for name, t in module.state_dict().items()}
    double = any(v.dtype == torch.float64 for v in state.values())
    peer = peer.double() if double else peer
    peer.load_state_dict(state)
    return peer.train(module.training)


def _convert(m: nn.Module) -> torch.nn.Module:
    t = torch.nn
    if isinstance(m, (nn.Conv2d, nn.Conv3d)):
        kind = t.Conv2d if isinstance(m, nn.Conv2d) else t.Conv3d
        sizes = (m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding, m.dilation)
        layer = kind(*sizes, m.groups, m.bias is not None)
        return _FlattenTime(layer) if isinstance(m, nn.Conv2d) else layer
    if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d)):
        kind = t.BatchNorm2d if isinstance(m, nn.BatchNorm2d) else t.BatchNorm3d
        return kind(m.num_features, m.eps, m.momentum)
    if isinstance(m, (nn.MaxPool2d, nn.MaxPool3d)):
        kind = t.MaxPool2d if isinstance(m, nn.MaxPool2d) else t.MaxPool3d
        return kind(m.kernel_size, m.stride, m.padding, m.dilation, ceil_mode=m.ceil_mode)
    if isinstance(m, (nn.AvgPool2d, nn.AvgPool3d)):
        kind = t.AvgPool2d if isinstance(m, nn.AvgPool2d) else t.AvgPool3d
        window = (m.kernel_size, m.stride, m.padding)
        return kind(*window, m.ceil_mode, m.count_include_pad, m.divisor_override)
    if isinstance(m, nn.LocalResponseNorm):
        return t.LocalResponseNorm(m.size, m.alpha, m.beta, m.k)
    if isinstance(m, nn.Linear):
        return t.Linear(m.in_features, m.out_features, m.bias is not None)
    if isinstance(m, nn.LSTM):
        return t.LSTM(m.input_size, m.hidden_size, m.num_layers, batch_first=m.batch_first)
    if isinstance(m, nn.Dropout):
        return t.Dropout(m.p)
    if isinstance(m, nn.ReLU):
        return t.ReLU()
    if isinstance(m, nn.Flatten):
        return t.Flatten()
    for kind, shell in _SHELLS.items():
        if isinstance(m, kind):
            return _fill(shell(), m)
    if isinstance(m, models.parts.Network):
        return _fill(_Network(m), m)
    raise NoTwin(f"no {type(m).__name__} in PyTorch is written down here")


def _fill(shell: torch.nn.Module, m: nn.Module) -> torch.nn.Module:
    for name, child in m.named_children():
        shell.add_module(name, _convert(child))
    return shell


class _Network(torch.nn.Module):
    def __init__(self, m: models.parts.Network):
        super().__init__()
        self.kind: Any = type(m)
        self.clip = getattr(m, "clip", None)  # which late fusion checks
        self.fuse_pool1 = False  # of C3D: the same results, layer by layer

    def forward(self, x):
        return self.kind.forward(self, x)

    def states(self, x):
        return self.kind.states(self, x)


class _FlattenTime(torch.nn.Module):
    """Early fusion: all frames of a clip as channels."""

    def __new__(cls, layer):
        forward = layer.forward
        layer.forward = lambda x: forward(x.flatten(1, 2) if x.ndim == 5 else x)
        return layer


class _GlobalAvgPool(torch.nn.Module):
    def forward(self, x):
        return x.flatten(2).mean(2)


class _PerFrame(torch.nn.Sequential):
    def forward(self, x):
        n, c, t, h, w = x.shape
        y = super().forward(x.permute(0, 2, 1, 3, 4).reshape(n * t, c, h, w))
        y = y.reshape(n, t, *y.shape[1:])
        return y.permute(0, 2, 1, 3, 4) if y.ndim == 5 else y


class _Fovea(torch.nn.Module):
    def forward(self, x):
        h, w = x.shape[2:]
        return x[:, :, h // 4 :, w // 4 :][:, :, : h // 2, : w // 2]


class _Streams(torch.nn.Module):
    def forward(self, x):
        return torch.cat([stream(x) for stream in self.children()], 1)


class _FirstAndLastFrame(torch.nn.Module):
    def forward(self, x):
        return torch.cat([x[:, :, :1], x[:, :, -1:]], 2)


class _AverageOfFrames(torch.nn.Module):
    def forward(self, logits):
        return torch.logsumexp(logits.log_softmax(2), 1) - np.log(logits.shape[1])


class _SingleFrame(torch.nn.Module):
    def forward(self, x):
        if self.training:
            chosen = torch.randint(x.shape[2], (len(x),))
            return self.frames(x[torch.arange(len(x)), :, chosen].unsqueeze(2))[:, 0]
        return self.average(self.frames(x))


_SHELLS = {
    parts.PerFrame: _PerFrame,
    Fovea: _Fovea,
    Streams: _Streams,
    nn.Sequential: torch.nn.Sequential,
    nn.GlobalAvgPool: _GlobalAvgPool,
    parts.FirstAndLastFrame: _FirstAndLastFrame,
    parts.AverageOfFrames: _AverageOfFrames,
    SingleFrameModel: _SingleFrame,
}
