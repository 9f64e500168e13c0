# SPDX-License-Identifier: Apache-2.0
"""Reads features, labels and classifiers from files of NumPy, safetensors and PyTorch; nothing in one is executed.

A folder of npy files is read as an npz file of the same names is; its sub-folders are layers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncjax.errors import UserError
from ncjax.paths import user_path
from ncjax.storage.feature_folders import TRAIN_FILE, holds_features, layer_folders
from ncjax.storage.npy import load_npz, map_npy

SUFFIXES = (".npz", ".npy", ".safetensors", ".pt", ".pth")
FEATURES = ("train_features", "train", "features")
LABELS = ("train_labels", "train_fine", "train_y", "labels", "y")
TEST = ("test_features", "test")
TEST_LABELS = ("test_labels", "test_fine", "test_y")
WEIGHTS = ("weights", "weight", "w", "fc.weight")
BIAS = ("bias", "b", "fc.bias")
LISTED = 8  # names that a message lists
LAYER = "{split}_layer_"  # before the names of further layers, as `FeatureSet.save` writes them


class FoundArrays(NamedTuple):
    """What a file of features holds; None where it lacks something."""

    train: Mapping[str, Any]  # by layer
    train_labels: Any
    test: Mapping[str, Any] | None
    test_labels: Any
    weights: Any
    bias: Any
    names: tuple[str, ...]  # of the members; empty: not known
    class_names: tuple[str, ...]  # of the fine classes; empty: not known
    super_classes: tuple[str, ...]  # name of the super-class of each; empty: not known


def find_arrays(
    path: Path, *, labels: str = "", test: str = "", test_labels: str = "", classifier: str = ""
) -> FoundArrays:
    """The arrays of a file or folder by their usual names, or by those that are named: a file, or a name in the file.

    Raises:
        UserError: a file is missing, unreadable or lacks what is asked for.
    """
    content = read_arrays(path)
    held = _named(test, content, TEST, path) if test else _first(content, TEST)
    held_labels = _named(test_labels, content, TEST_LABELS, path) if test_labels else _first(content, TEST_LABELS)
    weights, bias = _classifier(classifier, content)
    layers, held_layers = _layers(content, "train"), _layers(content, "test")
    alone = bool(layers) and _first(content, FEATURES) is None  # there are layers, and none of them is the last
    train = {} if alone else {FEATURES[-1]: _one(content, FEATURES, path)}
    own = {} if held is None else {FEATURES[-1]: held}
    return FoundArrays(
        train={**train, **layers},
        train_labels=_named(labels, content, LABELS, path),
        test={**own, **held_layers} if own or (alone and held_layers) else None,
        test_labels=held_labels,
        weights=weights,
        bias=bias,
        names=_texts(content, "members"),
        class_names=_texts(content, "class_names"),
        super_classes=_texts(content, "super_classes"),
    )


def _texts(content: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(map(str, np.atleast_1d(content[name]))) if name in content else ()


def _layers(content: Mapping[str, Any], split: str) -> dict[str, Any]:
    prefix = LAYER.format(split=split)
    return {name.removeprefix(prefix): array for name, array in content.items() if name.startswith(prefix)}


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a file or folder by name; a file of one array gives it the name of the empty string.

    Raises:
        UserError: the file is missing, of another kind, damaged, or holds code.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is of no known kind; give a run's folder or a file {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"no file at {path}")
    if path.suffix == ".npy":
        return {"": map_npy(path)}
    if path.suffix == ".npz":
        return load_npz(path, remedy="save arrays as .npy, which are read from disk, or fewer of them")
    try:
        from ncjax.features.torch_files import read_tensors
    except ImportError as error:
        raise UserError(f"reading {path} needs PyTorch; install it with: pip install 'ncjax[torch]'") from error
    return dict(read_tensors(path))


def _read_folder(folder: Path) -> dict[str, Any]:
    """The npy files of a folder by name, and the layers in its sub-folders, whose labels must be the same."""
    if not holds_features(folder):
        raise UserError(f"{folder} holds no {TRAIN_FILE}; save the features of the training split under this name")
    found: dict[str, Any] = {file.stem: map_npy(file) for file in sorted(folder.glob("*.npy"))}
    for layer in layer_folders(folder):
        content = {file.stem: map_npy(file) for file in sorted(layer.glob("*.npy"))}
        for split in ("train", "test"):
            if f"{split}_features" in content:
                found[LAYER.format(split=split) + layer.name] = content[f"{split}_features"]
            labels = content.get(f"{split}_labels")
            if labels is not None and not np.array_equal(found.setdefault(f"{split}_labels", labels), labels):
                raise UserError(f"{layer / f'{split}_labels.npy'} differs from the labels of {folder}; give one order")
    return found


def _named(source: str, content: Mapping[str, Any], names: tuple[str, ...], path: Path) -> Any:
    """What a source names: a file, or a name in the file of the features."""
    if not source:
        return _one(content, names, path)
    if source in content:
        return content[source]
    file = user_path(source)
    if file.suffix in SUFFIXES:
        return _one(read_arrays(file), names, file)
    raise UserError(f"{path} holds no {source!r}, only {_listed(content)}; name one of these or a file")


def _one(content: Mapping[str, Any], names: tuple[str, ...], path: Path) -> Any:
    """The array of the first known name, or the only one, unless its name says that it is features."""
    found = _first(content, names)
    if found is None and len(content) == 1 and _first(content, FEATURES) is None:
        (found,) = content.values()
    if found is None:
        raise UserError(f"{path} holds none of {', '.join(names)}, only {_listed(content)}; rename, or use --labels")
    return found


def _listed(content: Mapping[str, Any]) -> str:
    more = f" and {len(content) - LISTED} more" if len(content) > LISTED else ""
    return ", ".join(list(content)[:LISTED]) + more


def _first(content: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((content[name] for name in names if name in content), None)


def _classifier(source: str, content: Mapping[str, Any]) -> tuple[Any, Any]:
    if source:
        file = user_path(source)
        content = read_arrays(file)
        return _one(content, WEIGHTS, file), _first(content, BIAS)
    return _first(content, WEIGHTS), _first(content, BIAS)
