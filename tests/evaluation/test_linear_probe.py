# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ncjax.errors import UserError
from ncjax.evaluation.linear_probe import fit_linear_probe
from tests.evaluation.arrays import split_digits


def collapsed_digits():
    """The digits with ten huge class directions: a badly conditioned problem."""
    train, labels, test, test_labels = split_digits()
    rng = np.random.default_rng(0)
    means = rng.normal(size=(5, 64)).astype(np.float32) * 300
    return train + means[labels % 5] + 1e3, labels, test + means[test_labels % 5] + 1e3, test_labels


@pytest.mark.parametrize("data", [split_digits, collapsed_digits])
@pytest.mark.parametrize("l2", [pytest.param(1e-2, marks=pytest.mark.slow), 1e-4])
def test_probe_is_scikit_learns(data, l2):
    train, labels, test, test_labels = data()
    ours = fit_linear_probe(jnp.asarray(train), jnp.asarray(labels), 10, l2=l2)
    regression = LogisticRegression(C=1 / (l2 * len(train)), solver="newton-cg", tol=1e-8)
    theirs = make_pipeline(StandardScaler(), regression)
    theirs.fit(train.astype(np.float64), labels)
    accuracy = (np.asarray(ours.predict(jnp.asarray(test))) == test_labels).mean()
    assert abs(accuracy - theirs.score(test, test_labels)) <= 0.002
    assert bool(ours.converged)
    z = StandardScaler().fit(train.astype(np.float64))
    weights = theirs[-1].coef_.T
    logits = z.transform(train) @ weights + theirs[-1].intercept_
    loss = -(logits - np.log(np.exp(logits).sum(1, keepdims=True)))[np.arange(len(train)), labels].mean()
    assert float(ours.loss) == pytest.approx(loss + l2 / 2 * (weights**2).sum(), abs=2e-5)


def test_probes_at_once_are_those_one_by_one():
    train, labels, test, _ = split_digits()
    labellings = np.stack([labels, labels % 5, (labels * 3 + np.arange(len(labels)) % 2) % 10]).astype(np.int32)
    together = fit_linear_probe(jnp.asarray(train), jnp.asarray(labellings), 10)
    assert together.converged.all()
    for i, own in enumerate(labellings):
        alone = fit_linear_probe(jnp.asarray(train), jnp.asarray(own), 10)
        assert float(together.loss[i]) == pytest.approx(float(alone.loss), rel=1e-4)
        found = together.predict(jnp.asarray(test))[i] == alone.predict(jnp.asarray(test))
        assert found.mean() > 0.99


def test_probe_survives_constant_features_and_one_missing_class():
    train, labels, _, _ = split_digits()
    train[:, 3] = 7
    probe = fit_linear_probe(jnp.asarray(train), jnp.asarray(labels), 11)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in probe)
    assert 10 not in np.asarray(probe.predict(jnp.asarray(train)))


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("wrong", [-1, 3, 2**31 - 1])
def test_labels_out_of_range_are_named(array, wrong):
    labels = np.array([0, 1, 2, wrong], np.int32)
    with pytest.raises(UserError, match=f"label {wrong} of the probe is out of range: there are 3 classes, 0 to 2"):
        fit_linear_probe(array(np.eye(4, dtype=np.float32)), array(labels), 3)
