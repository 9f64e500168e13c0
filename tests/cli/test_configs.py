# SPDX-License-Identifier: Apache-2.0
"""Configs by path and by name, overrides on top of them, and flags in errors about their fields."""

import dataclasses
from pathlib import Path

import pytest

from ncjax.cli.configs import (
    READ_BY,
    Start,
    check_applies,
    config_and_workdir,
    find_config,
    known_names,
    naming_flags,
    shipped_configs,
    start,
    start_of,
    tables,
)
from ncjax.cli.parsing import flags_of
from ncjax.config import Config, LossConfig, OptimConfig, load_config
from ncjax.errors import UserError
from ncjax.theory.config import TheoryConfig

CONFIGS = Path(__file__).parents[2] / "configs"


def test_loss_and_optimizer_are_chosen_by_options():
    options = ["digits_demo", "--loss.name", "squared_error", "--loss.true-value", "2", "--optim.name", "adamw"]
    config, _ = config_and_workdir(start("train", [*options, "--optim.beta2", "0.9"]))
    assert config.loss == LossConfig(name="squared_error", true_value=2.0)
    assert (config.optim.name, config.optim.beta2) == ("adamw", 0.9)


def test_every_shipped_config_is_found_by_its_name():
    names = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem != "__init__")
    assert list(shipped_configs()) == names
    assert all(find_config(name).samefile(CONFIGS / f"{name}.py") for name in names)


def test_a_file_goes_before_a_shipped_config_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits_demo").write_text("from ncjax.config import Config\ndef get_config(): return Config(seeds=9)")
    assert find_config("digits_demo") == Path("digits_demo")


def test_name_and_path_lead_to_the_same_config():
    path = CONFIGS / "digits_demo.py"
    by_name, by_path = (start("train", [str(where), "--seeds", "3"]) for where in ("digits_demo", path))
    assert by_name.config == by_path.config == load_config(path)
    assert by_name.verb == "train digits_demo"
    assert by_name.rest == ["--seeds", "3"]


def test_overrides_change_the_values_of_the_file():
    config, workdir = config_and_workdir(start("train", ["digits_demo", "--seeds", "3", "--optim.lr", "0.5"]))
    written = load_config(CONFIGS / "digits_demo.py")
    assert (config.seeds, config.optim.lr) == (3, (0.5,))
    assert (config.labels, config.optim.epochs, config.model) == (written.labels, written.optim.epochs, written.model)
    assert workdir == Path("runs/digits_demo")
    assert config_and_workdir(start("train", ["digits_demo", "--workdir", "there"]))[1] == Path("there")


def test_options_alone_are_those_of_the_default_config():
    config, _ = config_and_workdir(start("train", ["--seeds", "2"]))
    assert config == Config(seeds=2)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ([], Config, "ncjax train needs a config file or the name of a shipped config: ncjax train coarse_cifar10_cpu"),
        (
            ["nowhere"],
            Config,
            "no config file at nowhere, and no shipped config of this name; shipped are: cifar10_two_cores, coarse_",
        ),
        (
            ["coarse_cifar"],
            Config,
            "of this name (did you mean coarse_cifar10?); shipped are: cifar10_two_cores",
        ),
        (["theory_frozen"], Config, "get_config() returns TheoryConfig, not ncjax.config.Config"),
        (["digits_demo"], TheoryConfig, "get_config() returns Config, not ncjax.theory.config.TheoryConfig"),
    ],
)
def test_what_is_no_config_is_refused(arguments, kind, message):
    with pytest.raises(UserError) as refusal:
        start_of(kind, "train", arguments, "coarse_cifar10_cpu")
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("optim.batch is 5000, but digits has 1433 training images", "--optim.batch"),
        ("seeds is 0, but must be from 1 to 9.", "--seeds"),
        ("evaluate.epochs is (3,), but must be from 0 to optim.epochs = 2", "--evaluate.epochs or --optim.epochs"),
    ],
)
def test_errors_about_fields_name_their_options(text, flags):
    with pytest.raises(UserError) as refusal, naming_flags(Config):
        raise UserError(text)
    assert str(refusal.value) == f"{text.rstrip('.')}; change it in the config file or with {flags}"


