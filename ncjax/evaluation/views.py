# SPDX-License-Identifier: Apache-2.0
"""Views of the features: what k-means sees inside each super-class.

Which view the original paper clustered is not confirmed, so several are measured side by side. A view is one function
and one line of `VIEWS`.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from ncjax.ops.linalg import eigh
from ncjax.ops.products import gram, matmul
from ncjax.results import ViewInfo
from ncjax.tables import find_named

PCA_DIMENSIONS = 8
ROUNDING = 2.0**-22  # of float32, relative to what is rounded: shorter differences have no direction


class Group(NamedTuple):
    """The examples of one super-class of one network."""

    train: Float[Array, "n d"]
    weights: Float[Array, "n"]  # 1, and 0 for padding
    test: Float[Array, "m d"]


class Embedded(NamedTuple):
    """What is clustered, and where the test examples lie beside it."""

    train: Float[Array, "n p"]
    test: Float[Array, "m p"]


class View(NamedTuple):
    """One way to look at the features of a super-class: `embed`, or `plane`.

    Attributes:
        info: how it is shown.
        embed: a pure function, traced in float64, that embeds new points too.
        plane: embeds some examples in a plane, which is kept with the results; the others join the cluster of most of
            their nearest neighbours among these.
        power: of the unit of the features that inertia is in: 2 where distances are those of the features.
    """

    info: ViewInfo
    embed: Callable[[Group], Embedded] | None = None
    plane: Callable[[Float32[np.ndarray, "q d"]], Float[np.ndarray, "q 2"]] | None = None
    power: int = 0

    @property
    def summary(self) -> str:
        """What is clustered, in one line: the first of the docstring of its function."""
        return (inspect.getdoc(self.embed or self.plane) or self.info.label).partition("\n")[0].rstrip(".")


def raw(group: Group) -> Embedded:
    """The features as they are."""
    return Embedded(group.train, group.test)


def normalised(group: Group) -> Embedded:
    """The features minus the mean of their super-class, of length 1; 0 for an example at the mean but for rounding."""
    centred = _centred(group)
    return Embedded(_unit(centred.train, group.train), _unit(centred.test, group.test))


def residual_pca(group: Group) -> Embedded:
    """The features minus the mean of their super-class, on its first 8 principal axes, whitened.

    Products are in float64: axes may be much shorter than the first. Those that are rounding are 0.
    """
    centred = _centred(group)
    own = centred.train * group.weights[:, None]
    largest = jnp.abs(group.train * group.weights[:, None]).max()
    axes = whitened_axes(gram(own) / group.weights.sum(), largest)
    return Embedded(matmul(centred.train, axes), matmul(centred.test, axes))


def whitened_axes(covariance: Float[Array, "d d"], largest: Float[Array, ""]) -> Float[Array, "d p"]:
    """The first 8 principal axes, each over the deviation along it; 0 for those that are rounding.

    Args:
        covariance: of the features of a super-class, in float64.
        largest: magnitude of a number in these features.
    """
    dimensions = min(PCA_DIMENSIONS, len(covariance))
    values, axes = eigh(covariance)
    lengths = jnp.sqrt(jnp.maximum(values[-dimensions:], 0))
    sound = lengths > ROUNDING * (lengths[-1] + largest)
    return axes[:, -dimensions:] * jnp.where(sound, 1 / jnp.where(sound, lengths, 1), 0)[None, :]


def tsne(points: Float32[np.ndarray, "q d"]) -> Float[np.ndarray, "q 2"]:
    """t-SNE in two dimensions (van der Maaten and Hinton 2008), of points from their mean, at deviation 1.

    A single feature gets a second of 0, for the PCA of the start.
    """
    points = points - points.mean(axis=0, dtype=np.float64)
    points = np.pad(points / (np.sqrt((points**2).mean()) or 1), ((0, 0), (0, max(0, 2 - points.shape[1]))))
    perplexity = min(30.0, max((len(points) - 1) / 3, 1.0))
    try:
        import openTSNE
    except ImportError:
        from sklearn.manifold import TSNE

        found: Any = TSNE(perplexity=perplexity, random_state=0).fit_transform(points)
        return np.asarray(found)
    return np.asarray(openTSNE.TSNE(perplexity=perplexity, random_state=0).fit(points))


VIEWS: dict[str, View] = {
    "raw": View(ViewInfo(label="raw features"), raw, power=2),
    "normalised": View(ViewInfo(label="centred, normalised"), normalised),
    "residual_pca": View(ViewInfo(label="residual PCA"), residual_pca),
    "tsne": View(ViewInfo(label="t-SNE"), plane=tsne),
}


def find_view(name: str) -> View:
    """The view of this name.

    Raises:
        UserError: there is none.
    """
    return find_named(VIEWS, name, "view")


def _centred(group: Group) -> Embedded:
    """From the mean of the training examples, in float64."""
    wide = jnp.result_type(float)
    mean = matmul(group.weights.astype(wide), group.train.astype(wide)) / group.weights.sum()
    return Embedded(group.train - mean[None, :], group.test - mean[None, :])


def _unit(centred: Float[Array, "n d"], rows: Float[Array, "n d"]) -> Float[Array, "n d"]:
    lengths, sizes = (jnp.linalg.norm(x, axis=1, keepdims=True) for x in (centred, rows))
    sound = lengths > ROUNDING * sizes
    return jnp.where(sound, centred / jnp.where(sound, lengths, 1), 0)
