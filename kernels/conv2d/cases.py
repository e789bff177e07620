"""Named problem sizes of 2-D convolution, for tests, gradient checks and benchmarks."""

from tinyvid.kernels.conv3d.cases import ConvCase

CASES = [
    ConvCase("plain", (2, 3, 5, 6), (4, 3, 3, 3), padding=1),
    ConvCase("all_ones", (1, 1, 1, 1), (1, 1, 1, 1)),
    ConvCase("filter_is_input", (2, 3, 3, 5), (2, 3, 3, 5)),
    ConvCase("pointwise", (2, 3, 4, 5), (4, 3, 1, 1)),
    ConvCase("stride_over_filter", (2, 2, 7, 8), (3, 2, 2, 1), stride=(3, 2)),
    ConvCase("stride_and_dilation", (2, 2, 8, 9), (3, 2, 3, 2), (2, 3), (2, 1), (2, 3)),
    ConvCase("same_even_filter", (1, 2, 4, 5), (3, 2, 4, 2), padding="same"),
    ConvCase("groups", (2, 6, 4, 5), (4, 3, 3, 2), padding=1, groups=2),
    ConvCase("depthwise", (2, 3, 5, 4), (6, 1, 3, 3), padding=1, groups=3),
    # Early fusion: clips N C T H W, of which the filter takes all C*T planes.
    ConvCase("clip", (2, 3, 4, 5, 6), (5, 12, 3, 3), padding=1),
    ConvCase("clip_one_frame", (2, 3, 1, 5, 4), (2, 3, 3, 3), padding=1),
    ConvCase("clip_one_channel", (2, 1, 5, 4, 5), (2, 5, 3, 2)),
    ConvCase("clip_stride", (2, 2, 3, 7, 8), (4, 6, 3, 3), (2, 3), (1, 0), (1, 2)),
    ConvCase("clip_same", (1, 3, 2, 5, 6), (4, 6, 4, 2), padding="same", dilation=(1, 3)),
    ConvCase("clip_groups_of_channels", (2, 4, 3, 5, 4), (6, 6, 3, 3), padding=1, groups=2),
    ConvCase("clip_groups_cut_channels", (2, 3, 4, 5, 4), (4, 6, 3, 2), padding=1, groups=2),
    ConvCase("clip_many_channels", (1, 17, 2, 4, 5), (3, 34, 3, 3), padding=1),
    ConvCase("clip_groups_of_many", (1, 16, 3, 4, 4), (4, 24, 3, 2), (1, 2), 1, groups=2),
    ConvCase("clip_depthwise", (1, 2, 3, 4, 5), (12, 1, 2, 3), padding=1, groups=6),
    ConvCase(
        "example_early_fusion", (16, 3, 20, 64, 64), (12, 60, 3, 3), padding="same", large=True
    ),
    ConvCase("example_conv2", (16, 12, 16, 16), (24, 12, 3, 3), padding="same", large=True),
    # Early fusion of Karpathy et al. (2014): 11x11 filters over 10 frames, stride 3.
    ConvCase("karpathy_early_fusion", (4, 3, 10, 170, 170), (96, 30, 11, 11), 3, large=True),
    # Early fusion of the clips of C3D, by a first layer as wide as its second one.
    ConvCase("c3d_early_fusion", (8, 3, 16, 112, 112), (128, 48, 3, 3), padding="same", large=True),
]

# First layers, of images and clips that are still bytes.
UINT8_CASES = [
    ConvCase("plain", (2, 3, 5, 6), (4, 3, 3, 3), padding=1),
    ConvCase("stride_and_dilation", (2, 3, 8, 9), (3, 3, 3, 2), (2, 3), (2, 1), (2, 3)),
    ConvCase("clip", (2, 3, 4, 5, 6), (5, 12, 3, 3), padding=1),
    ConvCase("clip_one_frame", (2, 3, 1, 5, 4), (2, 3, 3, 3), padding=1),
    ConvCase("clip_stride", (2, 3, 2, 5, 6), (2, 6, 2, 2), (2, 3), (1, 0), (1, 2)),
    ConvCase("clip_same", (1, 3, 3, 5, 6), (4, 9, 4, 2), padding="same", dilation=(1, 3)),
    ConvCase("clip_grey", (2, 1, 3, 4, 5), (3, 3, 3, 3), padding=1),
    ConvCase("clip_groups", (1, 4, 3, 4, 3), (6, 6, 2, 2), padding=1, groups=2),
    *[case for case in CASES if case.name.endswith("_early_fusion")],
]
