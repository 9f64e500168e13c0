# SPDX-License-Identifier: Apache-2.0
"""Networks that are read in blocks have the values of those in memory: of every kind of file, and what is missing."""

import numpy as np
import pytest

from ncjax.evaluation import streamed_moments
from ncjax.evaluation.evaluator import evaluate
from ncjax.events import Event
from ncjax.features.feature_set import FeatureSet
from ncjax.results import Evaluation
from tests.evaluation.arrays import MOD5, arrays_of, only, pairs

VIEWS = ("raw", "normalised", "residual_pca")
TINY = 1e-6  # GiB: everything is streamed
ALL = 64.0


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    monkeypatch.setattr(streamed_moments, "BLOCK_BYTES", 4 * 12 * 70)
    monkeypatch.setattr("ncjax.collapse.reading.BLOCK_BYTES", 4 * 12 * 90)
    monkeypatch.setattr("ncjax.evaluation.streamed_clusters.BLOCK_BYTES", 4 * 12 * 80)
    monkeypatch.setattr("ncjax.evaluation.streamed_simple.NEIGHBOUR_BYTES", 4 * 12 * 64)


def on_disk(tmp_path, x, y, z=None, w=None) -> FeatureSet:
    arrays = {"train_features": x, "train_labels": y} | ({} if z is None else {"test_features": z, "test_labels": w})
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return FeatureSet.open(tmp_path)


def assert_same(found: Evaluation, wanted: Evaluation) -> None:
    """Values to 1e-5, accuracies to 0.05 points, the same clusters, reasons and lines."""
    for ours, theirs in zip(found.rows, wanted.rows, strict=True):
        assert ours.left_out == theirs.left_out
        assert ours.super_class == theirs.super_class
        for one, other in zip(ours.measurements, theirs.measurements, strict=True):
            where = (one.metric, one.split, one.level, one.view)
            assert where == (other.metric, other.split, other.level, other.view)
            assert one.reason == other.reason
            if one.metric == "probe_gradient_norm":  # both end where they are near enough
                continue
            share = found.metrics[one.metric].scope in ("probe", "clp", "accuracy") and one.metric != "inertia"
            if other.value is None:
                assert one.value is None, where
                continue
            close = {"abs": 5e-4} if share else {"rel": 1e-5, "abs": 1e-5}
            assert one.value == pytest.approx(other.value, **close), where
    assert found.clusters.keys() == wanted.clusters.keys()
    for view, ours in found.clusters.items():
        theirs = wanted.clusters[view]
        np.testing.assert_array_equal(ours.recovered_train, theirs.recovered_train, err_msg=view)
        assert (ours.test is None) == (theirs.test is None)
        if theirs.test is not None:
            np.testing.assert_array_equal(ours.recovered_test, theirs.recovered_test, err_msg=view)


def compare(features: FeatureSet, **options) -> Evaluation:
    options = {"label_map": MOD5, "views": VIEWS, "bootstrap": 0, "restarts": 3, **options}
    found, wanted = (evaluate(features, memory_gib=gib, **options) for gib in (TINY, ALL))
    assert_same(found, wanted)
    return found


@pytest.mark.parametrize("dtype", ["float16", "float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_a_folder_has_the_values_of_its_arrays_in_memory(tmp_path, dtype):
    x, y, z, w = arrays_of(pairs(4.0))
    features = on_disk(tmp_path, x.astype(dtype), y, z.astype(dtype), w)
    row = only(compare(features, bootstrap=3))
    assert row.value("cluster_accuracy", split="train", view="raw") > 0.99
    assert row.value("probe_converged", split="train") == 1


@pytest.mark.slow
def test_rows_with_nan_a_rare_class_and_classes_in_order(tmp_path):
    x, y, z, w = arrays_of(pairs(6.0, noise=0.2))
    order = np.argsort(y, kind="stable")
    x, y = x[order], y[order]
    kept = np.flatnonzero((y != 7) | (np.cumsum(y == 7) <= 6))
    x, y = x[kept], y[kept]
    x[4, 2], x[100] = np.nan, np.inf
    z[3] = np.nan
    row = only(compare(on_disk(tmp_path, x, y, z, w), views=("raw", "residual_pca")))
    assert "train: 2 of" in row.left_out[0]
    assert row.value("probe_converged", split="train") == 1


@pytest.mark.slow
@pytest.mark.parametrize("label_map", [None, (0,) * 10, MOD5])
@pytest.mark.parametrize("test_split", [True, False])
def test_what_is_missing_is_said_alike(tmp_path, label_map, test_split):
    x, y, z, w = arrays_of(pairs(6.0, noise=0.1))
    features = on_disk(tmp_path, x, y, *((z, w) if test_split else ()))
    compare(features, label_map=label_map, views=("raw", "residual_pca"))


@pytest.mark.slow
def test_points_far_from_0_and_tiny_scales(tmp_path):
    x, y, z, w = arrays_of(pairs(4.0))
    x, z = (1e4 + 1e-3 * part.astype(np.float64) for part in (x, z))
    compare(on_disk(tmp_path, x, y, z, w))


@pytest.mark.slow
def test_a_view_in_the_plane(tmp_path, monkeypatch):
    monkeypatch.setattr("ncjax.evaluation.clusters.PLANE_POINTS", 40)
    found = compare(on_disk(tmp_path, *arrays_of(pairs(6.0, noise=0.1))), views=("tsne",))
    assert np.isfinite(found.clusters["tsne"].embedding[0]).all(axis=1).sum() <= 5 * 40


def test_layers_are_streamed_each_and_progress_is_told(tmp_path):
    x, y, z, w = arrays_of(pairs(5.0, noise=0.1))
    for name, width in (("block2", 12), ("block10", 8)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "train_features.npy", x[:, :width])
        np.save(tmp_path / name / "test_features.npy", z[:, :width])
    np.save(tmp_path / "train_labels.npy", y)
    np.save(tmp_path / "test_labels.npy", w)
    events: list[Event] = []
    options = {"label_map": MOD5, "views": (), "bootstrap": 0}
    found = evaluate(FeatureSet.open(tmp_path), memory_gib=TINY, on_event=events.append, **options)
    assert [row.layer for row in found.rows] == ["block2", "block10"]
    assert_same(found, evaluate(FeatureSet.open(tmp_path), memory_gib=ALL, **options))
    stages = [event for event in events if event.stage == "stream"]
    assert [event.done for event in stages] == [0, 1, 2, 3, 4, 4] * 2
    assert [event.state for event in stages] == [""] * 5 + ["ended"] + [""] * 5 + ["ended"]
    *whole, last = [event for event in events if event.stage == "evaluate"]
    assert last == whole[-1]._replace(state="ended")
    assert [event.done for event in whole] == sorted({event.done for event in whole})
    assert whole[-1].done == whole[-1].total


@pytest.mark.slow
def test_passes_over_the_file_are_few(tmp_path, monkeypatch):
    monkeypatch.setattr("ncjax.storage.npy_rows.GAP_BYTES", 0)  # rows are tiny here
    features = on_disk(tmp_path, *arrays_of(pairs(4.0, count=20_000)))
    (rows,) = features.train.layers["features"]
    evaluate(features, label_map=MOD5, views=VIEWS, restarts=2, bootstrap=0, memory_gib=2e-3)
    assert rows.passes <= 40
