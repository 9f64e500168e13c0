# SPDX-License-Identifier: Apache-2.0
"""The table of metrics of collapse; a new one is a record in its own file and one line here."""

from collections.abc import Mapping, Sequence

from ncjax.collapse import intraclass, neural_collapse, variability, within
from ncjax.collapse.record import Metric
from ncjax.results import MetricInfo
from ncjax.tables import find_named

METRICS: dict[str, Metric] = {
    "nc1": neural_collapse.VARIABILITY,
    "cdnv": variability.CDNV,
    "vci": variability.VCI,
    "nc2": neural_collapse.SIMPLEX,
    "nc3": neural_collapse.SELF_DUALITY,
    "nc4": neural_collapse.NEAREST_MEAN,
    "effective_rank_means": neural_collapse.RANK_OF_MEANS,
    "effective_rank_within": variability.RANK_WITHIN,
    "cosine_spectrum": neural_collapse.COSINE_SPECTRUM,
    "effective_rank": variability.RANK_OF_ALL,
    "distances": within.DISTANCES,
    "explained_variance": within.EXPLAINED,
    "silhouettes": within.SILHOUETTES,
    "c1": intraclass.C1,
    "c2": within.C2,
    "c3": intraclass.C3,
    "c4": intraclass.C4,
}


def select(names: Sequence[str] | None = None) -> Mapping[str, Metric]:
    """The metrics of these names, in the order of the table, then those of installed packages; none: all of the table.

    Raises:
        UserError: a name is unknown.
    """
    if names is None:
        return dict(METRICS)
    added = {name: find_named(METRICS, name, "metric") for name in names if name not in METRICS}
    return {name: metric for name, metric in METRICS.items() if name in names} | added


def metric_infos(names: Sequence[str] | None = None) -> dict[str, MetricInfo]:
    """How each output of the metrics of these names is shown, in the order of the tables; none: of all metrics.

    Raises:
        UserError: a name is not in the table.
    """
    return {output: info for metric in select(names).values() for output, info in metric.outputs.items()}
