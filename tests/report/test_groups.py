# SPDX-License-Identifier: Apache-2.0
"""Rows gathered over seeds, and how numbers are written."""

import math
import statistics

import pytest

from ncjax.report.groups import (
    Group,
    Quantity,
    Setting,
    Spread,
    group_rows,
    labels_of,
    last_epochs,
    number,
    percent,
    score,
    significant,
    summarise,
    views_of,
)
from ncjax.results import Row
from tests.report.rows import VIEWS, changed, clp, make_evaluation, make_row, measure

NC1 = Quantity("nc1", "train", "coarse")


def test_groups_gather_seeds_and_keep_settings_apart() -> None:
    rows = [make_row(lr=lr, seed=seed) for lr in (0.1, 0.01) for seed in (0, 1)]
    rows += [make_row("random_init", lr=lr, epoch=0) for lr in (0.1, 0.01)]
    groups = group_rows(rows)
    assert [(group.kind, len(group.rows)) for group in groups] == [("trained", 2), ("trained", 2), ("random_init", 1)]
    assert labels_of(groups) == ("mod:5, lr 0.1, wd 0.0005", "mod:5, lr 0.01, wd 0.0005", "random initialisation")


def test_layers_are_groups_of_their_own() -> None:
    groups = group_rows([make_row(layer=layer, seed=seed) for layer in ("a", "b") for seed in (0, 1)])
    assert labels_of(groups) == ("mod:5, layer a", "mod:5, layer b")
    assert [group.layer for group in last_epochs(groups)] == ["a", "b"]


def test_labels_of_single_members_are_their_names() -> None:
    groups = group_rows(
        [make_row(seed=3), make_row("fine", label_map="fine", seed=0), make_row("fine", label_map="fine", seed=1)]
    )
    assert labels_of(groups) == ("mod:5/lr=0.1/wd=0.0005/seed=3", "fine")
    assert labels_of(groups, members=False) == ("mod:5", "fine")


def test_controls_of_several_label_maps_are_told_apart() -> None:
    groups = group_rows([make_row("random_init", label_map=name, epoch=0) for name in ("mod:5", "mod:2")])
    assert labels_of(groups) == ("mod:5", "mod:2")


@pytest.mark.parametrize(("rates", "decays", "seeds", "maps"), [
    (1, 1, 1, 1), (3, 3, 2, 1), (2, 1, 5, 1), (1, 4, 3, 2), (3, 3, 2, 3), (9, 1, 1, 1), (1, 9, 1, 2), (2, 2, 2, 2),
    (5, 1, 4, 1), (1, 1, 7, 3),
])  # fmt: skip
def test_random_initialisations_of_a_seed_count_once(rates: int, decays: int, seeds: int, maps: int) -> None:
    """A grid starts as many networks as it has seeds, so these are all that a spread is over."""
    rows = [
        make_row(
            kind,
            lr=float(lr),
            weight_decay=float(decay),
            seed=seed,
            label_map=f"mod:{c}",
            super_class=(c,),
            accuracy=0.1 * seed,
        )
        for kind in ("trained", "random_init")
        for c in range(maps)
        for lr in range(rates)
        for decay in range(decays)
        for seed in range(seeds)
    ]
    groups = group_rows(rows)
    expected = statistics.stdev(0.1 * seed for seed in range(seeds)) if seeds > 1 else None
    started = [group for group in groups if group.kind == "random_init"]
    assert len(started) == maps
    assert len([group for group in groups if group.kind == "trained"]) == rates * decays * maps
    for group in groups:
        assert len(group.rows) == seeds
        assert group.spread(clp()).std == (None if expected is None else pytest.approx(expected))


def test_a_network_measured_under_several_label_maps_is_a_line_of_each() -> None:
    maps = {"mod:5": (0, 1, 0), "mod:2": (0, 1, 1)}
    rows = [make_row("trained", label_map=name, super_class=owner) for name, owner in maps.items()]
    rows += [
        make_row("fine", label_map="fine", seed=seed, super_class=owner) for owner in maps.values() for seed in (0, 1)
    ]
    groups = group_rows(rows)
    assert [len(group.rows) for group in groups] == [1, 1, 2, 2]
    assert labels_of(groups)[2:] == ("fine, under mod:5", "fine, under mod:2")


