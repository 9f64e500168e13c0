# SPDX-License-Identifier: Apache-2.0
"""Views of the features: what k-means sees inside each super-class.

Which view the original paper clustered is not confirmed, so several are measured side by side. A view is one function
and one line of `VIEWS`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jax.sharding import Mesh
from jaxtyping import Float32, Float64, Int, Int32

from ncjax.distributed.processes import to_host
from ncjax.distributed.sharding import shard_rows
from ncjax.errors import UserError
from ncjax.ops.precision import double_precision
from ncjax.ops.products import matmul
from ncjax.results import ViewInfo

PCA_DIMENSIONS = 8
ROUNDING = 2.0**-22  # of float32, relative to what is rounded: shorter differences have no direction
TSNE_POINTS = 2000  # of each super-class; the others join the cluster of most of their nearest among these


class Features(NamedTuple):
    """Both splits of one network with the super-class of each example."""

    train: Float32[np.ndarray, "n d"]
    train_super: Int32[np.ndarray, "n"]
    test: Float32[np.ndarray, "m d"]
    test_super: Int32[np.ndarray, "m"]
    mesh: Mesh | None = None  # over which the examples may be sharded; None: one device


class Embedded(NamedTuple):
    """What is clustered."""

    train: Float32[np.ndarray, "q p"]
    test: Float32[np.ndarray, "m p"] | None  # None where the view cannot embed new points
    rows: Int[np.ndarray, "q"] | None = None  # the training examples that are embedded; None: all, in their order


class View(NamedTuple):
    """One way to look at features."""

    embed: Callable[[Features], Embedded]
    info: ViewInfo
    is_plane: bool = False  # whether the embedding is kept with the results, as a picture
    power: int = 0  # of the unit of the features that inertia is in: 2 where distances are those of the features


def raw(features: Features) -> Embedded:
    """The features as they are."""
    return Embedded(features.train, features.test)


def normalised(features: Features) -> Embedded:
    """The features minus the mean of their super-class, of length 1; 0 for an example at the mean but for rounding."""
    splits = zip(_centred(features), (features.train, features.test), strict=True)
    return Embedded(*(_unit(centred, rows) for centred, rows in splits))


def residual_pca(features: Features) -> Embedded:
    """The features minus the mean of their super-class, on its first 8 principal axes, whitened.

    Products are in float64: axes may be much shorter than the first. Those that are rounding are 0.
    """
    train, test = _centred(features)
    dimensions = min(PCA_DIMENSIONS, train.shape[1])
    views = np.zeros((len(train), dimensions), np.float32), np.zeros((len(test), dimensions), np.float32)
    for group in np.unique(features.train_super):
        own = train[features.train_super == group]
        largest = float(np.abs(features.train[features.train_super == group]).max())
        top = whitened_axes(_products(own, features.mesh) / len(own), largest)
        for view, points, owner in zip(views, (train, test), (features.train_super, features.test_super), strict=True):
            view[owner == group] = points[owner == group] @ top
    return Embedded(*views)


def whitened_axes(covariance: Float64[np.ndarray, "d d"], largest: float) -> Float64[np.ndarray, "d p"]:
    """The first 8 principal axes, each over the deviation along it; 0 for those that are rounding.

    Args:
        covariance: of the features of a super-class.
        largest: magnitude of a number in these features.
    """
    d, dimensions = len(covariance), min(PCA_DIMENSIONS, len(covariance))
    values, axes = scipy.linalg.eigh(covariance, subset_by_index=(d - dimensions, d - 1))
    lengths = np.sqrt(np.maximum(values, 0))
    sound = lengths > ROUNDING * (lengths[-1] + largest)
    return axes * np.where(sound, 1 / np.where(sound, lengths, 1), 0)


def tsne_rows(train_super: Int32[np.ndarray, "n"]) -> list[Int[np.ndarray, "_"]]:
    """Up to 2,000 examples of each super-class that has some, in order."""
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(train_super == group) for group in np.unique(train_super)]
    return [np.sort(rng.permutation(rows)[:TSNE_POINTS]) for rows in groups]


def embed_in_plane(groups: Sequence[Float32[np.ndarray, "_ d"]]) -> Float32[np.ndarray, "q 2"]:
    """t-SNE of the examples of each super-class by themselves."""
    return np.concatenate([_tsne(points) for points in groups]).astype(np.float32)


def tsne(features: Features) -> Embedded:
    """t-SNE in two dimensions of up to 2,000 examples of each super-class (van der Maaten and Hinton 2008)."""
    chosen = tsne_rows(features.train_super)
    return Embedded(embed_in_plane([features.train[rows] for rows in chosen]), None, np.concatenate(chosen))


VIEWS: dict[str, View] = {
    "raw": View(raw, ViewInfo(label="raw features"), power=2),
    "normalised": View(normalised, ViewInfo(label="centred, normalised")),
    "residual_pca": View(residual_pca, ViewInfo(label="residual PCA")),
    "tsne": View(tsne, ViewInfo(label="t-SNE"), is_plane=True),
}


def find_view(name: str) -> View:
    """The view of this name.

    Raises:
        UserError: there is none.
    """
    if name not in VIEWS:
        raise UserError(f"view {name!r} is unknown; known: {', '.join(VIEWS)}")
    return VIEWS[name]


def _centred(features: Features) -> tuple[Float32[np.ndarray, "n d"], Float32[np.ndarray, "m d"]]:
    train, test = np.empty_like(features.train), np.zeros_like(features.test)
    for group in np.unique(features.train_super):
        inside, tested = features.train_super == group, features.test_super == group
        mean = features.train[inside].mean(axis=0, dtype=np.float64)
        train[inside], test[tested] = features.train[inside] - mean, features.test[tested] - mean
    return train, test


def _unit(centred: Float32[np.ndarray, "n d"], rows: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    lengths, sizes = (np.linalg.norm(x, axis=1, keepdims=True) for x in (centred, rows))
    sound = lengths > ROUNDING * sizes
    return np.where(sound, centred / np.where(sound, lengths, 1), 0)


def _products(rows: Float32[np.ndarray, "n d"], mesh: Mesh | None) -> Float64[np.ndarray, "d d"]:
    """`X^T X` in float64, over the devices of a mesh."""
    with double_precision():
        inside = shard_rows(rows.astype(np.float64), mesh)
        return to_host(matmul(inside.T, inside))


def _tsne(points: Float32[np.ndarray, "n d"]) -> Any:
    """Of points from their mean, at deviation 1; a single feature gets a second of 0, for the PCA of the start."""
    points = points - points.mean(axis=0, dtype=np.float64)
    points = np.pad(points / (np.sqrt((points**2).mean()) or 1), ((0, 0), (0, max(0, 2 - points.shape[1]))))
    perplexity = min(30.0, max((len(points) - 1) / 3, 1.0))
    try:
        import openTSNE
    except ImportError:
        from sklearn.manifold import TSNE

        return TSNE(perplexity=perplexity, random_state=0).fit_transform(points)
    return np.asarray(openTSNE.TSNE(perplexity=perplexity, random_state=0).fit(points))
