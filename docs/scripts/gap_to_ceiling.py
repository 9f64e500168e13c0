# SPDX-License-Identifier: Apache-2.0
"""Why CLP stays below the true-label probe: `python docs/scripts/gap_to_ceiling.py WORKDIR EPOCH VIEW`.

For member 0 and the super-classes label modulo 5.
Prints the share of training examples in the wrong cluster by pair of classes, then the test accuracy of three probes:
on the true labels, on the clusters, and on true labels of which as many of each super-class are flipped at random.
"""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from ncjax.evaluation.evaluator import evaluate
from ncjax.evaluation.linear_probe import fit_linear_probe
from ncjax.features.feature_set import FeatureSet
from ncjax.features.store import load_features


def main() -> None:
    """Cluster, compare, fit."""
    workdir, epoch, view = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    kept = load_features(workdir, epoch)
    assert kept.test is not None
    train, test = (np.asarray(split.layers["features"][0]) for split in (kept.train, kept.test))
    fine, truth = kept.train.labels, kept.test.labels
    features = FeatureSet.from_arrays(train, fine, test, truth)
    super_class = [label % 5 for label in range(10)]
    evaluation = evaluate(features, label_map=super_class, views=(view,), metrics=(), bootstrap=0)
    found = evaluation.clusters[view].recovered_train[0]
    flipped = flip_at_random(fine, found)
    for name, labels in (("true labels", fine), ("clusters", found), ("random flips", flipped)):
        probe = fit_linear_probe(jnp.asarray(train), jnp.asarray(labels, jnp.int32), 10)
        predicted = np.asarray(probe.predict(jnp.asarray(test)))
        own = (predicted % 5 == truth % 5).mean()
        print(f"probe on {name}: {100 * (predicted == truth).mean():.1f} %, right super-class {100 * own:.1f} %")


def flip_at_random(fine: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The fine labels, of which as many are flipped in each super-class as its clusters get wrong; prints the share."""
    flipped, rng = fine.copy(), np.random.default_rng(0)
    for pair in range(5):
        inside = np.flatnonzero(fine % 5 == pair)
        wrong = found[inside] != fine[inside]
        print(f"classes {pair} and {pair + 5}: {100 * wrong.mean():.1f} % in the wrong cluster")
        rows = rng.choice(inside, wrong.sum(), replace=False)
        flipped[rows] = (flipped[rows] + 5) % 10
    return flipped


if __name__ == "__main__":
    main()
