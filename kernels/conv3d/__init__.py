"""3-D convolution: its three passes, each linear in both of its arguments.

    fprop   y[n,k,z,p,q]  = sum over c,t,r,s of      x[n,c,d,h,v] * w[k,c,t,r,s]  (+ bias, ReLU)
    dgrad   gx[n,c,d,h,v] = sum over k and z,t p,r q,s of  gy[n,k,z,p,q] * w[k,c,t,r,s]
    wgrad   gw[k,c,t,r,s] = sum over n,z,p,q of      gy[n,k,z,p,q] * x[n,c,d,h,v]

    where d = z * stride + t * dilation - padding, likewise h of (p, r) and v of (q, s).
    Outside the input x is zero, and k sees only the channels c of its own group.

Without bias and ReLU all three are the derivatives of one trilinear form, <gy, conv(x, w)> (an op's
rule says so in code: `tinyvid/ops/conv.py`). It is a correlation: the filter is not flipped.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.conv3d import winograd_plan, workspace
from tinyvid.kernels.conv3d.costs import costs, directly, im2col
from tinyvid.kernels.registry import Kernel
from tinyvid.kernels.rounding import to_bf16, to_tf32

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_SHAPES = {"x": attrgetter("x"), "w": attrgetter("w"), "gy": attrgetter("y")}


def checker(op: str, pass_: str, first: str, second: str) -> Callable[..., None]:
    """Return the check of a pass that takes two arrays with these letters, and a geometry.

    Both must have the shape that the geometry gives them, and one dtype, float32 or float64.
    """
    first_of, second_of, rank = _SHAPES[first], _SHAPES[second], int(op[op.index("d") - 1])

    def check(a: Any, b: Any, geometry: ConvGeometry) -> None:
        try:
            fits = (
                a.shape == first_of(geometry)
                and b.shape == second_of(geometry)
                and a.dtype == b.dtype
                and a.dtype in _FLOATS
                and len(geometry.stride) == rank
            )
        except AttributeError:
            fits = False
        if not fits:
            raise UserError(f"{op}_{pass_}: {complaint(a, b, geometry)}")

    def complaint(a: Any, b: Any, geometry: ConvGeometry) -> str:
        if not isinstance(geometry, ConvGeometry):
            return f"geometry must come from conv_geometry, not be a {type(geometry).__name__}"
        if geometry.rank != rank:
            return f"the geometry is for a filter of {geometry.rank} axes, not {rank}"
        for name, array in ((first, a), (second, b)):
            if not hasattr(array, "shape") or not hasattr(array, "dtype"):
                return f"{name} must be an array, not a {type(array).__name__}"
            if array.shape != _SHAPES[name](geometry):
                return f"{name} has shape {array.shape}, not {_SHAPES[name](geometry)}"
        return (
            f"{first} is {a.dtype} and {second} is {b.dtype}; "
            "both must be float32, or both float64 (of the machine's byte order)"
        )

    return check


def fprop_checker(op: str) -> Callable[..., None]:
    """Return the check of fprop, which takes a bias and whether to take the ReLU, too."""
    check_xw = checker(op, "fprop", "x", "w")

    def check(x: Any, w: Any, geometry: ConvGeometry, bias: Any = None, relu: bool = False) -> None:
        check_xw(x, w, geometry)
        if bias is not None:
            check_bias(f"{op}_fprop", w, bias)

    return check


def check_bias(kernel: str, w: Any, bias: Any) -> None:
    """Make sure that a bias has a number for each filter, of the filters' dtype.

    Raises:
        UserError: it has not.
    """
    got = f"a {type(bias).__name__}"
    if hasattr(bias, "shape") and hasattr(bias, "dtype"):
        if bias.shape == w.shape[:1] and bias.dtype == w.dtype:
            return
        got = f"{bias.shape} of {bias.dtype}"
    raise UserError(f"{kernel}: bias must be {w.shape[:1]} of {w.dtype}, not {got}")


fprop = Kernel(
    "conv3d",
    "fprop",
    """`conv3d_fprop(x, w, geometry, bias=None, relu=False) -> y`: correlate a batch with filters.

    To each sum the bias of its filter is added, and of the result the ReLU is taken, where they
    are asked for.

    Args: x `N C D H W`, w `K C/groups T R S`, geometry from `conv_geometry(x.shape, w.shape, ...)`,
        bias `K`.
    Returns: y `N K Z P Q`. Raises UserError where shapes or dtypes do not fit.
    """,
    fprop_checker("conv3d"),
)
dgrad = Kernel(
    "conv3d",
    "dgrad",
    """`conv3d_dgrad(gy, w, geometry) -> gx`: the gradient of <gy, y> with respect to x.

    Args: gy `N K Z P Q`, w `K C/groups T R S`, geometry as of fprop.
    Returns: gx `N C D H W`. Raises UserError where shapes or dtypes do not fit.
    """,
    checker("conv3d", "dgrad", "gy", "w"),
)
wgrad = Kernel(
    "conv3d",
    "wgrad",
    """`conv3d_wgrad(gy, x, geometry) -> gw`: the gradient of <gy, y> with respect to w.

    Args: gy `N K Z P Q`, x `N C D H W`, geometry as of fprop.
    Returns: gw `K C/groups T R S`. Raises UserError where shapes or dtypes do not fit.
    """,
    checker("conv3d", "wgrad", "gy", "x"),
)


def _unfit(step: str, pass_: str) -> Callable[..., str | None]:
    def unfit(a: Any, b: Any, geometry: ConvGeometry, *finish: Any) -> str | None:
        from tinyvid.kernels.conv3d import cuda  # only where a GPU or the emulator is asked for

        return cuda.unfit(step, pass_, geometry, a.dtype)

    return unfit


# Steps of the ladder in CUDA C++, the one to prefer first. Winograd runs when it is asked for by
# name: it should be faster where it fits, but its time was never measured on a GPU.
_STEPS = ("implicit_gemm", "winograd", "tiled", "naive")

for _kernel in (fprop, dgrad, wgrad):
    for _name, _module, _formula in (("im2col", "cpu", im2col), ("direct", "direct", directly)):
        _kernel.add(
            f"cpu/{_name}",
            f"tinyvid.kernels.conv3d.{_module}:{_kernel.pass_}",
            cost=costs(_formula, _kernel.pass_),
            workspace=getattr(workspace, _name)(_kernel.pass_),
        )
    _kernel.add(
        "cpu/winograd",
        f"tinyvid.kernels.conv3d.cpu_winograd:{_kernel.pass_}",
        unfit=lambda a, b, geometry, *finish: winograd_plan.unfit(geometry),
        cost=costs(winograd_plan.cost_of, _kernel.pass_),
        workspace=workspace.winograd(_kernel.pass_),
    )
    for _step in _STEPS:
        _kernel.add(
            f"cuda/{_step}",
            f"tinyvid.kernels.conv3d.cuda:{_step}_{_kernel.pass_}",
            unfit=_unfit(_step, _kernel.pass_),
        )
    # Last, so that they only run when asked for by name: they round their operands.
    for _step, _rounds in (("tf32", to_tf32), ("bf16", to_bf16)):
        _kernel.add(
            f"cuda/{_step}",
            f"tinyvid.kernels.conv3d.cuda:{_step}_{_kernel.pass_}",
            unfit=_unfit(_step, _kernel.pass_),
            dtypes=("float32",),
            rounds=_rounds,
        )
    for _step in ("tiled", "naive"):
        _kernel.add(
            f"numba/{_step}",
            f"tinyvid.kernels.conv3d.numba_cuda:{_step}_{_kernel.pass_}",
            unfit=_unfit(_step, _kernel.pass_),
        )
    _kernel.add("reference", f"tinyvid.kernels.conv3d.reference:{_kernel.pass_}")
