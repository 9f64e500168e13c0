# SPDX-License-Identifier: Apache-2.0
"""The tasks of BREEDS: super-classes of some classes of ImageNet, by a hierarchy whose files the user has.

Source: Santurkar, Tsipras and Madry 2021, and the code of its authors (`robustness.tools.breeds_helpers`), whose choice
of classes is the same, without a split into source and target.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ncjax.errors import UserError, first_line
from ncjax.storage.bounded import read_bounded

LARGEST = 2**26  # bytes of a file
ROOT = "n00001740"
SEED = 2  # of the choice of classes
FILES = ("dataset_class_info.json", "class_hierarchy.txt", "node_names.txt")


class Task(NamedTuple):
    """Super-classes at one depth of the hierarchy, with a fixed number of classes each."""

    level: int  # longest way from the root
    classes: int  # of each super-class; those that have fewer are left out
    ancestor: str = ROOT


TASKS = {
    "entity13": Task(3, 20),
    "entity30": Task(4, 8),
    "living17": Task(5, 4, "n00004258"),
    "nonliving26": Task(5, 4, "n00021939"),
}


class Hierarchy(NamedTuple):
    """The nodes above the classes of a data set, and those classes."""

    classes: frozenset[str]
    children: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str]  # of the nodes


def read_breeds(name: str, folder: Path) -> dict[str, str]:
    """The super-class of each class of a task, by name; classes are WordNet ids such as n01440764.

    Args:
        name: of `TASKS`.
        folder: holds the `FILES` of BREEDS, as in `imagenet_class_hierarchy/modified`.

    Raises:
        UserError: the task is unknown, or a file is missing or of another kind.
    """
    if name not in TASKS:
        raise UserError(f"task {name!r} of BREEDS is unknown; it is one of {', '.join(TASKS)}")
    task, hierarchy = TASKS[name], read_files(folder)
    try:
        return dict(_chosen(task, hierarchy))
    except RecursionError as error:
        raise UserError(f"{folder / FILES[1]} has a node below itself") from error


def read_files(folder: Path) -> Hierarchy:
    """The hierarchy in a folder.

    Raises:
        UserError: a file is missing or of another kind.
    """
    classes, edges, names = (_text(folder / file) for file in FILES)
    try:
        ids = frozenset(str(row[1]) for row in json.loads(classes))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{folder / FILES[0]} is no JSON list of [number, id, name] ({first_line(error)})") from error
    children: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(edges.splitlines(), 1):
        if len(line.split()) != 2:
            raise UserError(f"{folder / FILES[1]}: line {number} is not a parent and a child")
        parent, child = line.split()
        children[parent] = (*children.get(parent, ()), child)
    if ROOT not in children:
        raise UserError(f"{folder / FILES[1]} has no root {ROOT}")
    pairs = (line.partition("\t") for line in names.splitlines())
    return Hierarchy(ids, children, {node: text.strip() for node, _, text in pairs})


def _text(file: Path) -> str:
    if not file.is_file():
        raise UserError(f"no file {file}; a hierarchy of BREEDS has {', '.join(FILES)}")
    try:
        return read_bounded(file, LARGEST).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not text in UTF-8") from error


def _chosen(task: Task, hierarchy: Hierarchy) -> Iterator[tuple[str, str]]:
    rng, below = np.random.RandomState(SEED), _below(hierarchy, task.ancestor)
    levels = _levels(hierarchy)
    nodes = sorted(node for node in below if levels.get(node) == task.level)
    found = {node: sorted(_classes(hierarchy, node)) for node in nodes}
    found = {node: classes for node, classes in found.items() if len(classes) >= task.classes}
    names = [hierarchy.names.get(node, node) for node in found]
    for (node, classes), name in zip(found.items(), names, strict=True):
        for one in rng.choice(classes, task.classes, replace=False).tolist():
            yield one, name if names.count(name) == 1 else f"{name} ({node})"


def _below(hierarchy: Hierarchy, node: str) -> frozenset[str]:
    """A node, and those below it."""
    known, left = {node}, [node]
    while left:
        for child in hierarchy.children.get(left.pop(), ()):
            if child not in known:
                known.add(child)
                left.append(child)
    return frozenset(known)


def _classes(hierarchy: Hierarchy, node: str) -> frozenset[str]:
    """The classes below a node, but none below another class; and the node, where it is one."""
    found, left, known = set[str](), [node], {node}
    while left:
        for child in hierarchy.children.get(left.pop(), ()):
            if child in hierarchy.classes:
                found.add(child)
            elif child not in known:
                known.add(child)
                left.append(child)
    return frozenset(found | ({node} & hierarchy.classes))


def _levels(hierarchy: Hierarchy) -> Mapping[str, int]:
    """The longest way from the root to each node that has a class below it or is one."""
    parents: dict[str, list[str]] = {}
    for parent in _below(hierarchy, ROOT):
        for child in hierarchy.children.get(parent, ()):
            parents.setdefault(child, []).append(parent)
    relevant, left = set(hierarchy.classes), list(hierarchy.classes)
    while left:
        for parent in parents.get(left.pop(), ()):
            if parent not in relevant:
                relevant.add(parent)
                left.append(parent)

    @cache
    def level(node: str) -> int:
        return 1 + max((level(parent) for parent in parents.get(node, ())), default=-1)

    return {node: level(node) for node in relevant if node == ROOT or node in parents}
