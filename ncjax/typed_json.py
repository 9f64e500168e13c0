# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses to plain JSON content and back, by cattrs; nothing is coerced but a whole number to a float."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from ncjax.errors import UserError, first_line

T = TypeVar("T")
WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def structure(kind: type[T], content: Any, where: str) -> T:
    """A dataclass of plain JSON content; every number, text and flag must be of the type of its field.

    Args:
        kind: a dataclass.
        content: as `json.loads` returns it.
        where: begins the message of an error.

    Raises:
        UserError: a field is unknown, missing, of another type or out of range; it is named.
    """
    try:
        return converter().structure(content, kind)
    except (cattrs.BaseValidationError, ValueError, TypeError) as error:
        path, cause = next(_causes(error, ""))
        raise UserError(f"{where}: {_reason(path, cause)}") from error


def unstructure(content: Any) -> Any:
    """Plain JSON content of a dataclass; tuples become lists."""
    return converter().unstructure(content)


def register(
    kind: type[Any], *, omit_defaults: bool = False, leave_out: tuple[str, ...] = (), unwritten: tuple[str, ...] = ()
) -> None:
    """Sets how a dataclass is written: without fields that have their default, or without some fields at all.

    Args:
        kind: the dataclass.
        omit_defaults: write no field that has its default.
        leave_out: fields that are neither written nor read.
        unwritten: fields that are read, and never written.
    """
    overrides: Any = {name: override(omit=True) for name in leave_out}
    own = converter()
    own.register_structure_hook(kind, _dataclass_hook(kind, own, **overrides))
    overrides |= {name: override(omit=True) for name in unwritten}
    own.register_unstructure_hook(
        kind, make_dict_unstructure_fn(kind, own, _cattrs_omit_if_default=omit_defaults, **overrides)
    )


@cache
def converter() -> cattrs.Converter:
    """The one converter."""
    made = cattrs.Converter(forbid_extra_keys=True, unstruct_collection_overrides={tuple: list})
    for kind, words in WORDS.items():
        accepted = (float, int) if kind is float else (kind,)
        made.register_structure_hook(kind, _exactly(accepted, words))
    made.register_structure_hook_factory(dataclasses.is_dataclass, lambda kind: _dataclass_hook(kind, made))
    made.register_structure_hook_factory(_is(tuple), lambda kind: _tuple_hook(kind, made))
    made.register_structure_hook_factory(_is(Mapping), lambda kind: _dict_hook(kind, made))
    made.register_structure_hook_factory(_is(Literal), _literal_hook)
    return made


Hook = Callable[[Any, Any], Any]


def _is(generic: Any) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) is generic


def _exactly(accepted: tuple[type, ...], words: str) -> Hook:
    def check(value: Any, wanted: Any) -> Any:
        if type(value) not in accepted:
            raise TypeError(f"is {value!r}, but must be {words}")
        return wanted(value)

    return check


def _dataclass_hook(kind: type[Any], own: cattrs.Converter, **overrides: Any) -> Hook:
    make = make_dict_structure_fn(kind, own, _cattrs_forbid_extra_keys=True, **overrides)

    def check(value: Any, wanted: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"is {value!r}, but must be an object with fields")
        return make(value, wanted)

    return check


def _tuple_hook(kind: Any, own: cattrs.Converter) -> Hook:
    """For `tuple[X, ...]`: text and objects, which can be iterated too, are refused."""
    item = get_args(kind)[0]

    def check(value: Any, _: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise TypeError(f"is {value!r}, but must be a list")
        return tuple(own.structure(value, list[item]))  # type: ignore[valid-type]

    return check


def _dict_hook(kind: Any, own: cattrs.Converter) -> Hook:
    key, item = get_args(kind)

    def check(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"is {value!r}, but must be an object")
        return own.structure(value, dict[key, item])  # type: ignore[valid-type]

    return check


def _literal_hook(kind: Any) -> Hook:
    words = " or ".join(map(str, get_args(kind)))

    def check(value: Any, _: Any) -> Any:
        if value not in get_args(kind):
            raise TypeError(f"is {value!r}, but must be {words}")
        return value

    return check


def _causes(error: BaseException, path: str) -> Iterator[tuple[str, BaseException]]:
    """The errors at the leaves of nested groups, each with the path of its field."""
    if not isinstance(error, cattrs.BaseValidationError):
        yield path, error
        return
    for inner in error.exceptions:
        where = path
        for note in getattr(inner, "__notes__", ()):
            match note:
                case cattrs.AttributeValidationNote():
                    where = f"{path}.{note.name}" if path else note.name
                case cattrs.IterableValidationNote():
                    where = f"{path}[{note.index}]"
        yield from _causes(inner, where)


def _reason(path: str, cause: BaseException) -> str:
    """One line that names the field; a UserError of the dataclass itself does so already."""
    match cause:
        case UserError():
            return str(cause)
        case cattrs.ForbiddenExtraKeysError():
            name = sorted(map(str, cause.extra_fields))[0]
            return f"unknown field {path}.{name}" if path else f"unknown field {name}"
        case KeyError():
            return f"missing field {path}"
    return f"{path} {first_line(cause)}".lstrip()


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Where two JSON objects differ: dotted names, in order, with the value of each; None where there is none."""
    found: list[tuple[str, Any, Any]] = []
    for name in sorted(set(one) | set(other)):
        first, second = one.get(name), other.get(name)
        if isinstance(first, dict) and isinstance(second, dict):
            found += differences(first, second, f"{prefix}{name}.")
        elif first != second:
            found.append((f"{prefix}{name}", first, second))
    return found
