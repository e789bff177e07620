"""2-D convolution of images, and of whole clips at once: early fusion.

    fprop   y[n,k,p,q]  = sum over c,r,s of        x[n,c,h,v] * w[k,c,r,s]  (+ bias, ReLU)
    dgrad   gx[n,c,h,v] = sum over k and p,r q,s of  gy[n,k,p,q] * w[k,c,r,s]
    wgrad   gw[k,c,r,s] = sum over n,p,q of        gy[n,k,p,q] * x[n,c,h,v]

    where h = p * stride + r * dilation - padding, likewise v of (q, s).

A clip `N C T H W` is taken as it lies: its `C*T` planes are the channels, plane (c, t) being
channel c*T + t, so that the first layer of a 2-D network sees all frames (Karpathy et al.,
"Large-scale Video Classification with Convolutional Neural Networks", CVPR 2014, section 3.1).
"""

from collections.abc import Callable
from math import prod
from typing import Any

from tinyvid.geometry import ConvGeometry
from tinyvid.kernels.conv2d.over_time import by_frames, planes
from tinyvid.kernels.conv3d import checker, fprop_checker, winograd_plan, workspace
from tinyvid.kernels.conv3d.costs import costs, directly, im2col
from tinyvid.kernels.registry import Kernel
from tinyvid.kernels.rounding import to_bf16, to_tf32

fprop = Kernel(
    "conv2d",
    "fprop",
    """`conv2d_fprop(x, w, geometry, bias=None, relu=False) -> y`: correlate images with filters.

    Or clips, as they lie. To each sum the bias of its filter is added, and of the result the ReLU
    is taken, where they are asked for.

    Args: x `N C H W` or `N C T H W`, w `K C/groups R S` (`K C*T/groups R S` for clips),
        geometry from `conv_geometry(x.shape, w.shape, ...)`, bias `K`.
    Returns: y `N K P Q`. Raises UserError where shapes or dtypes do not fit.
    """,
    fprop_checker("conv2d"),
)
dgrad = Kernel(
    "conv2d",
    "dgrad",
    """`conv2d_dgrad(gy, w, geometry) -> gx`: the gradient of <gy, y> with respect to x.

    Args: gy `N K P Q`, w as of fprop, geometry as of fprop.
    Returns: gx `N C H W` or `N C T H W`. Raises UserError where shapes or dtypes do not fit.
    """,
    checker("conv2d", "dgrad", "gy", "w"),
)
wgrad = Kernel(
    "conv2d",
    "wgrad",
    """`conv2d_wgrad(gy, x, geometry) -> gw`: the gradient of <gy, y> with respect to w.

    Args: gy `N K P Q`, x `N C H W` or `N C T H W`, geometry as of fprop.
    Returns: gw `K C/groups R S`. Raises UserError where shapes or dtypes do not fit.
    """,
    checker("conv2d", "wgrad", "gy", "x"),
)


def _unfit(step: str, pass_: str) -> Callable[..., str | None]:
    def unfit(a: Any, b: Any, geometry: ConvGeometry, *finish: Any) -> str | None:
        from tinyvid.kernels.conv2d import cuda  # only where a GPU or the emulator is asked for

        return cuda.unfit(step, pass_, geometry, a.dtype)

    return unfit


def _unfit_for_numba(step: str, pass_: str) -> Callable[..., str | None]:
    def unfit(a: Any, b: Any, geometry: ConvGeometry, *finish: Any) -> str | None:
        from tinyvid.kernels.conv2d.over_time import over_time
        from tinyvid.kernels.conv3d import cuda  # only where a GPU or the simulator is asked for

        return cuda.unfit(step, pass_, over_time(geometry), a.dtype)

    return unfit


def _planes_last(geometry: ConvGeometry) -> float:
    """Return the nanoseconds in which a clip is copied with its planes last in memory."""
    return 1.3 * prod(geometry.x) if len(geometry.x) == 5 else 0.0


for _kernel in (fprop, dgrad, wgrad):
    _kernel.add(
        "cpu/im2col",
        f"tinyvid.kernels.conv2d.cpu:{_kernel.pass_}",
        cost=costs(im2col, _kernel.pass_, planes if _kernel is dgrad else by_frames, _planes_last),
        workspace=workspace.im2col(_kernel.pass_, planes if _kernel is dgrad else by_frames),
    )
    _kernel.add(
        "cpu/direct",
        f"tinyvid.kernels.conv2d.direct:{_kernel.pass_}",
        cost=costs(directly, _kernel.pass_, planes, _planes_last if _kernel is dgrad else None),
        workspace=workspace.direct(_kernel.pass_, planes),
    )
    _kernel.add(
        "cpu/winograd",
        f"tinyvid.kernels.conv2d.cpu:winograd_{_kernel.pass_}",
        unfit=lambda a, b, geometry, *finish: winograd_plan.unfit(planes(geometry)),
        cost=costs(winograd_plan.cost_of, _kernel.pass_, planes, _planes_last),
        workspace=workspace.winograd(_kernel.pass_, planes),
    )
    # Steps of the ladder of 3-D convolution in CUDA C++, the one to prefer first.
    for _step in ("implicit_gemm", "tiled", "naive"):
        _kernel.add(
            f"cuda/{_step}",
            f"tinyvid.kernels.conv2d.cuda:{_step}_{_kernel.pass_}",
            unfit=_unfit(_step, _kernel.pass_),
        )
    # They round their operands, and run only when they are asked for by name.
    for _step, _rounds in (("tf32", to_tf32), ("bf16", to_bf16)):
        _kernel.add(
            f"cuda/{_step}",
            f"tinyvid.kernels.conv2d.cuda:{_step}_{_kernel.pass_}",
            unfit=_unfit(_step, _kernel.pass_),
            dtypes=("float32",),
            rounds=_rounds,
        )
    for _step in ("tiled", "naive"):
        _kernel.add(
            f"numba/{_step}",
            f"tinyvid.kernels.conv2d.numba_cuda:{_step}_{_kernel.pass_}",
            unfit=_unfit_for_numba(_step, _kernel.pass_),
        )
    _kernel.add("reference", f"tinyvid.kernels.conv2d.reference:{_kernel.pass_}")
