# SPDX-License-Identifier: Apache-2.0
"""Super-classes of classes, from a file: `superclasses.csv` or `superclasses.json` in a data set, or any by path."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ncjax.errors import UserError, first_line
from ncjax.storage.bounded import read_bounded

NAMES = ("superclasses.csv", "superclasses.json")
LARGEST = 2**26  # bytes


def find_hierarchy(root: Path, class_names: tuple[str, ...], *, of_more: bool = False) -> tuple[str, ...]:
    """Name of the super-class of each class, from the file of `NAMES` in a folder; empty: there is none.

    Args:
        root: the folder.
        class_names: names of the classes.
        of_more: whether the file may name other classes too.

    Raises:
        UserError: both are there, or `read_hierarchy` refuses the file.
    """
    found = [root / name for name in NAMES if (root / name).is_file()]
    if len(found) > 1:
        raise UserError(f"{root} holds {' and '.join(NAMES)}; keep the one that is meant")
    if not found:
        return ()
    content = read_hierarchy(found[0], class_names, of_more=of_more)
    if not isinstance(content[0], str):
        raise UserError(f"{found[0]} must map each class name to the name of its super-class")
    return tuple(content)


def read_hierarchy(path: Path, class_names: tuple[str, ...], *, of_more: bool = False) -> list[Any]:
    """What a file says of each of the classes, in their order: the name of its super-class, or its coarse label.

    Args:
        path: CSV with the columns class name and super-class, with or without a line of headings; or JSON: an object
            from each class name to the name of its super-class, or a list of coarse labels.
        class_names: names of the `f` fine classes.
        of_more: whether it may name other classes too.

    Raises:
        UserError: the file cannot be read, or names other classes.
    """
    content = _read(path, class_names)
    if isinstance(content, Mapping):
        if of_more:
            content = {name: value for name, value in content.items() if name in set(class_names)}
        if set(content) != set(class_names):
            odd = sorted(set(content) ^ set(class_names))[0]
            raise UserError(f"label map file {path}: class {odd!r} is missing there or unknown to the data set")
        if not all(isinstance(name, str) and name for name in content.values()):
            raise UserError(f"label map file {path}: an object maps each class name to the name of a super-class")
        return [content[name] for name in class_names]
    if not isinstance(content, list) or len(content) != len(class_names) or any(isinstance(c, str) for c in content):
        raise UserError(f"label map file {path} must hold a list of {len(class_names)} coarse labels, one a class")
    return content


def read_classes(path: Path, class_names: tuple[str, ...]) -> tuple[str, ...]:
    """The classes that a file of `read_hierarchy` names, in its order.

    Raises:
        UserError: the file cannot be read, or is a list of coarse labels.
    """
    content = _read(path, class_names)
    if not isinstance(content, Mapping):
        raise UserError(f"label map file {path} names no classes; give CSV or an object of class and super-class")
    return tuple(content)


def _read(path: Path, class_names: tuple[str, ...]) -> Any:
    try:
        text = read_bounded(path, LARGEST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"label map file {path} is not text in UTF-8; save it again") from error
    return _from_csv(path, text, class_names) if path.suffix.lower() == ".csv" else _from_json(path, text)


def _from_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _once(path, [(str(a), b) for a, b in pairs]))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"label map file {path} is not JSON: {first_line(error)}") from error


def _from_csv(path: Path, text: str, class_names: tuple[str, ...]) -> Mapping[str, str]:
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise UserError(f"label map file {path} is not CSV: {error}") from error
    if rows and rows[0][0] not in class_names:
        rows = rows[1:]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise UserError(
                f"label map file {path}: row {number} has {len(row)} cells, not a class and its super-class"
            )
    return _once(path, [(one, other) for one, other in rows])


def _once(path: Path, pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and found[name] != value:
            raise UserError(f"label map file {path}: class {name!r} occurs twice, with two super-classes")
        found[name] = value
    return found
