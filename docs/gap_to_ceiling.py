# SPDX-License-Identifier: Apache-2.0
"""Why CLP stays below the true-label probe: `python docs/gap_to_ceiling.py WORKDIR EPOCH VARIANT`, member 0, mod 5.

Prints the share of training examples in the wrong cluster by pair of classes, then the test accuracy of three probes:
on the true labels, on the clusters, and on true labels of which as many of each super-class are flipped at random.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.evaluation.clp import FeatureArrays, cluster_super_classes
from ncjax.evaluation.linear_probe import fit_probe, probe_predict
from ncjax.cluster import match_clusters
from ncjax.features.extraction import load_features

workdir, epoch, variant = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
splits = load_features(workdir, epoch)
train, test, fine, truth = splits.train.features[0], splits.test.features[0], splits.train.fine, splits.test.fine
coarse = np.arange(10, dtype=np.int32) % 5
arrays = FeatureArrays(train=train, train_fine=fine, test=test, test_fine=truth)
clusters = cluster_super_classes(jax.random.key(0), arrays, tuple(coarse.tolist()), variant)
allowed = np.asarray(clusters.super_class)[:, None] == coarse[None, :]
found = match_clusters(clusters.train, fine, allowed)[clusters.train]
flipped, rng = fine.copy(), np.random.default_rng(0)
for pair in range(5):
    inside = np.flatnonzero(fine % 5 == pair)
    wrong = found[inside] != fine[inside]
    print(f"classes {pair} and {pair + 5}: {100 * wrong.mean():.1f} % in the wrong cluster")
    rows = rng.choice(inside, wrong.sum(), replace=False)
    flipped[rows] = (flipped[rows] + 5) % 10
for name, labels in (("true labels", fine), ("clusters", found), ("random flips", flipped)):
    probe = fit_probe(jnp.asarray(train), jnp.asarray(labels), 10)
    predicted = np.asarray(probe_predict(probe, jnp.asarray(test)))
    own = (predicted % 5 == truth % 5).mean()
    print(f"probe on {name}: {100 * (predicted == truth).mean():.1f} %, right super-class {100 * own:.1f} %")
