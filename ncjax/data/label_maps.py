# SPDX-License-Identifier: Apache-2.0
"""Label maps: what a member is trained on, as a function of the fine labels.

Coarser maps merge classes into super-classes; finer ones split each class at random. Both directions of mismatch
between labels and images are those of Yang, Steinhardt and Hu (ICML 2023).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int32

from ncjax.errors import UserError

KNOWN = (
    "fine, mod:C, adjacent:C, semantic, random:C:SEED, pairings, file:PATH, split:PARTS:SEED or shuffled:MAP:SEED "
    "(such as shuffled:mod:5:0)"
)

# Pairs that look or live alike; class names as CIFAR-10 gives them.
SEMANTIC_PAIRS = (
    ("airplane", "ship"),
    ("automobile", "truck"),
    ("bird", "frog"),
    ("cat", "dog"),
    ("deer", "horse"),
)


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """How fine labels in `0..f-1` become training labels in `0..classes-1`.

    Attributes:
        name: the spec that it was made from.
        classes: number of training classes `c`.
        super_class: coarse label of each fine class, where the training label is a function of the fine class alone.
        merged: label of each fine class before any split or permutation of examples.
        parts: into how many random parts each training class is split, example by example; 1 splits nothing.
        shuffled: whether the training labels are permuted over the examples.
        seed: randomness of the split or the permutation.
    """

    name: str
    classes: int
    super_class: tuple[int, ...] | None
    merged: tuple[int, ...]
    parts: int = 1
    shuffled: bool = False
    seed: int = 0

    def targets(self, fine: Int32[np.ndarray, "n"], split: Literal["train", "test"]) -> Int32[np.ndarray, "n"]:
        """Training labels of examples with these fine labels; the random ones differ between splits."""
        labels = np.asarray(self.merged, np.int32)[fine]
        rng = np.random.default_rng([self.seed, int(split == "test")])
        if self.shuffled:
            return rng.permutation(labels)
        if self.parts == 1:
            return labels
        part = np.empty_like(labels)
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            part[rng.permutation(rows)] = np.arange(rows.size) % self.parts
        return (labels * self.parts + part).astype(np.int32)


def parse_label_maps(specs: tuple[str, ...], class_names: tuple[str, ...]) -> tuple[LabelMap, ...]:
    """The label maps that specs name, in order; `pairings` gives all ways of pairing the classes (945 for ten).

    Args:
        specs: what `--labels` takes: see `KNOWN`.
        class_names: names of the `f` fine classes.

    Raises:
        UserError: a spec is unknown, is given twice, or does not fit the number of classes.
    """
    maps = tuple(label_map for spec in specs for label_map in _parse(spec, class_names))
    names = [label_map.name for label_map in maps]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"label map {name} is given twice; name each once in --labels and use --seeds for repeats")
    return maps


def _parse(spec: str, class_names: tuple[str, ...]) -> Iterator[LabelMap]:
    fine = len(class_names)
    match spec.split(":", 1):
        case ["fine"]:
            yield _merge(spec, tuple(range(fine)))
        case ["mod", classes]:
            count = _integer(spec, classes, 1, fine)
            yield _merge(spec, tuple(label % count for label in range(fine)))
        case ["adjacent", classes]:
            count = _groups(spec, classes, fine)
            yield _merge(spec, tuple(label * count // fine for label in range(fine)))
        case ["semantic"]:
            yield _merge(spec, _semantic(class_names))
        case ["random", rest]:
            classes, seed = _two(spec, rest)
            count = _groups(spec, classes, fine)
            order = np.random.default_rng(_integer(spec, seed, 0)).permutation(np.arange(fine) * count // fine)
            yield _merge(spec, _in_order_of_appearance(order.tolist()))
        case ["pairings"]:
            if fine % 2:
                raise UserError(f"label map pairings needs an even number of classes, not {fine}")
            for pairing in _pairings(tuple(range(fine))):
                yield _merge("pairs:" + "-".join(map(str, pairing)), pairing)
        case ["file", path]:
            yield _merge(spec, _from_file(Path(path), class_names))
        case ["split", rest]:
            first, second = _two(spec, rest)
            yield _split(spec, fine, _integer(spec, first, 2), _integer(spec, second, 0))
        case ["shuffled", rest]:
            inner, seed = _two(spec, rest)
            (of,) = parse_label_maps((inner,), class_names)
            yield _shuffle(spec, of, _integer(spec, seed, 0))
        case _:
            raise UserError(f"unknown label map {spec!r}; use {KNOWN}")


def _merge(name: str, super_class: tuple[int, ...]) -> LabelMap:
    return LabelMap(name=name, classes=max(super_class) + 1, super_class=super_class, merged=super_class)


def _split(name: str, fine: int, parts: int, seed: int) -> LabelMap:
    merged = tuple(range(fine))
    return LabelMap(name=name, classes=fine * parts, super_class=None, merged=merged, parts=parts, seed=seed)


def _shuffle(name: str, of: LabelMap, seed: int) -> LabelMap:
    if of.super_class is None:
        raise UserError(f"label map {name} shuffles {of.name}, but can only shuffle one that merges classes")
    return LabelMap(name=name, classes=of.classes, super_class=None, merged=of.merged, shuffled=True, seed=seed)


def _two(spec: str, rest: str) -> tuple[str, str]:
    head, separator, last = rest.rpartition(":")
    if not separator:
        raise UserError(f"label map {spec!r} lacks a part; use {KNOWN}")
    return head, last


def _integer(spec: str, text: str, low: int, high: int = 2**31 - 1) -> int:
    try:
        number = int(text)
    except ValueError:
        raise UserError(f"label map {spec!r}: {text!r} is not a whole number; use {KNOWN}") from None
    if not low <= number <= high:
        raise UserError(f"label map {spec!r}: {number} must be from {low} to {high}")
    return number


def _groups(spec: str, text: str, fine: int) -> int:
    count = _integer(spec, text, 1, fine)
    if fine % count:
        raise UserError(f"label map {spec!r}: {fine} classes do not divide into {count} equal groups; use mod:{count}")
    return count


def _semantic(class_names: tuple[str, ...]) -> tuple[int, ...]:
    of = {name: pair for pair, names in enumerate(SEMANTIC_PAIRS) for name in names}
    if set(class_names) != set(of):
        raise UserError(f"label map semantic is for CIFAR-10, not for the classes {', '.join(class_names[:3])}, ...")
    return _in_order_of_appearance([of[name] for name in class_names])


def _in_order_of_appearance(groups: list[int]) -> tuple[int, ...]:
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return tuple(numbers[group] for group in groups)


def _pairings(labels: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """All ways of pairing; each as the pair's number of every label, pairs numbered by their first label."""

    def pairs(left: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], ...]]:
        if not left:
            yield ()
            return
        for i in range(1, len(left)):
            for others in pairs(left[1:i] + left[i + 1 :]):
                yield ((left[0], left[i]), *others)

    for pairing in pairs(labels):
        number = {label: n for n, pair in enumerate(pairing) for label in pair}
        yield tuple(number[label] for label in labels)


def _from_file(path: Path, class_names: tuple[str, ...]) -> tuple[int, ...]:
    """A JSON list of length f of coarse labels, or an object from each class name to the name of its super-class."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"label map file {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"label map file {path} is not JSON: {error}") from error
    if isinstance(content, dict):
        if set(content) != set(class_names):
            odd = sorted(set(content) ^ set(class_names))[0]
            raise UserError(f"label map file {path}: class {odd!r} is missing there or unknown to the data set")
        content = [content[name] for name in class_names]
        if not all(isinstance(name, str) for name in content):
            raise UserError(f"label map file {path}: an object maps each class name to the name of a super-class")
        numbers = {name: number for number, name in enumerate(dict.fromkeys(content))}
        return tuple(numbers[name] for name in content)
    if not isinstance(content, list) or len(content) != len(class_names):
        raise UserError(f"label map file {path} must hold a list of {len(class_names)} coarse labels, one a class")
    if any(type(label) is not int for label in content) or sorted(set(content)) != list(range(len(set(content)))):
        raise UserError(f"label map file {path}: coarse labels must be whole numbers 0, 1, ... with none left out")
    return tuple(content)
