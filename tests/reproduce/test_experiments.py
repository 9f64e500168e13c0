# SPDX-License-Identifier: Apache-2.0
"""The table of experiments: names, what nothing is tuned on, what each costs."""

import pytest

from ncjax.config import to_dict
from ncjax.errors import UserError
from ncjax.models import NETWORKS
from ncjax.reproduce import SCALES, all_experiments, find_experiments
from ncjax.reproduce.experiment import decisive
from ncjax.reproduce.experiments import GPU_MINUTES, changed, recipes
from ncjax.reproduce.plan import total
from ncjax.training.augmentation import find_augmentation
from ncjax.training.schedules import find_schedule
from ncjax.typed_json import differences

ALL = all_experiments()
PIECES = [(one, scale, piece) for one in ALL.values() for scale in SCALES for piece in one.at(scale)]


def of(name, scale):
    return ALL[name].at(scale)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scale", SCALES)
def test_names_are_different_and_members_of_a_setting_are_alike(name, scale):
    pieces = of(name, scale)
    assert len({piece.name for piece in pieces}) == len(pieces)
    for setting in {piece.setting for piece in pieces}:
        alike = [decisive(piece.config) for piece in pieces if piece.setting == setting]
        assert all(one == alike[0] for one in alike)
    kinds = [to_dict(next(p for p in pieces if p.setting == one).config) for one in {p.setting for p in pieces}]
    assert all(one != other for place, one in enumerate(kinds) for other in kinds[:place] if scale != "try")


def test_every_experiment_can_be_tried_on_two_cores():
    for one in ALL.values():
        for piece in one.at("try"):
            assert piece.config.data.train_examples <= 600
            assert piece.config.optim.epochs == 2
            assert piece.minutes <= 2


def test_names_in_configs_are_known():
    for _, _, piece in PIECES:
        assert piece.config.model.name in NETWORKS
        find_schedule(piece.config.optim.schedule)
        find_augmentation(piece.config.data.augment)


def test_recipes_are_compared_on_the_validation_split_and_everything_else_on_the_test_split():
    for one, _, piece in PIECES:
        assert (piece.config.data.validation_fraction > 0) == (one.name == "fine_recipe")


def test_a_recipe_differs_from_the_plain_one_in_one_ingredient():
    found = recipes(of("fine_recipe", "gpu")[0].config)
    plain = to_dict(found.pop("plain"))
    for name, config in found.items():
        fields = {field for field, _, _ in differences(plain, to_dict(config))} - {"optim.lr"}  # it follows the batch
        assert len(fields) == (2 if name == "reflect" else 1), name  # one crop in place of the other


def test_the_headline_of_every_result_is_named_before():
    assert {piece.config.evaluate.headline for _, _, piece in PIECES} == {"normalised"}


def test_one_gpu_piece_is_one_member_so_that_little_is_lost():
    for name in ("coarse_cifar10", "architectures", "grid", "fine_recipe"):
        assert all(piece.members == 1 for piece in of(name, "gpu"))
    first = of("coarse_cifar10", "gpu")[:4]
    assert [(p.config.labels, p.config.seed) for p in first] == [(("mod:5",), 0), (("fine",), 0), (("mod:5",), 1),
                                                                 (("fine",), 1)]  # fmt: skip


def test_two_cores_take_the_hours_that_are_said():
    minutes = {piece.name: piece.minutes for piece in of("coarse_cifar10", "cores")}
    assert 90 < minutes["all"] <= 150
    assert 45 < minutes["subset"] < 90  # it leaves room for the comparison
    assert sum(piece.minutes for piece in of("fashion", "cores")) <= 120
    assert all(sum(piece.minutes for piece in of(name, "cores")) <= 150 for name in ("fine_recipe", "grid"))
    assert sum(piece.minutes for piece in of("ablation", "cores")) <= 240
    assert {piece.config.seeds for piece in of("fashion", "cores")} == {3}
    assert len({piece.config.model.name for piece in of("fashion", "cores")}) == 3


def test_costs_are_written_with_what_they_rest_on():
    assert total(of("coarse_cifar10", "gpu")) == f"12 x {GPU_MINUTES:g} min"
    assert total(of("architectures", "gpu")) == "not known"
    assert total(of("architectures", "cores")) == "–"
    assert total(of("grid", "cores")) == "9 x 12.5 min"
    assert total(of("fine_recipe", "cores")) == "11 x 3.9 min"
    assert total(of("digits", "cores")) == "~2 min"


@pytest.mark.parametrize(("scale", "beside"), [("cores", "subset"), ("gpu", "coarse_0")])
def test_the_ablation_differs_from_the_coarse_experiment_in_what_it_names(scale: str, beside: str):
    base = next(piece.config for piece in of("coarse_cifar10", scale) if piece.name == beside)
    settings: dict[str, set[str]] = {}
    for piece in of("ablation", scale):
        fields = {field for field, _, _ in differences(decisive(base), decisive(piece.config))}
        settings.setdefault(piece.setting, set()).update(fields)
        labels = "fine" if piece.name == f"{piece.setting}_fine" else "mod:5"
        assert piece.config.labels == (labels,) or piece.setting == "pairing"
    crop, reflect = {"data.crop_padding"}, {"data.crop_padding", "data.augment"}
    assert settings == {"pairing": set(), "half_as_long": {"optim.epochs"}} | (
        {"crop_flip": crop | {"data.flip"}, "reflect_flip": {"data.augment", "data.flip"}}
        if scale == "cores"
        else {"no_augmentation": crop | {"data.flip"}, "no_crop": crop, "reflect": reflect}
    )


def test_other_pairings_are_measured_beside_pixels_of_the_same_pairs():
    for scale in ("cores", "gpu"):
        pairings = [piece for piece in of("ablation", scale) if piece.setting == "pairing"]
        assert len({piece.config.labels for piece in pairings}) == len(pairings) == 4
        assert all(piece.controls and piece.config.evaluate.epochs == (0,) for piece in pairings)


def test_experiments_by_name_come_in_order_of_value():
    assert [one.name for one in find_experiments(["digits", "coarse_cifar10"])] == ["coarse_cifar10", "digits"]
    assert [one.name for one in find_experiments(["all"])] == list(ALL)
    with pytest.raises(UserError, match=r"unknown experiment 'coarse'; known: coarse_cifar10, .*, all"):
        find_experiments(["coarse"])


def test_changed_names_the_fields_of_parts():
    config = of("digits", "cores")[0].config
    other = changed(config, optim_epochs=3, seed=4, data_crop_padding=1)
    assert differences(to_dict(config), to_dict(other)) == [
        ("data.crop_padding", 0, 1), ("optim.epochs", 40, 3), ("seed", 0, 4),
    ]  # fmt: skip
