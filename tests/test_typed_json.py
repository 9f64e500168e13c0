# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import pytest

from ncjax.errors import UserError
from ncjax.typed_json import register, structure, unstructure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    count: int
    share: float = 1.0
    kind: Literal["a", "b"] = "a"

    def __post_init__(self):
        if self.count < 0:
            raise UserError(f"part.count is {self.count}, but must be 0 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    part: Part
    numbers: tuple[float, ...] = ()
    table: tuple[tuple[int, ...], ...] = ()
    by_name: Mapping[str, tuple[Part, ...]] = dataclasses.field(default_factory=dict)
    anything: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    maybe: int | None = None
    other: Part | None = None
    flag: bool = False


FULL = Whole(
    part=Part(count=3, kind="b"),
    numbers=(1.0, 2.5),
    table=((1,), (), (2, 3)),
    by_name={"x": (Part(count=1), Part(count=2))},
    anything={"deep": {"list": [1, None, "x"]}},
    maybe=7,
    other=Part(count=0),
    flag=True,
)


@pytest.mark.parametrize("whole", [FULL, Whole(part=Part(count=1))])
def test_json_content_and_back(whole):
    content = unstructure(whole)
    assert json.loads(json.dumps(content)) == content
    assert structure(Whole, content, "here") == whole


def test_whole_numbers_become_floats_and_nothing_else_is_coerced():
    found = structure(Whole, {"part": {"count": 1, "share": 2}, "numbers": [1, 2]}, "here")
    assert type(found.part.share) is float
    assert all(type(number) is float for number in found.numbers)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (3, "is 3, but must be an object"),
        ([], "must be an object"),
        ({}, "missing field part"),
        ({"part": {}}, "missing field part.count"),
        ({"part": 3}, "part is 3, but must be an object"),
        ({"part": {"count": "3"}}, "part.count is '3', but must be a whole number"),
        ({"part": {"count": True}}, "part.count is True, but must be a whole number"),
        ({"part": {"count": 1.0}}, "part.count is 1.0, but must be a whole number"),
        ({"part": {"count": 1, "share": None}}, "part.share is None, but must be a number"),
        ({"part": {"count": 1, "kind": "c"}}, "part.kind is 'c', but must be a or b"),
        ({"part": {"count": 1}, "flag": 1}, "flag is 1, but must be true or false"),
        ({"part": {"count": 1}, "numbers": "12"}, "numbers is '12', but must be a list"),
        ({"part": {"count": 1}, "numbers": [1, "b"]}, "numbers[1] is 'b', but must be a number"),
        ({"part": {"count": 1}, "table": [[1], [2, "c"]]}, "table[1][1] is 'c', but must be a whole number"),
        ({"part": {"count": 1}, "by_name": 3}, "by_name is 3, but must be an object"),
        ({"part": {"count": 1}, "by_name": {"k": [{"count": "1"}]}}, "by_name[k][0].count is '1'"),
        ({"part": {"count": 1}, "anything": 4}, "anything is 4, but must be an object"),
        ({"part": {"count": 1}, "maybe": "x"}, "maybe is 'x', but must be a whole number"),
        ({"part": {"count": 1}, "other": "x"}, "other is 'x', but must be an object"),
        ({"part": {"count": 1}, "colour": 1}, "unknown field colour"),
        ({"part": {"count": 1, "colour": 1}}, "unknown field part.colour"),
        ({"part": {"count": -1}}, "part.count is -1, but must be 0 or more"),
    ],
)
def test_bad_content_is_refused_in_one_line_that_names_the_field(content, message):
    with pytest.raises(UserError) as error:
        structure(Whole, content, "here")
    assert str(error.value).startswith("here: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registered:
    name: str
    value: float = 0.0
    cache: tuple[int, ...] = ()


def test_registered_kinds_leave_out_defaults_and_fields():
    register(Registered, omit_defaults=True, leave_out=("cache",))
    assert unstructure(Registered(name="x", cache=(1,))) == {"name": "x"}
    assert unstructure(Registered(name="x", value=2.0)) == {"name": "x", "value": 2.0}
    assert structure(Registered, {"name": "x"}, "here") == Registered(name="x")
    with pytest.raises(UserError, match="unknown field cache"):
        structure(Registered, {"name": "x", "cache": [1]}, "here")


def test_fields_of_earlier_versions_are_read_and_not_written():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Renamed:
        new: int = 0
        old: int = 0

    register(Renamed, unwritten=("old",))
    assert structure(Renamed, {"old": 3}, "here").old == 3
    assert unstructure(Renamed(new=1, old=3)) == {"new": 1}
