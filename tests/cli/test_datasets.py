# SPDX-License-Identifier: Apache-2.0
"""`ncjax data` and `ncjax data fetch`, and the main experiment in two commands from an empty folder."""

import sys
from pathlib import Path

import pytest

from ncjax.cli.configs import config_and_workdir, start
from ncjax.cli.main import main
from ncjax.data import SOURCES, load_dataset
from ncjax.data import fetch as module
from ncjax.storage.metrics import read_records
from tests.archives import answers, archives, downloads_of
from tests.runs import messages
from tests.server import serving

QUICK = ["--model.name", "mlp", "--model.width", 4, "--optim.epochs", 1, "--optim.batch", 10, "--evaluate.epochs", 1]


def ncjax(*arguments):
    sys.argv = ["ncjax", *map(str, arguments)]
    main()


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """With a cache folder of its own, and a server for all downloads."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = archives()
    with serving(answers(files)) as server:
        monkeypatch.setattr(module, "DOWNLOADS", downloads_of(server.address, files))
        yield


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        ncjax(*arguments)
    assert stop.value.code == 2
    (line,) = messages(capsys.readouterr().err)
    return line


def test_the_main_experiment_is_two_commands(capsys, tmp_path):
    line = refused(capsys, "train", "coarse_cifar10", *QUICK)
    assert "get it with: ncjax data fetch cifar10" in line
    assert list(Path().iterdir()) == []
    ncjax("data", "fetch", "cifar10")
    printed = capsys.readouterr().out.splitlines()
    folder = tmp_path / "cache" / "ncjax" / "data" / "cifar10"
    assert printed == [
        f"{folder}: 20 training and 20 test images, 10 classes",
        "use it with: --data.source cifar10",
    ]
    ncjax("train", "coarse_cifar10", *QUICK)
    (record,) = read_records(Path("runs/coarse_cifar10/metrics.jsonl"))
    assert record.step == 2


def test_the_list_says_what_is_there_and_what_each_source_needs(capsys, tmp_path):
    ncjax("data")
    before = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[2:]}
    assert set(before) == set(SOURCES)
    assert "Needs nothing." in before["digits"]
    assert "Needs the npz file with x_train" in before["npz"]
    assert before["cifar10"].endswith("It is not here yet.")
    assert "Prepared" not in before["tfds"]
    ncjax("data", "fetch", "cifar10")
    (tmp_path / "tfds" / "animals" / "1.0.0").mkdir(parents=True)
    (tmp_path / "tfds" / "animals" / "1.0.0" / "dataset_info.json").write_text("{}")
    capsys.readouterr()
    ncjax("data")
    after = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[2:]}
    assert after["cifar10"].endswith(f"It is in {tmp_path}/cache/ncjax/data/cifar10.")
    assert after["fashion_mnist"].endswith("It is not here yet.")
    assert after["tfds"].endswith("Prepared: animals/1.0.0.")


def test_every_source_says_what_it_is():
    assert all(source.summary for source in SOURCES.values())


def test_another_cache_folder(capsys):
    ncjax("data", "fetch", "fashion_mnist", "--cache-dir", "there")
    options = capsys.readouterr().out.splitlines()[-1].removeprefix("use it with: ").split()
    assert options == ["--data.source", "fashion_mnist", "--data.cache-dir", "there"]
    config, _ = config_and_workdir(start("train", ["digits_demo", *options]))
    assert load_dataset(config.data).name == "fashion_mnist"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fetch", "cifar_10"), "unknown data set 'cifar_10' (did you mean cifar10?); known: cifar10, cifar100, fash"),
        (("fetch",), "ncjax data fetch needs NAME; see: ncjax data fetch --help"),
        (("fetch", "tfds:"), "tfds: needs the name of a set, such as tfds:mnist"),
        (("fetch", "cifar10", "--data-dir", "x"), "--data-dir does not apply to cifar10"),
        (("fetch", "tfds:mnist", "--cache-dir", "x"), "--cache-dir does not apply to tfds:mnist"),
        (("fetsch", "cifar10"), "unknown verb 'fetsch' (did you mean fetch?); known: fetch"),
    ],
)
def test_bad_commands_are_one_line(capsys, arguments, message):
    assert message in refused(capsys, "data", *arguments)
