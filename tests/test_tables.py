# SPDX-License-Identifier: Apache-2.0
"""Names come from tables, then from installed packages; names of a caller's own functions ask for them again."""

import sys

import pytest

from ncjax.errors import UserError
from ncjax.tables import TABLES, find_entry_point, find_named, names_of

TABLE = {"one": 1, "two": 2}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with entry points, one of which cannot be imported."""
    info = tmp_path / "extra_losses-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra-losses\nVersion: 1.0\n")
    lines = "[ncjax.losses]\nthree = extra_losses:THREE\ngone = extra_losses:GONE\n"
    (info / "entry_points.txt").write_text(lines + "[ncjax.label_maps]\nparity = extra_losses:parity\n")
    (tmp_path / "extra_losses.py").write_text(
        "from ncjax.data.label_maps import LabelMap\nTHREE = 3\n"
        "def parity(spec, rest, classes):\n"
        "    yield LabelMap.merge([i % 2 for i in range(len(classes.names))], spec)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("extra_losses", None)


def test_a_name_of_the_table_is_found_without_a_look_at_packages(monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", None)
    assert find_named(TABLE, "two", "loss.name") == 2


def test_a_package_adds_a_name(package):
    assert find_named(TABLE, "three", "loss.name") == 3
    assert names_of(TABLE, "loss.name") == ("one", "two", "gone", "three")


def test_a_package_adds_a_label_map(package):
    from ncjax.data.label_maps import LabelMap

    assert LabelMap.parse("parity", ("a", "b", "c")).merged == (0, 1, 0)


def test_a_package_that_fails_is_named(package):
    with pytest.raises(UserError, match=r"^loss\.name 'gone' is extra_losses:GONE of an installed package, which"):
        find_named(TABLE, "gone", "loss.name")


def test_unknown_names_are_refused_with_those_that_are_known(package):
    with pytest.raises(UserError, match=r"^loss\.name is 'four', but must be one of one, two, gone, three$"):
        find_named(TABLE, "four", "loss.name")
    with pytest.raises(UserError, match=r"^data\.augment is 'x', but must be one of \(none\)$"):
        find_named({}, "x", "data.augment")
    assert find_entry_point("four", "loss.name") is None


@pytest.mark.parametrize("field", [field for field, table in TABLES.items() if table.argument])
def test_functions_of_a_caller_are_asked_for_again(field):
    message = rf"^{field} is 'own:mine', a function of the caller's, .* pass it again: {TABLES[field].argument}=\.\.\.$"
    with pytest.raises(UserError, match=message):
        find_named(TABLE, "own:mine", field)
