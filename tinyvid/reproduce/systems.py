"""What is trained and what is fused, one entry each.

An entry says how its scores come about; `tinyvid.reproduce.work` runs it, `papers` says in which
row of which table they stand.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trained:
    """A network of `tinyvid.models`, trained and tested.

    Attributes:
        label: its name for people. about: one line.
        overrides: keys of its config that differ from the other networks', `key=value`.
        gallery: whether its learning curve, confusion matrix and what it looks at are shown.
        quick: whether `--quick` has it on verbs, where the flow of each video is found anew.
    """

    model: str
    label: str
    about: str
    overrides: tuple[str, ...] = ()
    gallery: bool = True
    needs: tuple[str, str] | None = None
    quick: bool = True


@dataclass(frozen=True)
class Baseline:
    """Features made by hand, of `tinyvid.features`.

    Attributes:
        quick: whether `--quick` has them on verbs: their flow takes longer than its networks.
        needs: a package that is not always there, and the extra that has it.
    """

    name: str
    label: str
    about: str
    quick: bool = False
    needs: tuple[str, str] | None = None
    gallery: bool = False


@dataclass(frozen=True)
class Fusion:
    """The scores of several systems, fused. `method` is that of `tinyvid.fusion_sources`."""

    parts: tuple[str, ...]
    label: str
    about: str
    method: str = "average"
    needs: tuple[str, str] | None = None
    gallery: bool = True
    quick: bool = True


System = Trained | Baseline | Fusion

SVM = ("sklearn", "svm")

SYSTEMS: dict[str, System] = {
    "single_frame": Trained("single_frame", "single frame", "a 2-D CNN that never sees motion"),
    "multires": Trained(
        "multires", "multires", "single frame, fovea and context streams", gallery=False
    ),
    "fovea": Trained("fovea", "fovea", "single frame, the middle only", gallery=False),
    "context": Trained("context", "context", "single frame at half resolution", gallery=False),
    "early_fusion": Trained(
        "early_fusion", "early fusion", "all frames in the first 2-D convolution"
    ),
    "late_fusion": Trained(
        "late_fusion", "late fusion", "a 2-D CNN on each frame, joined at the end"
    ),
    "slow_fusion": Trained(
        "slow_fusion", "slow fusion", "a 3-D CNN: time fused slowly over the layers"
    ),
    "temporal_stream": Trained(
        "temporal_stream", "temporal stream", "a 2-D CNN on stacks of optical flow", quick=False
    ),
    "cnn_average": Fusion(
        ("single_frame", "early_fusion", "late_fusion", "slow_fusion"),
        "CNN average",
        "the mean of what single frame, early, late and slow fusion say",
    ),
    "two_stream": Fusion(
        ("single_frame", "temporal_stream"),
        "two-stream, average",
        "the mean of what single frame, the spatial stream, and the temporal stream say",
        quick=False,
    ),
    "two_stream_svm": Fusion(
        ("single_frame", "temporal_stream"),
        "two-stream, SVM",
        "a linear SVM on what the two streams say",
        method="svm",
        needs=SVM,
        quick=False,
        gallery=False,
    ),
    "histograms": Baseline(
        "histograms",
        "histograms + neural net",
        "histograms of oriented gradients and of flow, and a network of one hidden layer",
    ),
    "fisher": Baseline(
        "fisher",
        "Fisher vectors + SVM",
        "Fisher vectors of the same histograms in small blocks, and a linear SVM",
        needs=SVM,
    ),
}