@pytest.mark.parametrize("text", ["run/config.json is missing", "optim.batch is 0; set --optim.batch", "no seeds here"])
def test_other_errors_stay_as_they_are(text):
    with pytest.raises(UserError) as refusal, naming_flags(Config):
        raise UserError(text)
    assert str(refusal.value) == text


def test_help_of_configs_lists_the_names_in_the_tables(capsys):
    with pytest.raises(SystemExit):
        config_and_workdir(start("train", ["digits_demo", "--help"]))
    printed = capsys.readouterr().out
    assert printed.endswith(known_names() + "\n")
    lines = {line.split()[0]: line for line in known_names().splitlines()[1:]}
    assert "cnn, mlp" in lines["--model.name"]
    assert "cifar10" in lines["--data.source"]
    assert "one_cycle" in lines["--optim.schedule"]
    assert "residual_pca" in lines["--evaluate.variants"]
    assert "mod" in lines["--labels"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data.path here", "--data.path does not apply: data.source digits reads no files"),
        ("--data.tfds-name mnist", "--data.tfds-name does not apply: data.source digits does not read it, but tfds"),
        (
            "--model.dense-blocks 2 2",
            "--model.dense-blocks does not apply: model.name cnn does not read it, but de",
        ),
        ("--loss.true-value 2", "--loss.true-value does not apply: loss.name cross_entropy does not read it, but squ"),
        ("--loss.name squared_error --loss.label-smoothing=0.1", "--loss.label-smoothing does not apply: loss.name sq"),
        ("--optim.beta1 0.5", "--optim.beta1 does not apply: optim.name sgd does not read it, but adamw"),
        ("--optim.name adamw --optim.no-nesterov", "--optim.nesterov does not apply: optim.name adamw"),
        ("--optim.name adamw --optim.momentum 0", "--optim.momentum does not apply: optim.name adamw"),
    ],
)
def test_options_that_nothing_reads_are_refused(options, message):
    with pytest.raises(UserError) as refusal:
        config_and_workdir(start("train", ["digits_demo", *options.split()]))
    assert str(refusal.value).startswith(message)


def test_the_demo_takes_no_path():
    with pytest.raises(UserError, match=r"^--data\.path does not apply: data\.source digits reads no files"):
        config_and_workdir(Start("demo", load_config(find_config("digits_demo")), ["--data.path", "here"]))


def test_options_that_are_read_are_taken():
    options = ["--data.source", "tfds", "--data.tfds-name", "mnist", "--data.path", "a", "--optim.no-nesterov"]
    config, _ = config_and_workdir(start("train", ["digits_demo", *options]))
    assert (config.data.tfds_name, config.data.path, config.optim.nesterov) == ("mnist", "a", False)


def test_names_of_others_read_any_option():
    options = ["--optim.name", "lion", "--optim.beta1", "0.5", "--data.source", "theirs", "--data.path", "a"]
    assert config_and_workdir(start("train", ["digits_demo", *options]))[0].optim.beta1 == 0.5


def test_what_a_config_file_sets_is_not_refused():
    """Its fields may be meant for another choice."""
    config = dataclasses.replace(load_config(find_config("digits_demo")), optim=OptimConfig(name="adamw", momentum=0.5))
    check_applies(config, {"--optim.lr"})


@pytest.mark.parametrize("field", READ_BY)
def test_what_reads_an_option_is_in_the_tables(field):
    chooser, readers = READ_BY[field]
    assert f"--{field.replace('_', '-')}" in flags_of(Config)
    assert set(readers) < set(tables()[chooser][0])
