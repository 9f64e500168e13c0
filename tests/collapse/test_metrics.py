# SPDX-License-Identifier: Apache-2.0
"""The table of metrics, and the examples in the docstrings of the room."""

import doctest

import pytest

from ncjax import collapse
from ncjax.collapse.metrics import METRICS, metric_infos, select
from ncjax.errors import UserError

FUNCTIONS = [name for name in collapse.__all__ if name != "METRICS" and name[0].islower()]


def test_infos_are_in_the_order_of_the_tables():
    names = list(metric_infos())
    assert names == [
        *("nc1", "nc1_ratio", "separation", "cdnv", "vci"),
        *("nc2_equinorm", "nc2_equiangularity", "nc2_angle", "nc2_etf"),
        *("nc3", "nc3_etf", "nc3_equinorm", "nc4"),
        *("effective_rank_means", "effective_rank_within", "cosine_spectrum", "effective_rank"),
        *("distance_same_class", "distance_merged_classes", "distance_other_classes"),
        *("explained_variance", "explained_by_super_class", "silhouette", "silhouette_cosine", "c1", "c2", "c3", "c4"),
    ]


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_every_output_is_shown_at_the_levels_of_its_metric(metric):
    scopes = {"coarse": "level", "fine": "level"}
    assert {scopes.get(level, level) for level in metric.levels} == {info.scope for info in metric.outputs.values()}


def test_names_select_metrics_in_the_order_of_the_table():
    assert list(select(("c1", "nc1"))) == ["nc1", "c1"]
    assert list(metric_infos(("nc1",))) == ["nc1", "nc1_ratio", "separation"]
    with pytest.raises(UserError, match="metric is 'nc5', but must be one of nc1, cdnv,"):
        select(("nc1", "nc5"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_example(name):
    text = getattr(collapse, name).__doc__
    test = doctest.DocTestParser().get_doctest(text, {name: getattr(collapse, name)}, name, None, None)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0
