# SPDX-License-Identifier: Apache-2.0
"""Metrics of neural collapse: moments of features by class, and pure functions of them.

statistics = class_statistics(features, labels, classes)
nc1(statistics).nc1, nc2(statistics).nc2_etf, cdnv(statistics)

Arrays may be of JAX, NumPy or PyTorch.
"""

from ncjax.collapse.metrics import METRICS
from ncjax.collapse.neural_collapse import NC1, NC2, NC3, kernel_nc1, nc1, nc2, nc3, nc4
from ncjax.collapse.separation import SeparationLaw, separation_law
from ncjax.collapse.statistics import ClassStatistics, class_statistics, merge, merge_classes, merge_devices
from ncjax.collapse.variability import cdnv, class_distances, effective_rank, vci

__all__ = [
    "METRICS",
    "NC1",
    "NC2",
    "NC3",
    "ClassStatistics",
    "SeparationLaw",
    "cdnv",
    "class_distances",
    "class_statistics",
    "effective_rank",
    "kernel_nc1",
    "merge",
    "merge_classes",
    "merge_devices",
    "nc1",
    "nc2",
    "nc3",
    "nc4",
    "separation_law",
    "vci",
]
