# SPDX-License-Identifier: Apache-2.0
"""The features that are evaluated, whatever they come from: a run, files, or arrays in memory."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int32, Shaped

from ncjax.config import MeshConfig
from ncjax.data.label_maps import LabelMap
from ncjax.data.labels import number_classes
from ncjax.errors import UserError
from ncjax.features.arrays import as_labels, as_members, to_numpy
from ncjax.features.readers import find_arrays
from ncjax.paths import user_path
from ncjax.storage.arrays import Rows
from ncjax.storage.atomic import write_arrays
from ncjax.training.members import Member

FEATURES = "features"  # the layer that every network names: the input of its final linear layer


class Heads(NamedTuple):
    """The final linear layer of every member: logits are `features @ weights + bias`."""

    weights: Float[np.ndarray, "s d c"]
    bias: Float[np.ndarray, "s c"]


@dataclass(frozen=True, kw_only=True)
class SplitFeatures:
    """One split.

    Attributes:
        layers: by name, the features `[n d]` of each member, in memory or on disk: an array `[s n d]`, or a sequence.
        labels: fine labels, from 0.
        logits: `[n c]` of each member, as layers; None: not known.
        targets: the labels that each member was trained on; None: not known.
    """

    layers: Mapping[str, Float[np.ndarray, "s n d"] | Sequence[Rows]]
    labels: Int32[np.ndarray, "n"]
    logits: Float[np.ndarray, "s n c"] | Sequence[Rows] | None = None
    targets: Int32[np.ndarray, "s n"] | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """Features of all members of a run at one epoch, or features from elsewhere.

    Attributes:
        train: training split.
        test: test split; None: what needs one is left out of an evaluation.
        names: of the members, or a name for features from elsewhere.
        kind: of features from elsewhere: features, or raw_pixels.
        members: of the run; empty for features from elsewhere.
        classifier: the final linear layers; None: not known.
        epoch: after which the features were taken, 0 at random initialization; None: not known.
        class_names: of the fine classes; empty: not known.
        super_classes: name of the super-class of each fine class, for the label map `superclass`; empty: not known.
        default_map: whose super-classes serve members whose own label map merges no classes; None: they have none.
        mesh: devices over which an evaluation shards the examples; None: all, where there are enough examples.
    """

    train: SplitFeatures
    test: SplitFeatures | None = None
    names: tuple[str, ...] = (FEATURES,)
    kind: str = "features"
    members: tuple[Member, ...] = ()
    classifier: Heads | None = None
    epoch: int | None = None
    class_names: tuple[str, ...] = ()
    super_classes: tuple[str, ...] = ()
    default_map: LabelMap | None = None
    mesh: MeshConfig | None = None

    @classmethod
    def from_arrays(
        cls,
        train: Any,
        train_labels: Any,
        test: Any = None,
        test_labels: Any = None,
        *,
        classifier: tuple[Any, Any] | None = None,
        class_names: Sequence[str] = (),
        super_classes: Sequence[str] = (),
    ) -> "FeatureSet":
        """Features from memory: NumPy, PyTorch or JAX arrays of any float type.

        Args:
            train: features `[n d]`, or `[s n d]` of several networks on the same examples; or a mapping of layer names
                to such arrays. A `numpy.memmap` stays on disk and is read a block at a time.
            train_labels: fine labels `[n]`, whole numbers from 0 of any size; ids that leave most numbers out are
                numbered in order of size, and become the class names.
            test: features `[m d]` or `[s m d]`, or a mapping with the same layers; none: what needs them is left out.
            test_labels: fine labels `[m]`.
            classifier: weights `[k d]` and bias `[k]` of a linear classifier of the coarse or of the fine classes, as
                in `torch.nn.Linear`; a bias of None is 0.
            class_names: of the fine classes 0, 1, ...
            super_classes: name of the super-class of each of them, for the label map `superclass`.

        Raises:
            UserError: arrays do not fit each other, or a label is out of range.

        Example:
            >>> import numpy as np
            >>> features = FeatureSet.from_arrays(np.eye(4, dtype=np.float32), [0, 0, 1, 1])
            >>> features.names, features.train.labels.tolist()
            (('features',), [0, 0, 1, 1])
        """
        layers = {"train": _layers("train", train)} | ({} if test is None else {"test": _layers("test", test)})
        given = {"train": train_labels, "test": test_labels}
        whole = {name: as_labels(name, given[name], _examples(of_split)) for name, of_split in layers.items()}
        classes = number_classes(whole, tuple(map(str, class_names)))
        splits = {name: SplitFeatures(layers=layers[name], labels=labels) for name, labels in classes.labels.items()}
        of_train, of_test = splits["train"], splits.get("test")
        if of_test is not None:
            _check_match(of_train, of_test)
        members = len(next(iter(of_train.layers.values())))
        names = (FEATURES,) if members == 1 else tuple(f"{FEATURES} {i}" for i in range(members))
        width = of_train.layers[classifier_layer(tuple(of_train.layers))][0].shape[1]
        heads = None if classifier is None else as_heads(*classifier, width, members)
        return cls(
            train=of_train,
            test=of_test,
            names=names,
            classifier=heads,
            class_names=classes.names,
            super_classes=_super_classes(super_classes, splits, classes.names),
        )

    @classmethod
    def open(
        cls, path: str | Path, *, labels: str = "", test: str = "", test_labels: str = "", classifier: str = ""
    ) -> "FeatureSet":
        """Features of a file: npz, npy, safetensors, or .pt with tensors only; nothing in a file is executed.

        npy files are read where they are needed, a block at a time, and may be larger than the memory.

        Args:
            path: of the file, or of a folder with `train_features.npy`, `train_labels.npy`, `test_features.npy` and
                `test_labels.npy`; layers are sub-folders with features of their own. Arrays of a file are found by the
                names `train_features`, `train` or `features`; `train_labels`, `train_fine`, `train_y`, `labels` or
                `y`; `test_features` or `test`, and so on; `class_names` and `super_classes`, where there.
            labels: another file, or a name in this one, for the labels of the training split.
            test: the same for the features of the test split.
            test_labels: the same for their labels.
            classifier: another file with `weights` `[k d]` and `bias` `[k]`; none: those of this file, if there.

        Raises:
            UserError: a file is missing, unreadable or lacks what is asked for, or its content does not fit.
        """
        found = find_arrays(user_path(path), labels=labels, test=test, test_labels=test_labels, classifier=classifier)
        heads = None if found.weights is None else (found.weights, found.bias)
        try:
            opened = cls.from_arrays(
                found.train,
                found.train_labels,
                found.test,
                found.test_labels,
                classifier=heads,
                class_names=found.class_names,
                super_classes=found.super_classes,
            )
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        return dataclasses.replace(opened, names=found.names) if len(found.names) == len(opened.names) else opened

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers."""
        return tuple(self.train.layers)

    def select(self, members: Sequence[int]) -> "FeatureSet":
        """The features of some members."""

        def of_split(split: SplitFeatures) -> SplitFeatures:
            return SplitFeatures(
                layers={name: [rows[i] for i in members] for name, rows in split.layers.items()},
                labels=split.labels,
                logits=None if split.logits is None else _some(split.logits, members),
                targets=None if split.targets is None else split.targets[list(members)],
            )

        heads = self.classifier
        return dataclasses.replace(
            self,
            train=of_split(self.train),
            test=None if self.test is None else of_split(self.test),
            names=tuple(self.names[i] for i in members),
            members=tuple(self.members[i] for i in members) if self.members else (),
            classifier=None if heads is None else Heads(*(part[list(members)] for part in heads)),
        )

    def choose_member(self, member: str) -> "FeatureSet":
        """The features of one member, by its name or number; under the label map that the name begins with.

        Raises:
            UserError: there is none.
        """
        numbers = {name: number for number, name in enumerate(self.names)}
        numbers = {str(number): number for number in range(len(self.names))} | numbers
        if member not in numbers:
            listed = ", ".join(self.names[:8]) + (f" and {len(self.names) - 8} more" if len(self.names) > 8 else "")
            raise UserError(f"there is no member {member!r}; known: {listed}")
        chosen = self.select([numbers[member]])
        label_map = _map_in_name(chosen.names[0], self.class_names, self.super_classes)
        return dataclasses.replace(chosen, default_map=self.default_map or label_map)

    def choose_layers(self, layers: Sequence[str]) -> "FeatureSet":
        """The features of some layers, in this order."""
        return self.rename_layers({name: name for name in layers})

    def rename_layers(self, names: Mapping[str, str]) -> "FeatureSet":
        """The features of some layers under other names: `{name: new name}`."""

        def of_split(split: SplitFeatures) -> SplitFeatures:
            return dataclasses.replace(split, layers={new: split.layers[name] for name, new in names.items()})

        test = None if self.test is None else of_split(self.test)
        return dataclasses.replace(self, train=of_split(self.train), test=test)

    def save(self, path: str | Path) -> Path:
        """Writes an npz file; what is not known is left out.

        It holds `members`, `class_names` and `super_classes`; `train_features [s n d]`, `train_logits`, `train_fine`,
        `train_coarse`; the same of the test split; `classifier_weights [s d c]` and `classifier_bias [s c]`; other
        layers are `train_layer_NAME`.
        """
        arrays: dict[str, np.ndarray] = {"members": np.array(self.names)}
        for name, split in (("train", self.train), ("test", self.test)):
            if split is None:
                continue
            for layer, rows in split.layers.items():
                arrays[f"{name}_{FEATURES}" if layer == FEATURES else f"{name}_layer_{layer}"] = whole(rows)
            logits = None if split.logits is None else whole(split.logits)
            known = {"logits": logits, "fine": split.labels, "coarse": split.targets}
            arrays |= {f"{name}_{part}": array for part, array in known.items() if array is not None}
        named = {"class_names": self.class_names, "super_classes": self.super_classes}
        arrays |= {name: np.array(texts) for name, texts in named.items() if texts}
        if self.classifier is not None:
            arrays |= {f"classifier_{name}": part for name, part in self.classifier._asdict().items()}
        target = user_path(path)
        write_arrays(target, arrays)
        return target


