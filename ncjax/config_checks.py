# SPDX-License-Identifier: Apache-2.0
"""What a field of a config may be, and the line that says so."""

from typing import Literal, get_args, get_origin, get_type_hints

from ncjax.errors import UserError

MOST_FLOAT = 3.4e38
WORDS = {str: "text", int: "a whole number", float: "a number", bool: "True or False"}
SEVERAL = {str: "texts", int: "whole numbers", float: "numbers"}


def check_types(config: object, prefix: str = "") -> None:
    """Refuses values that are not of the types of their fields; whole numbers stand for numbers, True and False not.

    Raises:
        UserError: naming the first of them.
    """
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(kind) is tuple:
            (item, _) = get_args(kind)
            fits = isinstance(value, tuple) and all(_is_of(item, one) for one in value)
            example = f", such as ({value!r},)" if _is_of(item, value) else ""
            allowed = f"{SEVERAL[item]} in a tuple{example}"
        elif get_origin(kind) is Literal:
            fits, allowed = value in get_args(kind), " or ".join(get_args(kind))
        else:
            fits, allowed = _is_of(kind, value), WORDS.get(kind, f"a {kind.__name__}")
        if not fits:
            raise UserError(f"{prefix}{name} is {value!r}, but must be {allowed}")


def _is_of(kind: type[object], value: object) -> bool:
    accepted = int | float if kind is float else kind
    return isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))


def check_whole(name: str, value: int, least: int, most: int | None = None) -> None:
    """Refuses a whole number that is out of range.

    Raises:
        UserError: naming the field.
    """
    allowed = f"{least} or more" if most is None else f"from {least} to {most}"
    require(least <= value and (most is None or value <= most), name, value, allowed)


def check_distinct(name: str, numbers: tuple[float, ...]) -> None:
    """Refuses no numbers at all, those below 0 or not finite, and repeats.

    Raises:
        UserError: naming the field.
    """
    fits = bool(numbers) and all(map(is_finite, numbers))
    require(fits, name, numbers, "one or more numbers in a tuple, each 0 or more, finite")
    require(len(set(numbers)) == len(numbers), name, numbers, "numbers that differ; use seeds for repeats")


def is_finite(value: float) -> bool:
    """Whether a number is 0 or more, and finite in float32 too."""
    return 0 <= value <= MOST_FLOAT


def require(holds: bool, name: str, value: object, allowed: str) -> None:
    """Refuses a value where something does not hold.

    Raises:
        UserError: naming the field, its value and what is allowed.
    """
    if not holds:
        raise UserError(f"{name} is {value}, but must be {allowed}")