def test_features_from_elsewhere_have_their_own_name() -> None:
    groups = group_rows([Row(name="a.npz", kind="features"), Row(name="b.npz", kind="features")])
    assert labels_of(groups) == ("a.npz", "b.npz")


def test_last_epochs_keeps_the_latest_of_each_setting() -> None:
    groups = group_rows([make_row(epoch=epoch) for epoch in (20, 5, 10)])
    assert [group.epoch for group in last_epochs(groups)] == [20]


def test_group_values_skip_what_is_no_finite_number() -> None:
    ari = Quantity("cluster_ari", "train", view="raw")
    rows = tuple(
        Row(name="x", kind="trained", measurements=measure(values))
        for values in ({ari: 0.25}, {ari: None}, {}, {ari: math.inf}, {ari: math.nan})
    )
    group = Group(Setting("trained", "mod:5", None, None, "features", ()), None, rows)
    assert group.values(ari) == (0.25,)
    assert group.mean(ari) == 0.25
    assert group.mean(Quantity("cluster_ari", "train", view="tsne")) is None


def test_spread_is_over_seeds_else_over_resamples() -> None:
    rows = [changed(make_row(seed=seed), {NC1: value}, {NC1: 9.0}) for seed, value in enumerate((1.0, 3.0))]
    (group,) = group_rows(rows)
    assert group.spread(NC1) == Spread(2.0, pytest.approx(math.sqrt(2)), "seeds", 2)
    (group,) = group_rows(rows[:1])
    assert group.spread(NC1) == Spread(1.0, 9.0, "resamples", 1)
    assert group.spread(clp()) == Spread(0.8, None, "", 1)
    assert group.spread(Quantity("nc9")) == Spread(None, None, "", 0)


def test_one_network_left_of_several_has_no_spread() -> None:
    rows = [changed(make_row(seed=seed), {NC1: value}, {NC1: 9.0}) for seed, value in enumerate((1.0, None))]
    (group,) = group_rows(rows)
    assert group.spread(NC1) == Spread(1.0, None, "", 1)


def test_summary_of_an_evaluation_holds_every_number_of_every_setting() -> None:
    rows = [make_row(seed=0, accuracy=0.7), make_row(seed=1, accuracy=0.9), make_row("fine", label_map="fine")]
    trained, fine = summarise(make_evaluation(rows))
    assert (trained.group.label_map, fine.group.label_map) == ("mod:5", "fine")
    assert trained.spreads[clp()] == Spread(pytest.approx(0.8), pytest.approx(math.sqrt(0.02)), "seeds", 2)
    assert fine.spreads[clp()].over == ""
    assert len(trained.spreads) == len(rows[0].measurements) == len(fine.spreads)


def test_views_are_those_with_a_number_known_ones_first() -> None:
    row = changed(make_row(), {clp("zeta"): 0.1, clp("alpha"): 0.2, clp("tsne"): None})
    assert views_of(group_rows([row]), VIEWS) == {"raw": "raw features", "alpha": "alpha", "zeta": "zeta"}


def test_formats() -> None:
    assert percent([]) == number([]) == score([]) == "–"
    assert percent([0.8444]) == "84.4"
    assert percent([0.5, 0.7]) == "60.0 ± 14.1"
    assert number([0.0012345]) == "0.00123"
    assert number([1.0, 3.0]) == "2 ± 1.4"
    assert score([0.25, 0.75]) == "0.500 ± 0.354"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (441.2, 3, "441"),
        (12.3, 1, "10"),
        (1234.5, 3, "1230"),
        (0.0, 3, "0"),
        (-0.00125, 2, "-0.0013"),
        (2.2e-5, 1, "0.00002"),
        (3e-9, 2, "3e-09"),
        (2.5e12, 3, "2.5e+12"),
    ],
)
def test_numbers_have_an_exponent_only_where_they_are_tiny_or_huge(value: float, digits: int, text: str) -> None:
    assert significant(value, digits) == text


def test_a_large_number_and_its_spread_are_written_alike() -> None:
    assert number((441.0, 455.0)) == "448 ± 9.9"
    assert number((44100.0, 45500.0)) == "44800 ± 990"
