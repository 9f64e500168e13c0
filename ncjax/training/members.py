# SPDX-License-Identifier: Apache-2.0
"""The members of a run by name, as arrays, and the data that they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int32, Key, UInt8

from ncjax.config import Config
from ncjax.data import Dataset
from ncjax.data.dataset import channel_statistics
from ncjax.data.label_maps import LabelMap, parse_label_maps
from ncjax.distributed.mesh import REPLICATED
from ncjax.distributed.sharding import member_sharding, padded_count, put
from ncjax.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Member:
    """One training of a network.

    Attributes:
        seed: of its initial weights, the order of its images and its augmentation.
        lr: peak learning rate.
        weight_decay: coefficient of `wd * weight` in the gradient.
        label_map: what it is trained on.
    """

    seed: int
    lr: float
    weight_decay: float
    label_map: LabelMap

    @property
    def name(self) -> str:
        """Such as `mod:5/lr=0.1/wd=5e-4/seed=0`: different for each member of a run, and exact."""
        return f"{self.label_map.name}/lr={_short(self.lr)}/wd={_short(self.weight_decay)}/seed={self.seed}"


def _short(number: float) -> str:
    """The shortest decimal that reads as this number, in positional or in scientific form, whichever is shorter."""
    plain = repr(float(number))
    _, digits, exponent = Decimal(plain).normalize().as_tuple()
    if not isinstance(exponent, int):  # infinite or NaN
        return plain
    first, rest = str(digits[0]), "".join(map(str, digits[1:]))
    scientific = f"{first}{'.' * bool(rest)}{rest}e{exponent + len(rest)}"
    return min(plain, scientific, key=len)


class Ensemble(NamedTuple):
    """What differs between members, on the devices; every array has the leading axis `s`."""

    seed: Int32[Array, "s"]
    lr: Float[Array, "s"]
    weight_decay: Float[Array, "s"]
    class_mask: Bool[Array, "s c"]  # the classes that a member has
    train_targets: Int32[Array, "s n"]
    test_targets: Int32[Array, "s m"]


class StreamedChunk(NamedTuple):
    """Training images of a chunk of `t` steps, or of one step, on the devices.

    Along the mesh's member axis there are `p` shards. Members of one shard that have the same seed train on the same
    images: these are there once, as one of the shard's `g` sequences.
    """

    pixels: UInt8[Array, "*t p g b h w ch"]
    slot: Int32[Array, "s"]  # which sequence of its shard a member trains on


class Images(NamedTuple):
    """The data set on the devices: the whole of it on each, or what a chunk of steps needs of a streamed one."""

    train: UInt8[Array, "n h w ch"]  # none when streamed
    test: UInt8[Array, "m h w ch"]
    mean: Float[Array, "ch"]  # of the training pixels, in units of the full scale
    std: Float[Array, "ch"]
    streamed: StreamedChunk | None = None


def list_members(config: Config, dataset: Dataset) -> tuple[Member, ...]:
    """All members of a run: label maps x learning rates x weight decays x seeds, the last varying fastest.

    Raises:
        UserError: a label map does not fit the data, or the batch is larger than the training split.
    """
    examples = dataset.train.labels.size
    if config.optim.batch > examples:
        raise UserError(f"optim.batch is {config.optim.batch}, but {dataset.name} has {examples} training images")
    maps = parse_label_maps(config.labels, dataset.class_names, dataset.super_classes)
    settings = product(maps, config.optim.lr, config.optim.weight_decay, range(config.seed, config.seed + config.seeds))
    return tuple(
        Member(seed=seed, lr=lr, weight_decay=weight_decay, label_map=label_map)
        for label_map, lr, weight_decay, seed in settings
    )


def default_label_map(
    config: Config, class_names: tuple[str, ...], super_classes: tuple[str, ...] = ()
) -> LabelMap | None:
    """The label map whose super-classes serve members whose own merges no classes.

    That is `evaluate.labels`; where it is empty, the first of `labels` that merges classes, else mod:5, or mod:2 of
    five classes or fewer; None: there are two classes alone.

    Raises:
        UserError: it does not fit the classes, or merges none.
    """
    asked = config.evaluate.labels
    if asked:
        (found, *_) = maps = parse_label_maps((asked,), class_names, super_classes)
        if len(maps) > 1 or not found.merges:
            raise UserError(f"evaluate.labels is {asked}, but must merge classes, such as mod:5")
        return found
    maps = parse_label_maps(config.labels, class_names, super_classes)
    own = next((found for found in maps if found.merges), None)
    if own is not None or len(class_names) < 3:
        return own
    return LabelMap.parse("mod:5" if len(class_names) > 5 else "mod:2", class_names)


def make_ensemble(members: tuple[Member, ...], dataset: Dataset, mesh: Mesh, outputs: int = 0) -> Ensemble:
    """The arrays of the members, sharded over the mesh and padded with copies of member 0.

    Args:
        members: at least one.
        dataset: their labels are made of its own.
        mesh: the devices.
        outputs: of the network; 0: as many as the classes of the member that has most.
    """
    members += members[:1] * (padded_count(len(members), mesh) - len(members))
    classes = np.array([member.label_map.classes for member in members])
    train = {m.label_map.name: m.label_map.targets(dataset.train.labels, "train") for m in members}
    test = {m.label_map.name: m.label_map.targets(dataset.test.labels, "test") for m in members}
    arrays = {
        "seed": np.array([member.seed for member in members], np.int32),
        "lr": np.array([member.lr for member in members], np.float32),
        "weight_decay": np.array([member.weight_decay for member in members], np.float32),
        "class_mask": np.arange(outputs or classes.max())[None, :] < classes[:, None],
        "train_targets": np.stack([train[member.label_map.name] for member in members]),
        "test_targets": np.stack([test[member.label_map.name] for member in members]),
    }
    return Ensemble(**put(arrays, member_sharding(arrays, mesh)))


def put_images(dataset: Dataset, mesh: Mesh, *, streamed: bool = False) -> Images:
    """The data set with its channel statistics, on every device of the mesh; of a streamed one the statistics alone."""
    mean, std = channel_statistics(dataset.train.images)
    none = np.zeros((0, *dataset.train.images.shape[1:]), np.uint8)
    arrays = {
        "train": none if streamed else dataset.train.images,
        "test": none if streamed else dataset.test.images,
        "mean": mean,
        "std": std,
    }
    return Images(**put(arrays, NamedSharding(mesh, REPLICATED)))


def with_statistics(images: Images, mean: Sequence[float], std: Sequence[float]) -> Images:
    """The images with other channel statistics, in units of the full scale; none: those that they have.

    Raises:
        UserError: there are more or fewer than channels, or one is not finite, or a deviation is not above 0.
    """
    channels, statistics = images.mean.size, {"mean": images.mean, "std": images.std}
    for name, values in (("mean", mean), ("std", std)):
        if values and len(values) != channels:
            raise UserError(f"{name} has {len(values)} numbers, but the images have {channels} channels")
        if not np.isfinite(values).all() or (name == "std" and min(values, default=1) <= 0):
            raise UserError(f"{name} is {tuple(values)}, but must be {'above 0 and ' if name == 'std' else ''}finite")
        if values:
            statistics[name] = jax.device_put(np.asarray(values, np.float32), images.mean.sharding)
    return images._replace(mean=statistics["mean"], std=statistics["std"])


def streamed_pixels(step: StreamedChunk) -> UInt8[Array, "s b h w ch"]:
    """The images of every member, of one step."""
    shards = step.pixels.shape[0]
    chosen = jax.vmap(lambda pixels, slot: pixels[slot])(step.pixels, step.slot.reshape(shards, -1))
    return chosen.reshape(-1, *step.pixels.shape[2:])


def example_order(seeds: Int32[Array, "s"], epoch: Int32[Array, ""], examples: int) -> Int32[Array, "s n"]:
    """The order of the training images of each member in an epoch: a function of (seed, epoch) alone."""

    def order(seed: Array) -> Array:
        key = step_key(seed, Stream.ORDER, epoch)
        return jax.random.permutation(key, jnp.arange(examples, dtype=jnp.int32))

    return jax.vmap(order)(seeds)


class Stream(IntEnum):
    """The named random streams of a member."""

    INIT = 0
    ORDER = 1
    AUGMENT = 2
    OWN_AUGMENT = 3  # of `data.augment`
    NETWORK = 4  # dropout and the like


def step_key(seed: Int32[Array, ""], stream: Stream, step: Int32[Array, ""]) -> Key[Array, ""]:
    """The key of a stream at a step, a function of (seed, step): `fold_in(fold_in(key(seed), stream), step)`."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)
