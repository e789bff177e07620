"""Kernels: functions on arrays that know nothing of gradients, each defined by a reference."""

from tinyvid.kernels.registry import Kernel, Variant, kernels, use

__all__ = ["Kernel", "Variant", "kernels", "use"]
