# SPDX-License-Identifier: Apache-2.0
"""Some training examples to look at: which are chosen, their thumbnails, and where they lie on principal axes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from ncjax.data import Split
from ncjax.evaluation.clusters import chosen_for_plane
from ncjax.evaluation.evaluator import MOST_NETWORKS
from ncjax.evaluation.label_levels import AnyLabelMap, SuperClasses, super_classes
from ncjax.examples import Examples, Planes
from ncjax.features.feature_set import FeatureSet, classifier_layer

MOST_EXAMPLES = 2000  # in results/examples.npz
THUMBNAIL = 48  # pixels a side at most
READ_AT_ONCE = 100  # images of a streamed data set


def choose_examples(
    features: FeatureSet, *, label_map: AnyLabelMap | None = None, images: Split | None = None
) -> Examples:
    """Chooses at most 2,000 training examples, and says where they lie in the features of the first ten networks.

    Of each super-class there are as many, drawn at random; where they can be, they are among those that the view `tsne`
    embeds.

    Args:
        features: of one epoch; of several layers the one that the classifier reads.
        label_map: as for `ncjax.evaluate`; None: those of the members, else that of the features.
        images: the training split that the features are of; None: there are no thumbnails.

    Raises:
        UserError: the label map does not fit.
    """
    owners = _owners(features, label_map)
    fine = features.train.labels
    rows = _choose_rows(owners[0], fine)
    layer = classifier_layer(features.layers)
    count = min(len(features.names), MOST_NETWORKS)
    planes = {
        features.names[i]: _planes(
            np.asarray(features.train.layers[layer][i][rows]), np.array(owners[i], np.int32)[fine[rows]]
        )
        for i in range(count)
    }
    return Examples(
        train_labels=fine,
        test_labels=None if features.test is None else features.test.labels,
        rows=rows,
        thumbnails=None if images is None else _thumbnails(images, rows),
        epoch=features.epoch,
        planes=planes,
    )


def _owners(features: FeatureSet, label_map: AnyLabelMap | None) -> list[SuperClasses]:
    """The super-class of each fine class, of each network."""
    splits = {"train": features.train.labels} | ({"test": features.test.labels} if features.test else {})
    names, named = features.class_names, features.super_classes
    maps: Sequence[AnyLabelMap | None] = [label_map] * len(features.names)
    if label_map is None and features.members:
        own = [member.label_map for member in features.members]
        maps = [one if one.super_class is not None and one.merges else features.default_map for one in own]
    elif label_map is None:
        maps = [features.default_map] * len(features.names)
    return [super_classes(one, splits, names, named) for one in maps]


def _choose_rows(owner: SuperClasses, fine: Int32[np.ndarray, "n"]) -> Int32[np.ndarray, "q"]:
    """As many of each super-class; they are among those that the view `tsne` draws."""
    sizes, of_rows = np.bincount(owner), np.asarray(owner, np.int32)[fine]
    groups = np.unique(of_rows)
    share, chosen = max(1, MOST_EXAMPLES // len(groups)), []
    for group in groups:
        members = np.flatnonzero(of_rows == group)
        drawn = chosen_for_plane(len(members), int(sizes[:group].sum()))
        chosen.append(members[np.random.default_rng(0).permutation(drawn)[:share]])
    return np.sort(np.concatenate(chosen)[:MOST_EXAMPLES]).astype(np.int32)


def _planes(points: Float[np.ndarray, "q d"], owner: Int32[np.ndarray, "q"]) -> Planes:
    inside = np.full((len(points), 2), np.nan, np.float32)
    for group in np.unique(owner):
        inside[owner == group] = two_axes(points[owner == group])
    return Planes(whole=two_axes(points), inside=inside)


def two_axes(points: Float[np.ndarray, "q d"]) -> Float32[np.ndarray, "q 2"]:
    """Coordinates on the first two principal axes, in units of the features; NaN for rows that are not finite."""
    from sklearn.decomposition import PCA

    plane = np.full((len(points), 2), np.nan, np.float32)
    sound = np.isfinite(points).all(axis=1)
    wide = np.asarray(points[sound], np.float64)
    if len(wide) < 2 or not np.ptp(wide, axis=0).any():
        plane[sound] = 0
        return plane
    axes = min(2, *wide.shape)
    plane[sound] = np.pad(PCA(axes, random_state=0).fit_transform(wide), ((0, 0), (0, 2 - axes)))
    return plane


def _thumbnails(split: Split, rows: Int32[np.ndarray, "q"]) -> UInt8[np.ndarray, "q h w ch"]:
    """The images of some rows, at most 48 pixels a side, by the mean of the pixels of a square."""
    blocks = (split.images[rows[i : i + READ_AT_ONCE]] for i in range(0, len(rows), READ_AT_ONCE))
    return np.concatenate([_shrink(np.asarray(block)) for block in blocks])


def _shrink(images: UInt8[np.ndarray, "b h w ch"]) -> UInt8[np.ndarray, "b rows columns ch"]:
    step = -(-max(images.shape[1:3]) // THUMBNAIL)
    across = [min(step, size) for size in images.shape[1:3]]
    counts = [size // square for size, square in zip(images.shape[1:3], across, strict=True)]
    cut = images[:, : counts[0] * across[0], : counts[1] * across[1]]
    squares = cut.reshape(len(images), counts[0], across[0], counts[1], across[1], images.shape[3])
    return squares.mean(axis=(2, 4)).round().astype(np.uint8)
