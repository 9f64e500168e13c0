# SPDX-License-Identifier: Apache-2.0
"""Metrics of the hidden layer at one time; k-means and NC1 are those of the image experiments."""

from itertools import permutations
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from ncjax.cluster import kmeans
from ncjax.collapse import class_distances, class_statistics, nc1
from ncjax.ops.linalg import triangular_factor
from ncjax.theory.config import TheoryConfig


class HiddenGeometry(NamedTuple):
    """Hidden representations by Gaussian, in units of one hidden unit: sums over units are divided by the width."""

    within: Float[Array, ""]  # mean squared distance of two examples of a Gaussian
    between_gaussians: Float[Array, ""]  # of two Gaussians of a label
    between_labels: Float[Array, ""]  # of two labels
    cosine_gaussians: Float[Array, ""]  # cosine of the means of two Gaussians of a label
    cosine_labels: Float[Array, ""]  # of two labels
    nc1_fine: Float[Array, ""]
    nc1_coarse: Float[Array, ""]


class Gates(NamedTuple):
    """Signs of the first layer's pre-activations; shares in [0, 1]."""

    gates_open: Float[Array, ""]  # of units and Gaussians, at the Gaussian's mean
    gates_changed: Float[Array, ""]  # of those, different from initialization
    gates_noisy: Float[Array, ""]  # of units and examples, different from that of the example's Gaussian


def hidden_geometry(
    features: Float[Array, "n m"], component: Int32[Array, "n"], config: TheoryConfig
) -> HiddenGeometry:
    """Distances, cosines and NC1; averages over pairs of Gaussians, 0 where there is no such pair."""
    q, count = config.mixture.components, config.mixture.labels * config.mixture.components
    fine = class_statistics(features, component, count)
    coarse = class_statistics(features, component // q, config.mixture.labels)
    distances = class_distances(fine)
    means = fine.means + fine.origin[None, :]
    lengths = jnp.linalg.norm(means, axis=1)
    cosines = (means @ means.T) / jnp.maximum(lengths[:, None] * lengths[None, :], 1e-30)
    label = jnp.arange(count) // q
    same = label[:, None] == label[None, :]
    siblings = (same & ~jnp.eye(count, dtype=bool)).astype(features.dtype)
    others = (~same).astype(features.dtype)

    def average(matrix: Array, pairs: Array) -> Array:
        return (matrix * pairs).sum() / jnp.maximum(pairs.sum(), 1)

    return HiddenGeometry(
        within=jnp.diagonal(distances).mean(),
        between_gaussians=average(distances, siblings),
        between_labels=average(distances, others),
        cosine_gaussians=average(cosines, siblings),
        cosine_labels=average(cosines, others),
        nc1_fine=nc1(fine).nc1,
        nc1_coarse=nc1(coarse).nc1,
    )


def gate_statistics(
    first: Float[Array, "d m"],
    initial: Float[Array, "d m"],
    means: Float[Array, "k d"],
    inputs: Float[Array, "n d"],
    component: Int32[Array, "n"],
) -> Gates:
    """Gates at the means and at the examples."""
    at_means = means @ first > 0
    return Gates(
        gates_open=at_means.mean(),
        gates_changed=(at_means != (means @ initial > 0)).mean(),
        gates_noisy=((inputs @ first > 0) != at_means[component]).mean(),
    )


def recovery(
    key: Key[Array, ""], features: Float[Array, "n m"], component: Int32[Array, "n"], config: TheoryConfig
) -> Float[Array, ""]:
    """k-means inside each label: share of examples in the cluster of their Gaussian, under the best matching."""
    labels, q = config.mixture.labels, config.mixture.components
    inside = (component[None, :] // q == jnp.arange(labels)[:, None]).astype(features.dtype)
    points = jnp.broadcast_to(features, (labels, *features.shape))
    keys = jax.random.split(key, labels)
    clusters = kmeans(keys, points, q, weights=inside, restarts=config.descent.restarts).labels
    members = jax.nn.one_hot(component % q, q)
    counts = jnp.einsum("cnk,cn,ni->cki", jax.nn.one_hot(clusters, q), inside, members)
    orders = jnp.array(list(permutations(range(q))))
    right = counts[:, jnp.arange(q)[None, :], orders].sum(axis=-1).max(axis=-1)
    return right.sum() / features.shape[0]


def coordinates(features: Float[Array, "n m"]) -> Float[Array, "n p"]:
    """Features divided by the root of the width, in fewer coordinates where there are many units.

    `F^T = Q R`, so `R^T` has all inner products of `F`: distances, cosines, clusters and NC1 are the same.
    """
    n, m = features.shape
    features = features / m**0.5
    return triangular_factor(features.T).T if m > 2 * n else features
