# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ncjax.data.label_maps import LabelMap
from ncjax.errors import UserError
from ncjax.evaluation.clp import cluster_and_linear_probe
from tests.evaluation.arrays import MOD5, arrays_of, pairs


@pytest.mark.parametrize(
    "view",
    [
        pytest.param("raw", marks=pytest.mark.slow),
        "normalised",
        "residual_pca",
        pytest.param("tsne", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_separated_classes_come_back(view):
    result = cluster_and_linear_probe(*arrays_of(pairs(6.0, count=1500)), MOD5, view=view)
    assert result.test_accuracy > 0.99
    assert result.cluster_accuracy_train > 0.99
    assert result.ari > 0.98
    assert result.nmi > 0.98
    assert result.test_accuracy_oracle >= result.test_accuracy
    assert (result.cluster_accuracy_test is None) == (view == "tsne")


@pytest.mark.parametrize("view", ["raw", "normalised", "residual_pca"])
def test_collapsed_classes_do_not_come_back(view):
    result = cluster_and_linear_probe(*arrays_of(pairs(0.0)), MOD5, view=view)
    assert result.test_accuracy < 0.65  # a coin inside the right super-class
    assert result.cluster_accuracy_train < 0.65
    assert result.ari < 0.6


@pytest.mark.slow
def test_super_classes_of_different_sizes_and_unequal_classes():
    super_class = (0, 0, 0, 0, 1, 1, 2, 1, 3, 3)
    rng = np.random.default_rng(0)
    means = rng.normal(size=(10, 20)) * 5

    def split(n):
        labels = rng.choice(10, n, p=[0.3, 0.1, 0.05, 0.05, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]).astype(np.int32)
        return (means[labels] + 0.3 * rng.normal(size=(n, 20))).astype(np.float32), labels

    assert cluster_and_linear_probe(*split(1500), *split(400), super_class).test_accuracy > 0.99


@pytest.mark.slow
def test_label_maps_of_every_form_are_the_same():
    x, y, z, w = arrays_of(pairs(2.0, noise=0.6))
    of_map = LabelMap.parse("mod:5", tuple(map(str, range(10))))
    results = {cluster_and_linear_probe(x, y, z, w, given, restarts=2) for given in (MOD5, "mod:5", of_map)}
    assert len(results) == 1


def test_matching_is_that_of_the_training_set():
    x, y, z, w = arrays_of(pairs(6.0))
    swapped = (w + 5) % 10  # on the test set the two classes of each pair change names
    result = cluster_and_linear_probe(x, y, z, swapped, MOD5)
    assert result.test_accuracy < 0.01
    assert result.test_accuracy_oracle > 0.99


def test_super_class_without_enough_examples_is_named():
    x, y, z, w = arrays_of(pairs(6.0))
    few = np.append(np.flatnonzero(y % 5 != 3), np.flatnonzero(y == 3)[:1])
    with pytest.raises(UserError, match="super-class 3 has 1 training examples for 2 classes"):
        cluster_and_linear_probe(x[few], y[few], z, w, MOD5)


def test_unknown_view_is_named_with_the_known_ones():
    with pytest.raises(UserError, match="view is 'umap', but must be one of raw, normalised, residual_pca, tsne"):
        cluster_and_linear_probe(*arrays_of(pairs(1.0)), MOD5, view="umap")
