# SPDX-License-Identifier: Apache-2.0
"""Gaussian mixtures with several Gaussians to a label; Gaussian `k` has label `k // components`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from ncjax.ops.linalg import qr
from ncjax.ops.products import matmul
from ncjax.theory.config import MixtureConfig, Settings


class Sample(NamedTuple):
    """Examples, ordered by their Gaussians."""

    inputs: Float[Array, "n d"]
    component: Int32[Array, "n"]  # Gaussian
    label: Int32[Array, "n"]  # training label: that of the Gaussian, apart from label noise


def draw_means(
    key: Key[Array, ""],
    config: MixtureConfig,
    dimension: int,
    settings: Settings,
    user_means: Float[Array, "k d"] | None = None,
) -> Float[Array, "k d"]:
    """The means of all Gaussians, of length `norm`.

    orthonormal, angle: from a random orthonormal frame `e`, `mu_i = a e_i + b sum_j e_j` over the Gaussians `j` of the
    label, with `a = sqrt(1 - r)` and `a + q b = sqrt(1 + (q - 1) r)`: then `mu_i . mu_j = r = cos(angle)` within a
    label, 0 between labels. sphere: independent and uniform. file: the user's means, times `norm`.
    """
    count, q = config.labels * config.components, config.components
    if config.means == "file":
        assert user_means is not None
        return settings.norm * user_means
    directions = jax.random.normal(key, (dimension, count))
    if config.means == "sphere":
        return settings.norm * (directions / jnp.linalg.norm(directions, axis=0)[None, :]).T
    frame = qr(directions)[0].T
    cosine = 0.0 if config.means == "orthonormal" else jnp.cos(jnp.deg2rad(settings.angle))
    own = jnp.sqrt(jnp.maximum(1 - cosine, 0.0))
    shared = (jnp.sqrt(jnp.maximum(1 + (q - 1) * cosine, 0.0)) - own) / q
    label_sums = jnp.repeat(frame.reshape(config.labels, q, dimension).sum(axis=1), q, axis=0)
    return settings.norm * (own * frame + shared * label_sums)


def noise_factor(key: Key[Array, ""], config: MixtureConfig, dimension: int) -> Float[Array, "d"] | Float[Array, "r d"]:
    """`A` with noise `z A`, `z ~ N(0, I)`, of mean squared length 1; a vector stands for a diagonal matrix."""
    if config.covariance == "isotropic":
        return jnp.full(dimension, dimension**-0.5)
    if config.covariance == "diagonal":
        variances = 1 / jnp.arange(1, dimension + 1)
        return jnp.sqrt(variances / variances.sum())
    return qr(jax.random.normal(key, (dimension, config.rank)))[0].T * config.rank**-0.5


def component_shares(config: MixtureConfig, imbalance: Float[Array, ""] | float) -> Float[Array, "k"]:
    """Share of each Gaussian: labels fall off in equal ratios, the Gaussians of a label are equal."""
    labels = jnp.asarray(imbalance, jnp.float32) ** -(jnp.arange(config.labels) / (config.labels - 1))
    shares = jnp.repeat(labels, config.components)
    return shares / shares.sum()


def draw_sample(
    key: Key[Array, ""],
    config: MixtureConfig,
    settings: Settings,
    means: Float[Array, "k d"],
    factor: Float[Array, "d"] | Float[Array, "r d"],
    examples: int,
    label_noise: Float[Array, ""] | float,
) -> Sample:
    """Draws examples of the mixture; the count of each Gaussian is its share, rounded, and not random."""
    noise_key, flip_key, label_key = jax.random.split(key, 3)
    limits = jnp.cumsum(component_shares(config, settings.imbalance))[:-1]
    component = jnp.searchsorted(limits, (jnp.arange(examples) + 0.5) / examples).astype(jnp.int32)
    z = jax.random.normal(noise_key, (examples, factor.shape[0]))
    noise = z * factor[None, :] if factor.ndim == 1 else matmul(z, factor)
    other = jax.random.randint(label_key, (examples,), 1, config.labels)
    flip = jax.random.uniform(flip_key, (examples,)) < label_noise
    label = (component // config.components + jnp.where(flip, other, 0)) % config.labels
    return Sample(means[component] + settings.noise * noise, component, label.astype(jnp.int32))
