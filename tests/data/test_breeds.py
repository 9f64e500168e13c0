# SPDX-License-Identifier: Apache-2.0
"""Tasks of BREEDS on a small hierarchy, by hand; the authors' code gives the same for all four tasks of ImageNet."""

import json

import numpy as np
import pytest

from ncjax.data import breeds
from ncjax.data.breeds import FILES, ROOT, Task, read_breeds
from ncjax.data.label_maps import kept_classes, parse_label_maps
from ncjax.errors import UserError

# root -> animal -> {dog -> 3 breeds, cat -> {big cat -> 2, house cat}, fish -> 1}; dog is below pet, too
EDGES = """
n00001740 animal
animal dog
animal cat
animal fish
cat bigcat
animal pet
pet dog
dog d1
dog d2
dog d3
bigcat c1
bigcat c2
cat c3
fish f1
n00001740 unused
unused nothing
"""
CLASSES = ("d1", "d2", "d3", "c1", "c2", "c3", "f1")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / FILES[0]).write_text(json.dumps([[i, name, name.upper()] for i, name in enumerate(CLASSES)]))
    (tmp_path / FILES[1]).write_text(EDGES.strip() + "\n")
    (tmp_path / FILES[2]).write_text("n00001740\tentity\ndog\tdog, hound\ncat\tcat\nfish\tfish\nbigcat\tbig cat\n")
    tasks = {"level2": Task(2, 2), "level3": Task(3, 2), "cats": Task(3, 2, "cat")}
    monkeypatch.setattr(breeds, "TASKS", tasks)
    return tmp_path


def test_super_classes_stand_at_the_longest_way_from_the_root(folder):
    """`dog` is at 2 by animal and at 3 by pet: at 3; fish has one class, which is too few."""
    rng = np.random.RandomState(2)
    cats = rng.choice(["c1", "c2", "c3"], 2, replace=False)
    dogs = rng.choice(["d1", "d2", "d3"], 2, replace=False)
    assert read_breeds("level2", folder) == dict.fromkeys(cats, "cat") | dict.fromkeys(dogs, "pet")


def test_an_ancestor_restricts_the_super_classes(folder):
    assert set(read_breeds("level3", folder).values()) == {"big cat", "dog, hound"}
    assert read_breeds("cats", folder) == {"c1": "big cat", "c2": "big cat"}


def test_as_a_label_map_of_the_classes_that_are_kept(folder):
    spec = f"breeds:level3:{folder}"
    kept = kept_classes(spec, CLASSES)
    assert kept == tuple(name for name in CLASSES if name in read_breeds("level3", folder))
    (found,) = parse_label_maps((spec,), kept)
    assert (found.name, found.classes) == (spec, 2)
    assert len({found.merged[kept.index(name)] for name in ("c1", "c2")}) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / FILES[1]).unlink(), "no file .*class_hierarchy.txt; a hierarchy of BREEDS has"),
        (lambda root: (root / FILES[0]).write_text("{"), "dataset_class_info.json is no JSON list"),
        (lambda root: (root / FILES[0]).write_text("[1]"), "dataset_class_info.json is no JSON list"),
        (lambda root: (root / FILES[1]).write_text("a b\nc\n"), "line 2 is not a parent and a child"),
        (lambda root: (root / FILES[1]).write_text("a b\n"), f"has no root {ROOT}"),
        (lambda root: (root / FILES[2]).write_bytes(b"\xff"), "node_names.txt is not text in UTF-8"),
        (lambda root: (root / FILES[1]).write_text(EDGES.strip() + "\nd1 animal\n"), "has a node below itself"),
    ],
)
def test_files_of_another_kind_are_named_in_one_line(folder, change, message):
    change(folder)
    with pytest.raises(UserError, match=message) as error:
        read_breeds("level2", folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("breeds:level3", "lacks a part"),
        ("breeds:entity99:{}", "task 'entity99' of BREEDS is unknown; it is one of level2"),
        ("breeds:cats:{}", "the task lacks class 'c3'; set data.classes to breeds:cats:"),
    ],
)
def test_label_maps_that_do_not_fit_say_what_to_do(folder, spec, message):
    with pytest.raises(UserError, match=message):
        parse_label_maps((spec.format(folder),), CLASSES)


def test_classes_to_keep_come_from_a_file_too(tmp_path):
    file = tmp_path / "kept.csv"
    file.write_text("class,super_class\nb,x\na,y\n")
    assert kept_classes(f"file:{file}", ("a", "b", "c")) == ("a", "b")
    assert kept_classes("", ("a", "b", "c")) == ("a", "b", "c")
    for spec, message in ((f"file:{file}", "names class 'b', which the data lack"), ("mod:5", "must be file:PATH or")):
        with pytest.raises(UserError, match=message):
            kept_classes(spec, ("a", "c"))