def _some(rows: Sequence[Rows] | np.ndarray, members: Sequence[int]) -> Sequence[Rows] | np.ndarray:
    return rows[list(members)] if isinstance(rows, np.ndarray) else [rows[i] for i in members]


def whole(rows: Sequence[Rows] | np.ndarray) -> Shaped[np.ndarray, "s n x"]:
    """The rows of all members in memory."""
    return np.stack([np.asarray(one[:]) for one in rows])


def _map_in_name(name: str, class_names: Sequence[str], super_classes: Sequence[str]) -> LabelMap | None:
    """The label map of a member such as `mod:5/lr=0.1/...`; None where it merges no classes or is not known here."""
    spec, is_member, _ = name.partition("/lr=")
    try:
        found = LabelMap.parse(spec, tuple(class_names), tuple(super_classes)) if is_member and class_names else None
    except UserError:
        return None
    return found if found is not None and found.merges else None


def classifier_layer(layers: Sequence[str]) -> str:
    """The layer that a classifier reads: `features`, or the last one."""
    return FEATURES if FEATURES in layers else layers[-1]


def as_heads(weights: Any, bias: Any, features: int, members: int = 1) -> Heads:
    """A user-supplied linear classifier `[k d]`, `[k]` (or of each member, `[s k d]`, `[s k]`).

    Raises:
        UserError: the shapes do not fit the features, or a number is not finite.
    """
    array = _as_float("classifier weights", weights)
    if array.ndim not in (2, 3) or array.shape[-1] != features:
        raise UserError(f"classifier weights are {list(array.shape)}, but must be [classes, {features}]")
    offset = np.zeros(array.shape[:-1], np.float32) if bias is None else _as_float("classifier bias", bias)
    if offset.shape != array.shape[:-1]:
        wanted = list(array.shape[:-1])
        raise UserError(f"classifier bias is {list(offset.shape)}, but must be {wanted}, as its weights have it")
    if not (np.isfinite(array).all() and np.isfinite(offset).all()):
        raise UserError("classifier weights or bias hold NaN or infinite numbers; was the training diverging?")
    array, offset = (x if array.ndim == 3 else x[None] for x in (array, offset))
    if len(array) not in (1, members):
        raise UserError(f"there are classifiers of {len(array)} members, but features of {members}; give one each")
    return Heads(*(np.repeat(x, members // len(x), axis=0) for x in (array.swapaxes(1, 2), offset)))


def _as_float(name: str, array: Any) -> Float[np.ndarray, "..."]:
    """In float64 where it is, for features far from 0 need it; else in float32."""
    found = to_numpy(name, array)
    return found if found.dtype == np.float64 else found.astype(np.float32)


def _layers(name: str, features: Any) -> dict[str, np.ndarray | Sequence[Rows]]:
    named = features if isinstance(features, Mapping) else {FEATURES: features}
    if not named:
        raise UserError(f"{name} features hold no layer; give an array, or a mapping of layer names to arrays")
    layers = {str(layer): as_members(name, array) for layer, array in named.items()}
    counts = {(len(rows), rows[0].shape[0]) for rows in layers.values()}
    if len(counts) > 1:
        raise UserError(f"{name} layers have different members or examples: {sorted(counts)}; give those of one pass")
    return layers


def _super_classes(
    given: Sequence[str], splits: Mapping[str, SplitFeatures], class_names: Sequence[str]
) -> tuple[str, ...]:
    classes = max(len(class_names), *(int(split.labels.max(initial=0)) + 1 for split in splits.values()))
    if len(given) not in (0, classes):
        raise UserError(f"super_classes names {len(given)} for {classes} classes; give one for each")
    return tuple(map(str, given))


def _examples(layers: Mapping[str, np.ndarray | Sequence[Rows]]) -> int:
    return int(next(iter(layers.values()))[0].shape[0])


def _check_match(train: SplitFeatures, test: SplitFeatures) -> None:
    if train.layers.keys() != test.layers.keys():
        raise UserError(f"train has the layers {', '.join(train.layers)}, test {', '.join(test.layers)}; give the same")
    for name, rows in train.layers.items():
        ours, theirs = rows[0].shape[1], test.layers[name][0].shape[1]
        if ours != theirs:
            raise UserError(f"train has {ours} features and test {theirs}; give the same layer")
        if len(rows) != len(test.layers[name]):
            raise UserError(f"train has features of {len(rows)} members and test of {len(test.layers[name])}")
