"""What the papers report, and which network here stands for which of their rows.

Numbers are shares in percent, None where a paper gives none.

Karpathy et al., "Large-scale video classification with convolutional neural networks", CVPR 2014,
tables 1 and 2, on Sports-1M; the row of C3D is that of Tran et al., "Learning spatiotemporal
features with 3D convolutional networks", ICCV 2015, table 2. Simonyan and Zisserman, "Two-stream
convolutional networks for action recognition in videos", NeurIPS 2014, table 4, means over the
three splits of UCF-101 and HMDB-51.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """A row of a paper's table.

    Attributes:
        name: what it is. numbers: one for each of the table's columns.
        system: the key in `tinyvid.reproduce.systems` of what is measured beside it; "" for what
            is not built here. A row without numbers is ours alone.
    """

    name: str
    numbers: tuple[float | None, ...]
    system: str = ""


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper: `columns` are those of its numbers, `of` says whose they are."""

    key: str
    title: str
    of: str
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]


KARPATHY = PaperTable(
    "karpathy",
    "Time in four ways",
    "Karpathy et al. 2014, Sports-1M",
    ("Clip Hit@1", "Video Hit@1", "Video Hit@5"),
    (
        PaperRow("feature histograms + neural net", (None, 55.3, None), "histograms"),
        PaperRow("Fisher vectors of them + linear SVM", (None, None, None), "fisher"),
        PaperRow("single frame", (41.1, 59.3, 77.7), "single_frame"),
        PaperRow("single frame + multires", (42.4, 60.0, 78.5), "multires"),
        PaperRow("single frame, fovea only", (30.0, 49.9, 72.8), "fovea"),
        PaperRow("single frame, context only", (38.1, 56.0, 77.2), "context"),
        PaperRow("early fusion", (38.9, 57.7, 76.8), "early_fusion"),
        PaperRow("late fusion", (40.7, 59.3, 78.7), "late_fusion"),
        PaperRow("slow fusion (3-D CNN)", (41.9, 60.9, 80.2), "slow_fusion"),
        PaperRow("CNN average (single + early + late + slow)", (41.4, 63.9, 82.4), "cnn_average"),
        PaperRow("C3D", (None, None, 84.4)),
    ),
)

TWO_STREAM = PaperTable(
    "two_stream",
    "Appearance and motion",
    "Simonyan and Zisserman 2014",
    ("UCF-101", "HMDB-51"),
    (
        PaperRow("improved dense trajectories (IDT)", (85.9, 57.2)),
        PaperRow("IDT with higher-dimensional encodings", (87.9, 61.1)),
        PaperRow("IDT with stacked Fisher encoding", (None, 66.8)),
        PaperRow("spatio-temporal HMAX", (None, 22.8)),
        PaperRow("slow-fusion spatio-temporal ConvNet", (65.4, None), "slow_fusion"),
        PaperRow("spatial stream ConvNet", (73.0, 40.5), "single_frame"),
        PaperRow("temporal stream ConvNet", (83.7, 54.6), "temporal_stream"),
        PaperRow("two-stream, fusion by averaging", (86.9, 58.0), "two_stream"),
        PaperRow("two-stream, fusion by SVM", (88.0, 59.4), "two_stream_svm"),
    ),
)

TABLES = (KARPATHY, TWO_STREAM)
