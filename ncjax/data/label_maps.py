# SPDX-License-Identifier: Apache-2.0
"""Label maps: what a member is trained on, as a function of the fine labels.

Coarser maps merge classes into super-classes; finer ones split each class at random. Both directions of mismatch
between labels and images are those of Yang, Steinhardt and Hu (ICML 2023).
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from jaxtyping import Int32

from ncjax.data.breeds import read_breeds
from ncjax.data.hierarchy import read_classes, read_hierarchy
from ncjax.errors import UserError, did_you_mean
from ncjax.paths import user_path
from ncjax.tables import find_entry_point

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
        name: the spec that it was made from, or that stands for it.
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

    @classmethod
    def parse(cls, spec: str, class_names: Sequence[str], super_classes: Sequence[str] = ()) -> "LabelMap":
        """The one label map that a spec names, such as `mod:5`; see `LABEL_MAPS`.

        Example:
            >>> LabelMap.parse("mod:2", ("a", "b", "c", "d")).super_class
            (0, 1, 0, 1)

        Args:
            spec: see `LABEL_MAPS`.
            class_names: names of the `f` fine classes.
            super_classes: name of the super-class of each, for `superclass`; empty: not known.

        Raises:
            UserError: the spec is unknown, stands for several label maps, or does not fit the classes.
        """
        maps = parse_label_maps((spec,), tuple(class_names), tuple(super_classes))
        if len(maps) > 1:
            raise UserError(f"label map {spec!r} stands for {len(maps)} label maps, but must be one")
        return maps[0]

    @classmethod
    def merge(cls, super_class: Sequence[Any] | np.ndarray, name: str = "") -> "LabelMap":
        """A label map that merges fine classes into super-classes.

        Example:
            >>> LabelMap.merge([0, 0, 1]).classes
            2

        Args:
            super_class: coarse label of each of the `f` fine classes; the labels are 0, 1, ... with none left out.
            name: of the label map; empty: made from the labels.

        Raises:
            UserError: a label is no whole number, or one is left out.
        """
        given = super_class if isinstance(super_class, Sequence) else np.asarray(super_class).tolist()
        labels = tuple(given) if isinstance(given, Sequence) else ()
        whole = bool(labels) and not any(isinstance(label, bool | np.bool_) for label in labels)
        whole = whole and all(isinstance(label, int | np.integer) for label in labels)
        if not whole or sorted(set(labels)) != list(range(len(set(labels)))):
            where = f"label map {name}: " if name else ""
            raise UserError(f"{where}coarse labels must be whole numbers 0, 1, ... with none left out")
        merged = tuple(map(int, labels))
        name = name or "merge:" + "-".join(map(str, merged))
        return cls(name=name, classes=max(merged) + 1, super_class=merged, merged=merged)

    @classmethod
    def from_json(cls, path: str | Path, class_names: Sequence[str]) -> "LabelMap":
        """A label map from a file; its name is `file:PATH`.

        Args:
            path: JSON: a list of `f` coarse labels, or an object from each class name to the name of its super-class;
                or CSV with the columns class name and super-class.
            class_names: names of the `f` fine classes.

        Raises:
            UserError: the file cannot be read, is of neither kind, or does not fit the classes.
        """
        content = read_hierarchy(user_path(path), tuple(class_names))
        named = all(isinstance(one, str) for one in content)
        return cls.merge(_in_order_of_appearance(content) if named else content, f"file:{path}")

    @property
    def merges(self) -> bool:
        """Whether the training label is a function of the fine class, and several classes share one."""
        return self.super_class is not None and self.classes < len(self.super_class)

    @property
    def unshuffled(self) -> "LabelMap":
        """The label map whose labels a shuffled one permutes; any other label map is its own."""
        if not self.shuffled:
            return self
        inner, _ = _two(self.name, self.name.partition(":")[2])
        return LabelMap.merge(self.merged, inner)

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


class Classes(NamedTuple):
    """The fine classes that a label map is made for."""

    names: tuple[str, ...]
    super_classes: tuple[str, ...]  # name of the super-class of each; empty: not known


Make = Callable[[str, str, Classes], Iterator[LabelMap]]


def parse_label_maps(
    specs: tuple[str, ...], class_names: tuple[str, ...], super_classes: tuple[str, ...] = ()
) -> tuple[LabelMap, ...]:
    """The label maps that specs name, in order; `pairings` gives all ways of pairing the classes (945 for ten).

    Args:
        specs: see `LABEL_MAPS`.
        class_names: names of the `f` fine classes.
        super_classes: name of the super-class of each, for `superclass`; empty: not known.

    Raises:
        UserError: a spec is unknown, occurs twice, or does not fit the number of classes.
    """
    classes = Classes(class_names, super_classes)
    maps = tuple(label_map for spec in specs for label_map in _parse(spec, classes))
    counts = Counter(label_map.name for label_map in maps)
    for name, count in counts.items():
        if count > 1:
            raise UserError(f"label map {name} occurs twice in labels; name each once and use seeds for repeats")
    return maps


def _parse(spec: str, classes: Classes) -> Iterator[LabelMap]:
    head, colon, rest = spec.partition(":")
    for form, make in LABEL_MAPS.items():
        if head == form.partition(":")[0] and bool(colon) == (":" in form):
            return make(spec, rest, classes)
    added = find_entry_point(head, "label map")
    if added is not None:
        return cast(Make, added)(spec, rest, classes)
    close = did_you_mean(head, [form.partition(":")[0] for form in LABEL_MAPS])
    raise UserError(f"unknown label map {spec!r}{close}; use {_known()}")


def _known() -> str:
    *others, last = LABEL_MAPS
    return f"{', '.join(others)} or {last} (such as shuffled:mod:5:0)"


def _fine(spec: str, _: str, classes: Classes) -> Iterator[LabelMap]:
    """All classes as they are."""
    yield LabelMap.merge(range(len(classes.names)), spec)


def _mod(spec: str, rest: str, classes: Classes) -> Iterator[LabelMap]:
    """Class number modulo C: C super-classes."""
    fine = len(classes.names)
    count = _integer(spec, rest, 1, fine)
    yield LabelMap.merge([label % count for label in range(fine)], spec)


def _adjacent(spec: str, rest: str, classes: Classes) -> Iterator[LabelMap]:
    """Neighbours in the order of the classes: C super-classes of the same size."""
    fine = len(classes.names)
    count = _groups(spec, rest, fine)
    yield LabelMap.merge([label * count // fine for label in range(fine)], spec)


def _semantic(spec: str, _: str, classes: Classes) -> Iterator[LabelMap]:
    """CIFAR-10 in five pairs that look or live alike, such as cat and dog."""
    of = {name: pair for pair, names in enumerate(SEMANTIC_PAIRS) for name in names}
    if set(classes.names) != set(of):
        raise UserError(f"label map semantic is for CIFAR-10, not for the classes {', '.join(classes.names[:3])}, ...")
    yield LabelMap.merge(_in_order_of_appearance([of[name] for name in classes.names]), spec)


def _superclass(spec: str, _: str, classes: Classes) -> Iterator[LabelMap]:
    """The super-classes that the data set brings, such as the 20 of CIFAR-100."""
    if not classes.super_classes:
        raise UserError(
            "label map superclass needs super-classes: a data set such as cifar100, or with superclasses.csv in its "
            "folder, or features with an array super_classes, one text a class; or name such a file by file:PATH"
        )
    number = {name: i for i, name in enumerate(sorted(set(classes.super_classes)))}
    yield LabelMap.merge([number[name] for name in classes.super_classes], spec)


def _random(spec: str, rest: str, classes: Classes) -> Iterator[LabelMap]:
    """C super-classes of the same size, drawn at random by SEED."""
    fine, (groups, seed) = len(classes.names), _two(spec, rest)
    count = _groups(spec, groups, fine)
    order = np.random.default_rng(_integer(spec, seed, 0)).permutation(np.arange(fine) * count // fine)
    yield LabelMap.merge(_in_order_of_appearance(order.tolist()), spec)


def _all_pairings(_: str, __: str, classes: Classes) -> Iterator[LabelMap]:
    """All ways of pairing the classes, each a label map of its own: 945 of ten classes."""
    fine = len(classes.names)
    if fine % 2:
        raise UserError(f"label map pairings needs an even number of classes, not {fine}")
    for pairing in _pairings(tuple(range(fine))):
        yield LabelMap.merge(pairing, "pairs:" + "-".join(map(str, pairing)))


def _file(_: str, rest: str, classes: Classes) -> Iterator[LabelMap]:
    """Super-classes of a JSON or CSV file."""
    yield LabelMap.from_json(rest, classes.names)


def _breeds(spec: str, rest: str, classes: Classes) -> Iterator[LabelMap]:
    """The super-classes of task NAME of BREEDS (Santurkar et al. 2021), from its files in FOLDER."""
    found = _task(spec, rest)
    odd = sorted(set(found) ^ set(classes.names))
    if odd:
        lacks = "the data lack" if odd[0] in found else "the task lacks"
        raise UserError(f"label map {spec}: {lacks} class {odd[0]!r}; set data.classes to {spec} for its own")
    number = {name: i for i, name in enumerate(dict.fromkeys(found.values()))}
    yield LabelMap.merge([number[found[name]] for name in classes.names], spec)


def _task(spec: str, rest: str) -> dict[str, str]:
    name, colon, folder = rest.partition(":")
    if not colon:
        raise UserError(f"label map {spec!r} lacks a part; use {_known()}")
    return read_breeds(name, user_path(folder))


def kept_classes(spec: str, class_names: tuple[str, ...]) -> tuple[str, ...]:
    """The classes that `data.classes` keeps, in their order.

    Args:
        spec: `file:PATH`, of a label map by name, or `breeds:NAME:FOLDER`; empty: all.
        class_names: of the data.

    Raises:
        UserError: it is neither, cannot be read, or names a class that the data lack, or fewer than two.
    """
    kind, _, rest = spec.partition(":")
    if not spec:
        return class_names
    if kind not in ("file", "breeds"):
        raise UserError(f"data.classes is {spec!r}, but must be file:PATH or breeds:NAME:FOLDER")
    named = read_classes(user_path(rest), class_names) if kind == "file" else tuple(_task(spec, rest))
    missing = [name for name in named if name not in set(class_names)]
    if missing:
        raise UserError(f"data.classes {spec} names class {missing[0]!r}, which the data lack")
    kept = tuple(name for name in class_names if name in set(named))
    if len(kept) < 2:
        raise UserError(f"data.classes {spec} names {len(kept)} class of the data, but must name two or more")
    return kept


def _split(spec: str, rest: str, classes: Classes) -> Iterator[LabelMap]:
    """Each class split into PARTS at random, image by image, by SEED: finer than the classes."""
    fine, (first, second) = len(classes.names), _two(spec, rest)
    parts, seed = _integer(spec, first, 2), _integer(spec, second, 0)
    merged = tuple(range(fine))
    yield LabelMap(name=spec, classes=fine * parts, super_class=None, merged=merged, parts=parts, seed=seed)


def _shuffled(spec: str, rest: str, classes: Classes) -> Iterator[LabelMap]:
    """The labels of another label map, permuted over the images by SEED: a control."""
    inner, seed = _two(spec, rest)
    of = LabelMap.parse(inner, *classes)
    if of.super_class is None:
        raise UserError(f"label map {spec} shuffles {of.name}, but can only shuffle one that merges classes")
    number = _integer(spec, seed, 0)
    yield LabelMap(name=spec, classes=of.classes, super_class=None, merged=of.merged, shuffled=True, seed=number)


LABEL_MAPS: dict[str, Make] = {
    "fine": _fine,
    "mod:C": _mod,
    "adjacent:C": _adjacent,
    "semantic": _semantic,
    "superclass": _superclass,
    "random:C:SEED": _random,
    "pairings": _all_pairings,
    "file:PATH": _file,
    "breeds:NAME:FOLDER": _breeds,
    "split:PARTS:SEED": _split,
    "shuffled:MAP:SEED": _shuffled,
}


def _two(spec: str, rest: str) -> tuple[str, str]:
    head, separator, last = rest.rpartition(":")
    if not separator:
        raise UserError(f"label map {spec!r} lacks a part; use {_known()}")
    return head, last


def _integer(spec: str, text: str, low: int, high: int = 2**31 - 1) -> int:
    try:
        number = int(text)
    except ValueError:
        raise UserError(f"label map {spec!r}: {text!r} is not a whole number; use {_known()}") from None
    if not low <= number <= high:
        raise UserError(f"label map {spec!r}: {number} must be from {low} to {high}")
    return number


def _groups(spec: str, text: str, fine: int) -> int:
    count = _integer(spec, text, 1, fine)
    if fine % count:
        raise UserError(f"label map {spec!r}: {fine} classes do not divide into {count} equal groups; use mod:{count}")
    return count


def _in_order_of_appearance(groups: Sequence[Hashable]) -> tuple[int, ...]:
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
