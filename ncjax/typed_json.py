# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses to plain JSON content and back, by cattrs; nothing is coerced but a whole number to a float."""

from functools import cache
from typing import Any, TypeVar

import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from ncjax.errors import UserError

T = TypeVar("T")


def structure(kind: type[T], content: Any, where: str) -> T:
    """A dataclass of plain JSON content; every number, text and flag must be of the type of its field.

    Args:
        kind: a dataclass.
        content: as `json.loads` gives it.
        where: begins the message of an error.

    Raises:
        UserError: a field is unknown, missing or of another type; it is named.
    """
    try:
        return converter().structure(content, kind)
    except (cattrs.BaseValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        reasons = cattrs.transform_error(error, path="", format_exception=_reason) if _is_group(error) else [str(error)]
        raise UserError(f"{where}: {reasons[0].replace(' @ .', ' in ').replace(' @ ', '')}") from error


def unstructure(content: Any) -> Any:
    """Plain JSON content of a dataclass; tuples become lists."""
    return converter().unstructure(content)


def register(kind: type[Any], *, omit_defaults: bool = False, leave_out: tuple[str, ...] = ()) -> None:
    """Say how a dataclass is written: without fields that have their default, or without some fields at all."""
    overrides: Any = {name: override(omit=True) for name in leave_out}
    own = converter()
    own.register_structure_hook(
        kind, make_dict_structure_fn(kind, own, _cattrs_forbid_extra_keys=True, **overrides)
    )
    own.register_unstructure_hook(
        kind, make_dict_unstructure_fn(kind, own, _cattrs_omit_if_default=omit_defaults, **overrides)
    )


@cache
def converter() -> cattrs.Converter:
    """The one converter."""
    made = cattrs.Converter(forbid_extra_keys=True, unstruct_collection_overrides={tuple: list})

    def exactly(*kinds: type) -> Any:
        def check(value: Any, wanted: type) -> Any:
            if type(value) not in kinds:
                raise TypeError(f"{value!r} is not {wanted.__name__}")
            return wanted(value)

        return check

    for kind in (str, int, bool):
        made.register_structure_hook(kind, exactly(kind))
    made.register_structure_hook(float, exactly(float, int))
    return made


def _is_group(error: Exception) -> bool:
    return isinstance(error, cattrs.BaseValidationError)


def _reason(error: BaseException, kind: type | None) -> str:
    match error:
        case cattrs.ForbiddenExtraKeysError():
            return f"unknown field {sorted(error.extra_fields)[0]}"
        case KeyError():
            return f"missing field {error.args[0]}"
    return str(error)
