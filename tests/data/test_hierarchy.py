# SPDX-License-Identifier: Apache-2.0
"""Hierarchies from files, and the label map `superclass`."""

import json

import numpy as np
import pytest

from ncjax.data.hierarchy import find_hierarchy, read_hierarchy
from ncjax.data.label_maps import LabelMap, parse_label_maps
from ncjax.errors import UserError

CLASSES = ("cat", "car", "dog", "bus")
WANTED = ["animal", "vehicle", "animal", "vehicle"]
GOOD = {
    "a.csv": "cat,animal\ncar,vehicle\ndog,animal\nbus,vehicle\n",
    "order.csv": "bus,vehicle\ndog,animal\ncat,animal\ncar,vehicle\n",
    "headings.csv": "class,superclass\ncat,animal\ncar,vehicle\ndog,animal\nbus,vehicle\n",
    "windows.CSV": "\ufeffname,parent\r\ncat,animal\r\ncar,vehicle\r\ndog,animal\r\nbus,vehicle\r\n",
    "quoted.csv": '"cat","animal"\n"car","vehicle"\ndog,"animal"\nbus,vehicle',
    "spaces.csv": " cat , animal \ncar, vehicle\n\ndog,animal\nbus,vehicle\n\n",
    "twice.csv": "cat,animal\ncat,animal\ncar,vehicle\ndog,animal\nbus,vehicle\n",
    "a.json": json.dumps(dict(zip(CLASSES, WANTED, strict=True))),
    "order.json": json.dumps(dict(sorted(zip(CLASSES, WANTED, strict=True)))),
    "mark.json": "\ufeff" + json.dumps(dict(zip(CLASSES, WANTED, strict=True))),
}


@pytest.mark.parametrize("name", GOOD)
def test_hierarchies_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(GOOD[name].encode())
    assert read_hierarchy(tmp_path / name, CLASSES) == WANTED
    assert LabelMap.parse(f"file:{tmp_path / name}", CLASSES).super_class == (0, 1, 0, 1)


BAD = {
    "missing.csv": ("cat,animal\ncar,vehicle\ndog,animal\n", "class 'bus' is missing"),
    "foreign.csv": (GOOD["a.csv"] + "cow,animal\n", "class 'cow' is missing there or unknown"),
    "contrary.csv": (GOOD["a.csv"] + "cat,vehicle\n", "class 'cat' occurs twice, with two super-classes"),
    "cells.csv": ("cat,animal,pet\ncar,vehicle\ndog,animal\nbus,vehicle\n", "row 1 has 3 cells"),
    "one.csv": ("cat\ncar\ndog\nbus\n", "row 1 has 1 cells"),
    "semicolons.csv": ("cat;animal\ncar;vehicle\ndog;animal\nbus;vehicle\n", "row 1 has 1 cells"),
    "open.csv": ('"cat,animal\n', "is not CSV"),
    "nothing.csv": ("", "class 'bus' is missing"),
    "blank.csv": ("cat,\ncar,vehicle\ndog,animal\nbus,vehicle\n", "the name of a super-class"),
    "numbers.json": ('{"cat": 0, "car": 1, "dog": 0, "bus": 1}', "the name of a super-class"),
    "contrary.json": ('{"cat": "a", "cat": "b", "car": "b", "dog": "a", "bus": "b"}', "'cat' occurs twice"),
    "nested.json": ("[" * 100_000, "is not JSON"),
    "texts.json": ('["a", "b", "a", "b"]', "list of 4 coarse labels"),
    "half.json": ('{"cat": ', "is not JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_hierarchy_is_refused_by_name(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        read_hierarchy(tmp_path / name, CLASSES)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_other_encodings_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(GOOD["a.csv"].replace("animal", "Säugetier").encode("latin-1"))
    with pytest.raises(UserError, match="is not text in UTF-8"):
        read_hierarchy(tmp_path / "a.csv", CLASSES)


def test_a_folder_brings_one_hierarchy_of_names_or_none(tmp_path):
    assert find_hierarchy(tmp_path, CLASSES) == ()
    (tmp_path / "superclasses.json").write_text("[0, 1, 0, 1]")
    with pytest.raises(UserError, match="must map each class name to the name of its super-class"):
        find_hierarchy(tmp_path, CLASSES)
    (tmp_path / "superclasses.json").write_text(GOOD["a.json"])
    assert find_hierarchy(tmp_path, CLASSES) == tuple(WANTED)


def test_superclass_numbers_the_names_in_alphabetical_order():
    found = LabelMap.parse("superclass", CLASSES, ["vehicle", "animal", "vehicle", "animal"])
    assert (found.super_class, found.classes, found.name, found.merges) == ((1, 0, 1, 0), 2, "superclass", True)
    shuffled, inner = parse_label_maps(("shuffled:superclass:0", "superclass"), CLASSES, tuple(WANTED))
    assert shuffled.merged == inner.super_class == (0, 1, 0, 1)
    labels = np.arange(4, dtype=np.int32).repeat(5)
    assert np.bincount(shuffled.targets(labels, "train")).tolist() == [10, 10]


def test_superclass_without_super_classes_says_where_they_come_from():
    with pytest.raises(UserError, match=r"label map superclass needs .*superclasses\.csv .*file:PATH"):
        LabelMap.parse("superclass", CLASSES)
