# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncjax.config import EvaluateConfig
from ncjax.data.label_maps import parse_label_maps
from ncjax.errors import UserError
from ncjax.training.members import Member, default_label_map, list_members

(FINE,) = parse_label_maps(("fine",), ("a", "b"))


def name_of(lr, weight_decay=5e-4, seed=0, label_map=FINE):
    return Member(seed=seed, lr=lr, weight_decay=weight_decay, label_map=label_map).name


@pytest.mark.parametrize(
    ("lr", "text"),
    [
        (0.1, "0.1"),
        (5e-4, "5e-4"),
        (5e-05, "5e-5"),
        (0.05, "0.05"),
        (0.001, "1e-3"),
        (0.0, "0.0"),
        (1.0, "1.0"),
        (1e30, "1e30"),
        (1234.5, "1234.5"),
        (1.25e-7, "1.25e-7"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_numbers_in_names_are_the_shorter_form(lr, text):
    assert name_of(lr) == f"fine/lr={text}/wd=5e-4/seed=0"


@given(st.floats(min_value=0, allow_infinity=False), st.floats(min_value=0, allow_infinity=False))
def test_names_are_exact(lr, weight_decay):
    parts = dict(part.split("=") for part in name_of(lr, weight_decay).split("/")[1:])
    assert (float(parts["lr"]), float(parts["wd"])) == (lr, weight_decay)


def test_members_of_a_run_have_different_names(config, dataset):
    optim = dataclasses.replace(config.optim, lr=(0.1, 0.01), weight_decay=(0.0, 5e-4))
    members = list_members(dataclasses.replace(config, optim=optim, labels=("mod:5", "split:2:0"), seeds=2), dataset)
    names = [member.name for member in members]
    assert len(set(names)) == len(names) == 16
    assert names[:2] == ["mod:5/lr=0.1/wd=0.0/seed=0", "mod:5/lr=0.1/wd=0.0/seed=1"]
    assert names[-1] == "split:2:0/lr=0.01/wd=5e-4/seed=1"


def test_default_label_map_merges_classes(config, dataset):
    assert default_label_map(config, dataset.class_names).super_class == tuple(i % 5 for i in range(10))
    split = dataclasses.replace(config, evaluate=EvaluateConfig(labels="split:2:0"))
    with pytest.raises(UserError, match=r"^evaluate\.labels is split:2:0, but must merge classes, such as mod:5$"):
        default_label_map(split, dataset.class_names)


def test_seeds_follow_the_first_one(config, dataset):
    first = list_members(dataclasses.replace(config, seeds=4), dataset)
    later = list_members(dataclasses.replace(config, seeds=2, seed=2), dataset)
    assert later == first[2:]
