# SPDX-License-Identifier: Apache-2.0
"""What is measured on eight devices is what is measured on one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from sklearn.datasets import load_digits

from ncjax.collapse import measure
from ncjax.evaluation.clp import cluster_super_classes
from ncjax.collapse.measure import Classifier, Labelled, blocks, gather_moments
from ncjax.evaluation.linear_probe import fit_probe
from ncjax.evaluation.old_results import FeatureArrays, evaluate_features
from ncjax.config import MeshConfig
from ncjax.distributed.sharding import ROWS, row_mesh, shard_rows
from tests.runs import assert_close

KEY = jax.random.key(0)
MOD5 = (0, 1, 2, 3, 4) * 2
UNEVEN = (0, 0, 0, 1, 1, 1, 1, 2, 2, 2)
VIEWS = ("raw", "normalised", "residual_pca")
MESH = Mesh(np.array(jax.devices()), (ROWS,))


def digits(count: int = 897, first: int = 900) -> FeatureArrays:
    """Digits for training, and from the first on for the test; with noise, for some pixels are always 0."""
    data = load_digits()
    noise = np.random.default_rng(0).normal(size=data.data.shape)
    points, labels = (data.data + noise).astype(np.float32), data.target.astype(np.int32)
    return FeatureArrays(train=points[:count], train_fine=labels[:count], test=points[first:], test_fine=labels[first:])


def classifier() -> Classifier:
    rng = np.random.default_rng(0)
    return Classifier(jnp.asarray(rng.normal(size=(5, 64)), jnp.float32), jnp.zeros(5))


def of_probes(found):
    """Accuracies of probes, taken out of a result."""
    clp = [scores.pop(name) for scores in found["clp"].values() for name in ("test_accuracy", "test_accuracy_oracle")]
    return [*clp, *(found.pop(f"probe_{split}_accuracy") for split in ("train", "test"))]


@pytest.mark.slow
@pytest.mark.parametrize("count", [897, 1001])
def test_an_evaluation_on_eight_devices_is_that_of_one(count):
    """Probes stop near their optimum: of the examples on a border some may change sides."""
    arrays = digits(count, count)
    one, eight = (
        evaluate_features(KEY, arrays, MOD5, ("raw", "normalised"), classifier(), mesh=mesh).to_json()
        for mesh in (None, MESH)
    )
    shares = [of_probes(found) for found in (one, eight)]
    assert_close(shares[0], shares[1], atol=3 / (1797 - count))
    assert_close(one, eight, atol=1e-4)


@pytest.mark.parametrize(
    ("super_class", "variant", "restarts"),
    [(MOD5, "normalised", 1), *(pytest.param(UNEVEN, view, 10, marks=pytest.mark.slow) for view in VIEWS)],
)
def test_clusters_on_eight_devices_are_those_of_one(super_class, variant, restarts):
    one, eight = (
        cluster_super_classes(KEY, digits(), super_class, variant, restarts=restarts, mesh=mesh)
        for mesh in (None, MESH)
    )
    np.testing.assert_array_equal(one.train, eight.train)
    np.testing.assert_array_equal(one.test, eight.test)
    assert eight.inertia == pytest.approx(one.inertia, rel=1e-5)


def test_several_blocks_far_from_0_are_spread_too(monkeypatch):
    """Blocks of 24 rows, the last of one; two rows are absent, and hold rubbish."""
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 10, 121).astype(np.int32)
    rows = (rng.normal(size=(121, 16)) + rng.normal(size=(10, 16))[fine] * 3 + 1e3).astype(np.float32)
    weights = np.where(np.isin(np.arange(121), (3, 120)), 0, 1).astype(np.float32)
    rows[3] = np.nan
    monkeypatch.setattr(measure, "BLOCK_BYTES", 3 * 16 * 4)
    assert [block.features.shape for block in blocks(Labelled(rows, fine), MESH)] == [(24, 16)] * 6
    one, eight = (jax.device_get(gather_moments(Labelled(rows, fine, weights), 10, mesh)) for mesh in (None, MESH))
    np.testing.assert_array_equal(one.fine.counts, eight.fine.counts)
    for ours, theirs in (
        (one.fine.origin + one.fine.means, eight.fine.origin + eight.fine.means),
        (one.units, eight.units),
    ):
        np.testing.assert_allclose(theirs, ours, rtol=1e-6)
    np.testing.assert_allclose(eight.fine.squares, one.fine.squares, rtol=1e-4)
    np.testing.assert_allclose(eight.fine.within, one.fine.within, atol=1e-2)


def test_each_device_holds_its_part_alone():
    rows = np.arange(22, dtype=np.float32).reshape(11, 2)
    spread = shard_rows(rows, MESH)
    assert spread.shape == (16, 2)
    assert [shard.data.shape for shard in spread.addressable_shards] == [(2, 2)] * 8
    np.testing.assert_array_equal(spread, np.pad(rows, ((0, 5), (0, 0))))
    assert shard_rows(rows.T, MESH, axis=1).addressable_shards[5].data.tolist() == [[20, 0], [21, 0]]
    assert shard_rows(rows, None).shape == (11, 2)


def largest_collective(program: str) -> int:
    """Numbers in the largest array that devices exchange."""
    found = re.findall(r" = (.*?) (?:all-reduce|all-gather|collective-permute|all-to-all)(?:-start)?\(", program)
    assert found
    return max(
        int(np.prod([int(n) for n in dims.split(",") if n])) for x in found for dims in re.findall(r"\[([\d,]*)\]", x)
    )


def test_devices_exchange_sums_and_no_examples():
    n, d, classes = 4096, 32, 10
    rows, labels = np.ones((n, d), np.float32), np.zeros(n, np.int32)
    x, y, w = (shard_rows(part, MESH) for part in (rows, labels, rows[:, 0]))
    probe = fit_probe.lower(x, y, classes, weights=w, mesh=MESH).compile().as_text()
    assert largest_collective(probe) <= d * d
    block = measure.Block(x, y, w)
    assert largest_collective(measure._moments.lower(block, None, classes).compile().as_text()) <= d * d
    moments = gather_moments(Labelled(rows, labels), classes)
    silhouettes = measure._silhouettes.lower(block, moments, jnp.zeros(classes, jnp.int32)).compile().as_text()
    assert largest_collective(silhouettes) <= classes * d


@pytest.mark.parametrize(("member", "data", "devices"), [(1, 1, None), (2, 2, 4), (0, 1, 8), (0, 3, 6), (4, 4, 8)])
def test_all_devices_of_a_run_are_in_the_row(member, data, devices):
    mesh = row_mesh(MeshConfig(member=member, data=data))
    assert (mesh and mesh.size) == devices
