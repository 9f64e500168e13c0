# SPDX-License-Identifier: Apache-2.0
"""Views of the features: what k-means sees inside each super-class.

Which view the original paper clustered is not confirmed, so several are measured side by side. A view is one function
and one line of `VIEWS`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Int, Int32

from ncjax.distributed.processes import to_host
from ncjax.distributed.sharding import shard_rows
from ncjax.errors import UserError
from ncjax.ops.products import matmul
from ncjax.results import ViewInfo

PCA_DIMENSIONS = 8
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


def raw(features: Features) -> Embedded:
    """The features as they are."""
    return Embedded(features.train, features.test)


def normalised(features: Features) -> Embedded:
    """The features minus the mean of their super-class, of length 1."""
    train, test = _centred(features)
    return Embedded(*(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (train, test)))


def residual_pca(features: Features) -> Embedded:
    """The features minus the mean of their super-class, on its first 8 principal axes, whitened."""
    train, test = _centred(features)
    dimensions = min(PCA_DIMENSIONS, train.shape[1])
    views = np.zeros((len(train), dimensions), np.float32), np.zeros((len(test), dimensions), np.float32)
    for group in np.unique(features.train_super):
        own = train[features.train_super == group]
        inside = shard_rows(own, features.mesh)
        products = to_host(matmul(inside.T, inside))
        values, axes = np.linalg.eigh(products.astype(np.float64) / len(own))
        least = max(1e-12 * values[-1], np.finfo(np.float32).tiny)
        top = axes[:, -dimensions:] / np.sqrt(np.maximum(values[-dimensions:], least))
        for view, points, owner in zip(views, (train, test), (features.train_super, features.test_super), strict=True):
            view[owner == group] = points[owner == group] @ top
    return Embedded(*views)


def tsne(features: Features) -> Embedded:
    """t-SNE in two dimensions of up to 2,000 examples of each super-class (van der Maaten and Hinton 2008)."""
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(features.train_super == group) for group in np.unique(features.train_super)]
    chosen = [np.sort(rng.permutation(rows)[:TSNE_POINTS]) for rows in groups]
    embedded = np.concatenate([_tsne(features.train[rows]) for rows in chosen]).astype(np.float32)
    return Embedded(embedded, None, np.concatenate(chosen))


VIEWS: dict[str, View] = {
    "raw": View(raw, ViewInfo(label="raw features")),
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


def _centred(features: Features) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(features.train_super)
    means = np.zeros((counts.size, features.train.shape[1]), np.float64)
    np.add.at(means, features.train_super, features.train)
    means = (means / counts[:, None]).astype(np.float32)
    return features.train - means[features.train_super], features.test - means[features.test_super]


def _tsne(points: np.ndarray) -> Any:
    perplexity = min(30.0, max((len(points) - 1) / 3, 1.0))
    try:
        import openTSNE
    except ImportError:
        from sklearn.manifold import TSNE

        return TSNE(perplexity=perplexity, random_state=0).fit_transform(points)
    return np.asarray(openTSNE.TSNE(perplexity=perplexity, random_state=0).fit(points))
