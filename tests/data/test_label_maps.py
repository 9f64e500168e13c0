# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncjax.data.label_maps import LABEL_MAPS, LabelMap, parse_label_maps
from ncjax.errors import UserError

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FINE = np.repeat(np.arange(10, dtype=np.int32), 21)


def one(spec, names=CIFAR10):
    (found,) = parse_label_maps((spec,), names)
    return found


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("fine", (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)),
        ("mod:5", (0, 1, 2, 3, 4, 0, 1, 2, 3, 4)),
        ("mod:3", (0, 1, 2, 0, 1, 2, 0, 1, 2, 0)),
        ("adjacent:5", (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)),
        ("semantic", (0, 1, 2, 3, 4, 3, 2, 4, 0, 1)),
    ],
)
def test_merging_maps(spec, expected):
    found = one(spec)
    assert found.super_class == expected
    assert found.classes == max(expected) + 1
    np.testing.assert_array_equal(found.targets(FINE, "train"), np.array(expected)[FINE])


def test_pairings_are_all_945():
    maps = parse_label_maps(("pairings",), CIFAR10)
    assert len({m.super_class for m in maps}) == len({m.name for m in maps}) == 945
    for label_map in maps:
        assert sorted(label_map.super_class) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert one("mod:5").super_class in {m.super_class for m in maps}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 5, 10]))
def test_random_groups_are_equal_and_follow_the_seed(seed, groups):
    found = one(f"random:{groups}:{seed}")
    assert np.bincount(found.super_class).tolist() == [10 // groups] * groups
    assert found == one(f"random:{groups}:{seed}")


def test_random_groups_differ_between_seeds():
    assert len({one(f"random:5:{seed}").super_class for seed in range(20)}) > 15


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_splits_are_balanced_and_follow_the_seed(seed, parts):
    found = one(f"split:{parts}:{seed}")
    targets = found.targets(FINE, "train")
    assert found.super_class is None
    assert found.classes == 10 * parts
    np.testing.assert_array_equal(targets // parts, FINE)
    counts = np.bincount(targets, minlength=10 * parts)
    assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(targets, found.targets(FINE, "train"))
    assert (targets != one(f"split:{parts}:{seed + 1}").targets(FINE, "train")).any()


def test_shuffled_keeps_the_counts_and_forgets_the_images():
    found = one("shuffled:mod:5:7")
    targets = found.targets(FINE, "train")
    assert np.bincount(targets).tolist() == np.bincount(FINE % 5).tolist()
    assert 0.1 < (targets == FINE % 5).mean() < 0.35
    assert (found.targets(FINE, "test") != targets).any()


@pytest.mark.parametrize(
    "content", [[0, 0, 1, 1, 2, 2, 3, 3, 0, 0], dict.fromkeys(CIFAR10[:4], "a") | dict.fromkeys(CIFAR10[4:], "b")]
)
def test_map_from_file(tmp_path, content):
    path = tmp_path / "map.json"
    path.write_text(json.dumps(content))
    expected = tuple(content) if isinstance(content, list) else (0,) * 4 + (1,) * 6
    assert one(f"file:{path}").super_class == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[0, 1]", "list of 10 coarse labels"),
        ("[0, 0, 0, 0, 0, 2, 2, 2, 2, 2]", "none left out"),
        ("[0, 0, 0, 0, 0, 1, 1, 1, 1, true]", "whole numbers"),
        ("[0, 0, 0, 0, 0, 1, 1, 1, 1, [1]]", "whole numbers"),
        ('{"cat": "x"}', "class 'airplane' is missing"),
        ("{", "not JSON"),
        ("3", "list of 10"),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    path = tmp_path / "map.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        one(f"file:{path}")
    assert "map.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mod5", "unknown label map 'mod5'"),
        ("mod:0", "must be from 1 to 10"),
        ("mod:11", "must be from 1 to 10"),
        ("mod:x", "not a whole number"),
        ("adjacent:3", "do not divide into 3"),
        ("random:5", "lacks a part"),
        ("random:4:0", "do not divide into 4"),
        ("split:1:0", "must be from 2"),
        ("shuffled:split:2:0:0", "can only shuffle"),
        ("file:/nowhere.json", "cannot be read"),
        ("shuffled:pairings:0", "stands for 945 label maps"),
        ("mod", "unknown label map 'mod'"),
        ("fine:3", "unknown label map 'fine:3'"),
        ("", "unknown label map"),
    ],
)
def test_bad_specs_are_refused_in_one_line(spec, message):
    with pytest.raises(UserError, match=message) as error:
        one(spec)
    assert "\n" not in str(error.value)


def test_maps_that_do_not_fit_the_classes_are_refused():
    with pytest.raises(UserError, match="semantic is for CIFAR-10"):
        one("semantic", tuple("abcdefghij"))
    with pytest.raises(UserError, match="even number"):
        parse_label_maps(("pairings",), tuple("abc"))
    with pytest.raises(UserError, match="occurs twice in labels"):
        parse_label_maps(("fine", "fine"), CIFAR10)


def test_parse_gives_the_one_label_map_of_a_spec():
    assert LabelMap.parse("mod:5", CIFAR10) == one("mod:5")
    with pytest.raises(UserError, match="'pairings' stands for 945 label maps, but must be one"):
        LabelMap.parse("pairings", CIFAR10)


@pytest.mark.parametrize("labels", [[0, 1, 0, 2], (0, 1, 0, 2), np.array([0, 1, 0, 2])])
def test_merge_takes_the_coarse_label_of_each_class(labels):
    found = LabelMap.merge(labels)
    assert found.super_class == found.merged == (0, 1, 0, 2)
    assert (found.classes, found.name) == (3, "merge:0-1-0-2")
    assert LabelMap.merge(labels, "mine").name == "mine"
    np.testing.assert_array_equal(found.targets(np.array([3, 2, 1], np.int32), "test"), [2, 0, 1])


@pytest.mark.parametrize("labels", [[], [1, 1], [0, 2], [-1, 0], [0, 1.0], [False, True], ["0"], [[0]]])
def test_merge_refuses_what_is_not_labels(labels):
    with pytest.raises(UserError, match="with none left out"):
        LabelMap.merge(labels)


def test_from_json_is_the_spec_file(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps([0, 0, 1]))
    found = LabelMap.from_json(path, ("a", "b", "c"))
    assert found == one(f"file:{path}", ("a", "b", "c"))
    assert found.super_class == (0, 0, 1)


def test_an_unknown_label_map_is_answered_with_the_table():
    with pytest.raises(UserError) as error:
        one("modulo:5")
    for form in LABEL_MAPS:
        assert form in str(error.value)
