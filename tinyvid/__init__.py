"""tinyvid: a small framework for video classification, made to be read.

>>> import tinyvid
>>> x = tinyvid.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
tensor([2., 4., 6.])
"""

import os as _os

# In a bare checkout the folder `kernels` stands beside this package, not inside it.
if not _os.path.isdir(_os.path.join(__path__[0], "kernels")):
    __path__.append(_os.path.dirname(__path__[0]))

import importlib as _importlib

from tinyvid.backward import grad
from tinyvid.creation import (
    arange,
    from_numpy,
    full,
    ones,
    ones_like,
    rand,
    randn,
    tensor,
    zeros,
    zeros_like,
)
from tinyvid.errors import UserError
from tinyvid.gradcheck import gradcheck, gradgradcheck
from tinyvid.ops import *  # noqa: F403
from tinyvid.ops import __all__ as _operations
from tinyvid.random import manual_seed
from tinyvid.recompute import recompute
from tinyvid.tensor import Tensor, enable_grad, is_grad_enabled, no_grad

__version__ = "0.1.0"
__all__ = [
    *_operations,
    "Tensor",
    "UserError",
    "arange",
    "enable_grad",
    "from_numpy",
    "full",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "is_grad_enabled",
    "manual_seed",
    "no_grad",
    "ones",
    "ones_like",
    "rand",
    "randn",
    "recompute",
    "tensor",
    "zeros",
    "zeros_like",
]

# Imported when they are first asked for, so that `import tinyvid` stays quick.
_SUBMODULES = ("cuda", "data", "kernels", "models", "nn", "optim", "train")


def __getattr__(name):
    if name in _SUBMODULES:
        return _importlib.import_module(f"tinyvid.{name}")
    raise AttributeError(f"module 'tinyvid' has no attribute {name!r}")
