# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.evaluation.clusters import Examples, check_counts, cluster_networks
from ncjax.evaluation.evaluator import evaluate
from tests.evaluation.arrays import MOD5, arrays_of, only, pairs

MIXED = (0, 0, 1, 1, 2, 2, 2, 3, 3, 3)
VIEWS = ("raw", "residual_pca")


def examples(seed=0, super_class=MOD5, separation=4.0):
    x, y, z, w = arrays_of(pairs(separation, seed=seed))
    return Examples({"train": x, "test": z}, {"train": y, "test": w}, super_class)


@pytest.mark.slow
@pytest.mark.parametrize("views", [("raw",), ("normalised", "residual_pca")])
def test_networks_together_are_networks_alone(views):
    networks = [examples(), examples(1), examples(2, MIXED)]
    together = cluster_networks(networks, views, restarts=2)
    for network, found in zip(networks, together, strict=True):
        (alone,) = cluster_networks([network], views, restarts=2)
        for view in views:
            np.testing.assert_array_equal(found[view].train, alone[view].train)
            np.testing.assert_array_equal(found[view].test, alone[view].test)
            assert found[view].inertia == pytest.approx(alone[view].inertia, rel=1e-5)
            assert found[view].super_class == tuple(sorted(network.super_class))
            owner = np.asarray(found[view].super_class)
            np.testing.assert_array_equal(owner[found[view].train], network.owner("train"))
            np.testing.assert_array_equal(owner[found[view].test], network.owner("test"))


def test_inertia_and_test_clusters_are_of_the_nearest_means():
    network = examples()
    found = cluster_networks([network], ("raw",))[0]["raw"]
    x, z = (network.rows[name].astype(np.float64) for name in ("train", "test"))
    means = np.stack([x[found.train == cluster].mean(axis=0) for cluster in range(10)])
    assert found.inertia == pytest.approx(((x - means[found.train]) ** 2).sum(), rel=1e-5)
    distances = ((z[:, None] - means) ** 2).sum(axis=-1)
    distances[np.asarray(found.super_class)[None, :] != network.owner("test")[:, None]] = np.inf
    np.testing.assert_array_equal(found.test, distances.argmin(axis=1))


def test_views_are_told_when_they_are_done():
    told = []
    cluster_networks([examples()], VIEWS, restarts=1, tell=told.append)
    assert told == list(VIEWS)


def test_a_super_class_with_too_few_examples_is_named():
    network = examples()
    kept = np.append(np.flatnonzero(network.owner("train") != 3), np.flatnonzero(network.owner("train") == 3)[:1])
    few = network._replace(
        rows={**network.rows, "train": network.rows["train"][kept]},
        fine={**network.fine, "train": network.fine["train"][kept]},
    )
    with pytest.raises(UserError, match="super-class 3 has 1 training examples for 2 classes"):
        check_counts(few)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_planes_hold_some_examples_and_the_others_vote(monkeypatch):
    monkeypatch.setattr("ncjax.evaluation.clusters.PLANE_POINTS", 30)
    found = evaluate(pairs(6.0), label_map=MOD5, views=("tsne",), bootstrap=0)
    assert only(found).value("cluster_accuracy", split="train", view="tsne") > 0.97
    clusters = found.clusters["tsne"]
    embedded = np.isfinite(clusters.embedding[0]).all(axis=1)
    assert clusters.embedding.shape == (1, 300, 2)
    assert embedded.sum() == 5 * 30
    assert clusters.test is None
    assert (clusters.train >= 0).all()
