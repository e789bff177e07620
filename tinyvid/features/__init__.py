"""Features made by hand, which networks are compared with: histograms of gradients and of flow.

`cells` counts them, `histograms` gives them to a small network, `fisher` encodes them for a linear
SVM, and `baseline` trains and tests either on the splits of the networks.
"""

from tinyvid.features.baseline import BASELINES, cross_validate_baseline, fit_baseline
from tinyvid.features.cells import CellSettings, VideoCells, flow_cells, gradient_cells
from tinyvid.features.fisher import FisherVectors, fisher_vector

__all__ = [
    "BASELINES",
    "CellSettings",
    "FisherVectors",
    "VideoCells",
    "cross_validate_baseline",
    "fisher_vector",
    "fit_baseline",
    "flow_cells",
    "gradient_cells",
]
