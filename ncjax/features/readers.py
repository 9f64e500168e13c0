# SPDX-License-Identifier: Apache-2.0
"""Reads features, labels and classifiers from files of NumPy, safetensors and PyTorch; nothing in one is executed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncjax.collapse.separation import separation_law
from ncjax.config import Variant
from ncjax.errors import UserError
from ncjax.features.old_given import evaluate_arrays

SUFFIXES = (".npz", ".npy", ".safetensors", ".pt", ".pth")
FEATURES = ("train_features", "train", "features")
LABELS = ("train_labels", "train_fine", "train_y", "labels", "y")
TEST = ("test_features", "test")
TEST_LABELS = ("test_labels", "test_fine", "test_y")
WEIGHTS = ("weights", "weight", "w", "fc.weight")
BIAS = ("bias", "b", "fc.bias")


class Sources(NamedTuple):
    """Where things are, beside the file of the features: each a file, or a name in that file."""

    labels: str = ""
    test: str = ""
    test_labels: str = ""
    classifier: str = ""


def evaluate_files(
    paths: tuple[Path, ...],
    sources: Sources,
    label_map: str | None,
    *,
    variants: tuple[Variant, ...] = ("raw", "normalised", "residual_pca"),
    bootstrap: int = 0,
) -> dict[str, Any]:
    """`evaluate_arrays` of each file; several are layers of one network, in order, with the law of separation.

    Raises:
        UserError: a file is missing, unreadable or lacks what is asked for, or its content does not fit.
    """
    layers = []
    for path in paths:
        content = read_arrays(path)
        found = {
            "train": _one(content, FEATURES, path),
            "train_labels": _named(sources.labels, content, LABELS, path),
            "test": _named(sources.test, content, TEST, path) if sources.test else _first(content, TEST),
            "test_labels": _named(sources.test_labels, content, TEST_LABELS, path)
            if sources.test_labels
            else _first(content, TEST_LABELS),
        }
        weights, bias = _classifier(sources.classifier, content) if path == paths[-1] else (None, None)
        measured = evaluate_arrays(
            **found, label_map=label_map, weights=weights, bias=bias, variants=variants, bootstrap=bootstrap
        )
        layers.append({"file": path.name, **measured})
    law = {
        f"{part}_{split}": separation_law([layer["collapse"][split][part]["separation"] for layer in layers])._asdict()
        for split in ("train", "test")
        for part in ("coarse", "fine")
        if len(layers) > 1 and all(part in layer["collapse"].get(split, {}) for layer in layers)
    }
    return {"layers": layers, "separation_law": law}


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a file by name; a file of one array gives it the name of the empty string.

    Raises:
        UserError: the file is missing, of another kind, damaged, or holds code.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is of no known kind; give a run's folder or a file {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"no file at {path}")
    if path.suffix in (".npz", ".npy"):
        return _read_numpy(path)
    try:
        from ncjax.torch_port.files import read_tensors
    except ImportError as error:
        raise UserError(f"reading {path} needs PyTorch; install it with: pip install 'ncjax[torch]'") from error
    return read_tensors(path)


def _read_numpy(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".npy":
            return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:  # a damaged archive makes its reader stumble anywhere
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]}); was it written by NumPy?") from error


def _named(source: str, content: Mapping[str, Any], names: tuple[str, ...], path: Path) -> Any:
    """What a source names: a file, or a name in the file of the features."""
    if not source:
        return _one(content, names, path)
    if source in content:
        return content[source]
    if Path(source).suffix in SUFFIXES:
        return _one(read_arrays(Path(source)), names, Path(source))
    raise UserError(f"{path} holds no {source!r}, only {', '.join(content)}; name one of these or a file")


def _one(content: Mapping[str, Any], names: tuple[str, ...], path: Path) -> Any:
    """The array of the first known name, or the only one."""
    found = _first(content, names)
    if found is None and len(content) == 1:
        (found,) = content.values()
    if found is None:
        raise UserError(f"{path} holds none of {', '.join(names)}, only {', '.join(content)}; rename, or use --labels")
    return found


def _first(content: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((content[name] for name in names if name in content), None)


def _classifier(source: str, content: Mapping[str, Any]) -> tuple[Any, Any]:
    if source:
        content = read_arrays(Path(source))
        return _one(content, WEIGHTS, Path(source)), _first(content, BIAS)
    return _first(content, WEIGHTS), _first(content, BIAS)
