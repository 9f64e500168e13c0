# SPDX-License-Identifier: Apache-2.0
"""Which label maps have controls, and which networks are measured under which of them."""

import numpy as np
import pytest

from ncjax.config import Config, EvaluateConfig, ModelConfig, OptimConfig
from ncjax.data import Dataset
from ncjax.evaluation.controls import distinct_maps, initial_parts, maps_left_out, trained_parts
from ncjax.features.feature_set import Heads, SplitFeatures
from ncjax.features.store import describe_members, label_features
from ncjax.pipeline import evaluate_run, train

NINE = (
    "mod:3",
    "mod:2",
    "adjacent:3",
    "random:3:0",
    "random:3:1",
    "random:3:2",
    "random:3:3",
    "random:3:4",
    "random:3:5",
)


def make_dataset(classes, each=6):
    labels = np.arange(classes * each) % classes
    noise = np.random.default_rng(0).integers(0, 60, (labels.size, 4, 4))
    images = (noise + 190 * labels[:, None, None] // max(classes - 1, 1)).astype(np.uint8)
    return Dataset.from_arrays(images, labels, images, labels)


def described(labels, classes, seeds=1, lr=(0.1,), default=""):
    config = Config(
        labels=labels, seeds=seeds, optim=OptimConfig(lr=lr, batch=4), evaluate=EvaluateConfig(labels=default)
    )
    return describe_members(config, make_dataset(classes), from_memory=True)


def features_of(run, classes, epoch):
    """Features of members that are told apart by their first number."""
    count = len(run.members)
    labels = np.arange(2 * classes, dtype=np.int32) % classes
    rows = np.arange(count, dtype=np.float32)[:, None, None] * np.ones((1, labels.size, 3), np.float32)
    split = SplitFeatures(layers={"features": rows}, labels=labels)
    heads = Heads(np.zeros((count, 3, classes), np.float32), np.zeros((count, classes), np.float32))
    return label_features(run, Config().mesh, epoch, split, split, heads)


def mod(classes, count):
    return tuple(label % count for label in range(classes))


@pytest.mark.parametrize(("labels", "classes", "default", "names"), [
    (("mod:5",), 10, "", ["mod:5"]),
    (("fine",), 10, "", ["mod:5"]),
    (("fine",), 5, "", ["mod:2"]),
    (("fine",), 3, "", ["mod:2"]),
    (("fine",), 2, "", [None]),
    (("mod:2", "fine"), 4, "", ["mod:2"]),
    (("mod:2", "mod:4"), 4, "", ["mod:2"]),
    (("mod:5", "mod:2", "fine"), 10, "", ["mod:5", "mod:2"]),
    (("fine", "shuffled:mod:2:0"), 10, "mod:5", ["mod:2", "mod:5"]),
    (("fine", "shuffled:mod:2:0", "split:2:0"), 4, "", ["mod:2"]),
    (("mod:5", "shuffled:mod:5:0"), 10, "mod:5", ["mod:5"]),
    (("mod:2", "adjacent:1"), 2, "", ["adjacent:1"]),
    (("mod:3", "adjacent:2", "random:3:7"), 6, "mod:2", ["mod:3", "adjacent:2", "random:3:7", "mod:2"]),
])  # fmt: skip
def test_label_maps_that_merge_are_there_once_each(labels, classes, default, names):
    found = distinct_maps(described(labels, classes, seeds=2, default=default))
    assert [one and one.name for one in found] == names


def test_label_maps_that_merge_alike_are_one(tmp_path):
    (tmp_path / "map.json").write_text("[0, 1, 0, 1, 0, 1]")
    run = described(("mod:2", f"file:{tmp_path}/map.json", "mod:3"), 6)
    assert [one.name for one in distinct_maps(run)] == ["mod:2", "mod:3"]


@pytest.mark.parametrize(("labels", "classes"), [
    (("mod:2", "fine"), 4),
    (("mod:3", "mod:2", "fine"), 6),
    (("mod:3", "mod:2", "split:2:0"), 6),
    (("mod:3", "mod:2", "shuffled:mod:2:0"), 6),
    (("mod:3", "mod:2", "shuffled:mod:3:0", "shuffled:mod:3:1"), 6),
    (("fine", "shuffled:mod:2:0"), 6),
    (("fine", "mod:6"), 6),
    (("shuffled:mod:6:0", "mod:3"), 6),
    (("mod:3", "fine", "mod:2", "shuffled:mod:2:0", "split:3:1"), 6),
    (("fine",), 2),
])  # fmt: skip
def test_members_are_measured_under_their_own_label_map_else_under_every_one(labels, classes):
    """The oracle: what a spec says of the fine labels, by its text."""
    run = described(labels, classes, seeds=2)
    maps = distinct_maps(run)
    expected = set()
    for number, name in enumerate(run.members):
        spec = name.split("/")[0].removeprefix("shuffled:")
        count = int(spec.split(":")[1]) if spec.startswith("mod:") else classes
        own = [mod(classes, count)] if count < classes else [one and one.super_class for one in maps]
        expected |= {(number, super_class) for super_class in own}
    found = set()
    for part in trained_parts(features_of(run, classes, 3), maps):
        for place, (number, member) in enumerate(zip(part.members, part.features.members, strict=True)):
            assert part.features.train.layers["features"][place][0, 0] == number
            default = part.features.default_map
            owner = member.label_map.super_class if member.label_map.merges else default and default.super_class
            assert (number, owner) not in found
            found.add((number, owner))
    assert found == expected


@pytest.mark.parametrize(("labels", "lr", "seeds"), [
    (("mod:3",), (0.1,), 1), (("mod:3",), (0.1, 0.2, 0.3), 2), (("mod:3", "mod:2"), (0.1,), 2), (("fine",), (0.1,), 3),
    (("mod:2", "fine", "shuffled:mod:3:0"), (0.1, 0.2), 2), (NINE, (0.1,), 1),
])  # fmt: skip
def test_every_label_map_has_one_random_initialisation_of_each_seed(labels, lr, seeds):
    run = described(labels, 6, seeds=seeds, lr=lr)
    maps = distinct_maps(run)
    parts = initial_parts(features_of(run, 6, 0), maps)
    assert [part.features.members[0].label_map.super_class for part in parts] == [one.super_class for one in maps]
    for part in parts:
        assert [member.seed for member in part.features.members] == list(range(seeds))
        assert [rows[0, 0] for rows in part.features.train.layers["features"]] == list(range(seeds))


def test_label_maps_without_controls_are_named():
    maps = distinct_maps(described(NINE, 6))
    assert maps_left_out(maps, len(maps)) == maps_left_out(maps, 10) == []
    (line,) = maps_left_out(maps, 2)
    left = [one.name for one in maps[2:]]
    assert all(name in line for name in left[:5])
    assert "mod:2" not in line
    assert f"and {len(left) - 5} more" in line


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "labels"), [
    (2, ("fine",)), (3, ("fine",)), (3, ("mod:2", "fine")), (4, ("mod:2", "fine", "shuffled:mod:2:0")), (5, ("fine",)),
])  # fmt: skip
def test_a_run_of_few_classes_is_evaluated_with_its_controls(classes, labels, tmp_path):
    config = Config(
        labels=labels,
        model=ModelConfig(name="mlp", width=4),
        optim=OptimConfig(epochs=1, batch=4),
        evaluate=EvaluateConfig(variants=("raw",), restarts=2),
    )
    dataset = make_dataset(classes)
    run = train(config, dataset, workdir=tmp_path / "run")
    rows = evaluate_run(run, bootstrap=0).rows
    owner = mod(classes, 2) if classes > 2 else mod(classes, classes)
    kinds = ["raw_pixels", "random_init", *sorted({spec.split(":")[0] for spec in labels} - {"mod"})]
    kinds += ["trained"] if "mod:2" in labels else []
    assert sorted((row.kind, row.super_class) for row in rows) == sorted((kind, owner) for kind in kinds)
    measured = {row.kind: row.value("clp", view="raw") is not None for row in rows}
    assert set(measured.values()) == {classes > 2}
