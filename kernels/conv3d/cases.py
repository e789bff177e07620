"""Named problem sizes of 3-D convolution, for tests, gradient checks and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

from tinyvid.geometry import ConvGeometry, conv_geometry


@dataclass(frozen=True)
class ConvCase:
    """One convolution: shapes `x`, `w`, the arguments of `conv_geometry`, and a name.

    A `large` case is a layer of a real network: for benchmarks, too slow for a reference.
    """

    name: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: int | str | tuple[int, ...] = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    large: bool = False

    @property
    def geometry(self) -> ConvGeometry:
        return conv_geometry(self.x, self.w, self.stride, self.padding, self.dilation, self.groups)


CASES = [
    ConvCase("plain", (2, 3, 4, 5, 6), (4, 3, 3, 3, 3), padding=1),
    ConvCase("no_padding", (2, 3, 4, 5, 6), (4, 3, 2, 3, 2)),
    ConvCase("primes", (3, 5, 5, 7, 3), (7, 5, 2, 3, 3), padding=(0, 1, 2)),
    ConvCase("all_ones", (1, 1, 1, 1, 1), (1, 1, 1, 1, 1)),
    ConvCase("one_cell_padded", (2, 2, 1, 1, 1), (3, 2, 3, 3, 3), padding=1),
    ConvCase("one_channel_each", (1, 1, 3, 4, 5), (1, 1, 2, 2, 2)),
    ConvCase("filter_is_input", (2, 2, 3, 2, 4), (3, 2, 3, 2, 4)),
    ConvCase("pointwise", (2, 3, 2, 3, 4), (5, 3, 1, 1, 1)),
    ConvCase("pointwise_padded", (2, 3, 2, 3, 4), (5, 3, 1, 1, 1), padding=1),
    ConvCase("pointwise_stride", (1, 3, 4, 3, 5), (2, 3, 1, 1, 1), stride=2),
    ConvCase("pointwise_groups", (2, 4, 2, 3, 3), (6, 4 // 2, 1, 1, 1), groups=2),
    ConvCase("stride", (2, 2, 5, 6, 7), (3, 2, 3, 3, 3), stride=(1, 2, 3), padding=1),
    ConvCase("stride_over_filter", (2, 2, 5, 7, 8), (3, 2, 2, 1, 2), stride=(3, 2, 4)),
    ConvCase("stride_over_input", (1, 2, 2, 3, 2), (2, 2, 2, 2, 2), stride=5, padding=(0, 1, 1)),
    ConvCase("dilation", (1, 2, 5, 7, 8), (3, 2, 2, 3, 3), dilation=(3, 2, 3), padding=(1, 2, 3)),
    ConvCase(
        "stride_and_dilation", (2, 2, 7, 8, 9), (3, 2, 2, 3, 3), (2, 3, 4), (1, 2, 3), (3, 2, 2)
    ),
    ConvCase("same_even_filter", (2, 2, 3, 4, 5), (3, 2, 2, 4, 2), padding="same"),
    ConvCase("same_dilated", (1, 2, 4, 5, 6), (2, 2, 2, 3, 2), padding="same", dilation=(1, 2, 3)),
    ConvCase("groups", (2, 6, 3, 4, 5), (4, 3, 3, 2, 3), padding=1, groups=2),
    ConvCase("groups_stride", (1, 6, 5, 4, 5), (9, 2, 2, 3, 2), (2, 1, 2), (0, 1, 1), 1, 3),
    ConvCase("depthwise", (2, 3, 3, 4, 5), (3, 1, 3, 3, 3), padding=1, groups=3),
    ConvCase("depthwise_twofold", (1, 3, 3, 3, 3), (6, 1, 2, 2, 2), groups=3),
    ConvCase("padding_over_filter", (1, 2, 2, 3, 2), (2, 2, 1, 2, 2), padding=(1, 3, 2)),
    # Rows of patches: one more than a chunk of them; more chunks than partial sums.
    ConvCase("rows_over_chunk", (1, 1, 1, 3, 684), (2, 1, 1, 1, 2)),
    ConvCase("rows_over_sums", (1, 256, 1, 17, 258), (1, 256, 1, 1, 2)),
    # Columns of patches: more than a block of them; more blocks than partial sums.
    ConvCase("columns_over_block", (2, 520, 1, 2, 3), (3, 520, 1, 2, 2)),
    ConvCase("columns_over_sums", (1, 1030, 3, 3, 1), (2, 1030, 5, 4, 1), padding=(2, 2, 0)),
]

_C3D = [
    ("c3d_conv1", 3, 64, (16, 112, 112)),
    ("c3d_conv2", 64, 128, (16, 56, 56)),
    ("c3d_conv3a", 128, 256, (8, 28, 28)),
    ("c3d_conv3b", 256, 256, (8, 28, 28)),
    ("c3d_conv4a", 256, 512, (4, 14, 14)),
    ("c3d_conv4b", 512, 512, (4, 14, 14)),
    ("c3d_conv5", 512, 512, (2, 7, 7)),
]
CASES += [
    ConvCase(name, (1, C, *size), (K, C, 3, 3, 3), padding="same", large=True)
    for name, C, K, size in _C3D
]
CASES += [
    ConvCase("example_conv1", (16, 3, 20, 64, 64), (12, 3, 3, 3, 3), padding="same", large=True),
    ConvCase("example_conv2", (16, 12, 5, 16, 16), (24, 12, 3, 3, 3), padding="same", large=True),
    # The second layer of slow fusion in Karpathy et al. (2014): 5x5 over time extent 2, stride 2.
    ConvCase(
        "karpathy_conv2", (4, 96, 4, 28, 28), (256, 96, 2, 5, 5), (2, 1, 1), (0, 2, 2), large=True
    ),
]

# First layers, of clips that are still bytes.
UINT8_CASES = [
    ConvCase("plain", (2, 3, 4, 5, 6), (4, 3, 3, 3, 3), padding=1),
    ConvCase("no_padding", (2, 3, 2, 3, 4), (3, 3, 2, 2, 3)),
    ConvCase("stride", (2, 3, 5, 6, 7), (3, 3, 3, 2, 3), stride=(1, 2, 3), padding=1),
    ConvCase("dilation", (1, 3, 5, 7, 8), (3, 3, 2, 3, 2), 1, (1, 2, 3), (3, 2, 4)),
    ConvCase("same_even_filter", (2, 3, 3, 4, 5), (2, 3, 2, 4, 2), padding="same"),
    ConvCase("pointwise_padded", (2, 3, 2, 1, 3), (5, 3, 1, 1, 1), padding=1),
    ConvCase("one_cell_padded", (2, 3, 1, 1, 1), (3, 3, 3, 3, 3), padding=1),
    ConvCase("grey", (2, 1, 3, 4, 5), (3, 1, 2, 3, 3), padding=1),
    ConvCase("groups", (1, 4, 3, 4, 3), (6, 2, 2, 2, 2), padding=1, groups=2),
    *[case for case in CASES if case.name in ("c3d_conv1", "example_conv1")],
]
