# SPDX-License-Identifier: Apache-2.0
"""Bad inputs by the hundred: one clear line on stderr, exit code 2, no traceback, and a work directory as it was.

The commands run in this process. The default tests try a few inputs of each kind, `-m slow` 200 in all.
"""

import contextlib
import gzip
import io
import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ncjax.cli.main import main

ROOT = Path(__file__).parents[2]
TINY = (
    str(ROOT / "configs" / "digits_demo.py"),
    *("--model.name", "mlp", "--model.width", "4", "--labels", "mod:5", "--seeds", "1", "--optim.lr", "0.05"),
    *("--data.train-examples", "120", "--data.test-examples", "60", "--optim.batch", "40", "--optim.epochs", "2"),
)
NO_LABELS = ("--labels", "file:nowhere.json")  # ends what a sound input would start


class Ended(NamedTuple):
    code: int
    said: str  # on stderr


def ncjax(*arguments: str) -> Ended:
    """A command in this process."""
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["ncjax", *arguments]),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            main()
        except SystemExit as stop:
            return Ended(stop.code if isinstance(stop.code, int) else int(stop.code is not None), said.getvalue())
    return Ended(0, said.getvalue())


def assert_refused(ended: Ended, *named: str) -> None:
    assert ended.code == 2, ended
    lines = [line for line in ended.said.splitlines() if "%|" not in line and line.strip()]  # but for progress bars
    assert len(lines) == 1, ended.said
    assert lines[0].startswith("ncjax: error: "), ended.said
    assert len(lines[0]) < 3000, ended.said
    for name in named:
        assert name in lines[0], ended.said


def files(folder: Path) -> dict[str, bytes]:
    """Content of every file, but for the lock of a run."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "lock" not in path.name
    }


def number_of_inputs(few: int, many: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("inputs", [few, pytest.param(many, marks=pytest.mark.slow)])


def try_all(inputs: int, strategy: st.SearchStrategy, check: Callable[[Any], None]) -> None:
    options = settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    options(given(strategy)(check))()


NOT_A_NUMBER = st.one_of(
    st.sampled_from(["", " ", "x", "1.5.2", "0x10", "--", "-", "1e", "½", "None", "[]", "1,2", "\x00", "नौ "]),
    st.text(st.characters(codec="utf-8", categories=["L", "P", "S"]), min_size=1, max_size=12).filter(
        lambda text: not text.startswith("-") and text.lower() not in ("inf", "infinity", "nan")
    ),
)
NEGATIVE = st.integers(max_value=-1).map(str)
TOO_LARGE = st.integers(min_value=2**31).map(str)
NO_RATE = st.sampled_from(["-1", "nan", "inf", "-inf", "1e400", "-1e-9"])
POSITIVE = ["seeds", "chunk-steps", "model.width", "optim.batch", "optim.epochs", "evaluate.restarts"]
LITERALS = ["model.name", "data.source", "optim.schedule", "optim.precision", "evaluate.variants"]
LABELS = st.one_of(
    st.from_regex(r"(mod|adjacent|random|split|shuffled|file|pairs|semantic):?[-a-z0-9:.]{0,8}", fullmatch=True).filter(
        lambda spec: not spec.startswith(("mod:", "adjacent:", "split:", "random:", "shuffled:mod"))
    ),
    st.sampled_from(
        ["mod:0", "mod:11", "mod:", "mod:-1", "mod:5:1", "adjacent:3", "random:5", "random:3:0", "split:1:0"]
    ),
    st.sampled_from(
        ["split:2", "split:2:-1", "shuffled:split:2:0:0", "shuffled:", "file:", "file:.", "fine:1", "", ":"]
    ),
)
OVERRIDES = st.one_of(
    st.tuples(st.sampled_from(POSITIVE), st.one_of(NOT_A_NUMBER, NEGATIVE, TOO_LARGE, st.just("0"))),
    st.tuples(
        st.sampled_from(["data.train-examples", "data.crop-padding"]), st.one_of(NOT_A_NUMBER, NEGATIVE, TOO_LARGE)
    ),
    st.tuples(st.sampled_from(["mesh.member", "mesh.data"]), st.one_of(NOT_A_NUMBER, NEGATIVE, TOO_LARGE)),
    st.tuples(st.sampled_from(["optim.lr", "optim.weight-decay"]), st.one_of(NOT_A_NUMBER, NO_RATE)),
    st.tuples(st.just("optim.momentum"), st.one_of(NOT_A_NUMBER, NO_RATE, st.just("1"))),
    st.tuples(st.sampled_from(LITERALS), NOT_A_NUMBER),
    st.tuples(st.sampled_from(["labels", "evaluate.labels"]), LABELS),
    st.tuples(st.just("evaluate.epochs"), st.one_of(NOT_A_NUMBER, NEGATIVE, st.just("3"))),
    st.tuples(st.from_regex(r"[a-z]{1,6}(\.[a-z]{1,6})?zz", fullmatch=True), NOT_A_NUMBER),
    st.tuples(st.just("data.path"), NOT_A_NUMBER.map(lambda text: f"{text} --data.source npz")),
)


@number_of_inputs(6, 60)
def test_overrides(tmp_path: Path, inputs: int) -> None:
    def check(override: tuple[str, str]) -> None:
        name, value = override
        more = value.split(" --")[1:]
        workdir = tmp_path / "run"
        ended = ncjax(
            *("train", *TINY, "--workdir", str(workdir), f"--{name}", value.split(" --")[0]),
            *(word for option in more for word in f"--{option}".split()),
        )
        assert_refused(ended)
        assert not workdir.exists()

    try_all(inputs, OVERRIDES, check)


CONFIGS = st.one_of(
    st.text(max_size=80),
    st.sampled_from(
        [
            "",
            "def get_config(): return None",
            "def get_config(): raise KeyError('x\\ny')",
            "def get_config(x): pass",
            "get_config = 3",
            "import nowhere_to_be_found",
            "def get_config(:\n  pass",
            "import sys\nsys.exit(3)",
            "from ncjax.config import Config\ndef get_config(): return Config(name=3)",
            "from ncjax.config import Config\ndef get_config(): return Config(seeds='two')",
            "from ncjax.config import Config\ndef get_config(): return Config(labels='mod:5')",
            "from ncjax.config import Config\ndef get_config(): return Config(labels=(5,))",
            "from ncjax.config import Config\ndef get_config(): return Config(seeds=2.5)",
            "from ncjax.config import Config\ndef get_config(): return Config(sedes=2)",
            "from ncjax.config import Config\ndef get_config(): return Config(optim=None)",
            "from ncjax.config import *\ndef get_config(): return Config(optim=OptimConfig(lr=0.1))",
            "from ncjax.config import *\ndef get_config(): return Config(optim=OptimConfig(lr=('a',)))",
            "from ncjax.config import *\ndef get_config(): return Config(model=ModelConfig(name='resnet19'))",
            "from ncjax.config import *\ndef get_config(): return Config(data=DataConfig(path=None))",
            "from ncjax.theory.config import TheoryConfig\ndef get_config(): return TheoryConfig()",
        ]
    ),
    st.binary(max_size=60),
)


@number_of_inputs(8, 40)
def test_config_files(tmp_path: Path, inputs: int) -> None:
    def check(content: str | bytes) -> None:
        path, workdir = tmp_path / "config.py", tmp_path / "run"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(errors="replace"))
        assert_refused(ncjax("train", str(path), "--workdir", str(workdir), "--optim.epochs", "1"))
        assert not workdir.exists()

    try_all(inputs, CONFIGS, check)


class Damage(NamedTuple):
    """What is done to a file, with a place and a value that are drawn."""

    kind: str
    place: float  # share of the file
    value: int

    def do(self, path: Path) -> None:
        content = bytearray(path.read_bytes())
        at = min(int(self.place * len(content)), len(content) - 1)
        match self.kind:
            case "cut":
                content = content[:at]
            case "flip" if content:
                content[at] ^= 1 << (self.value % 8)
            case "zeros":
                content[at : at + 64] = bytes(len(content[at : at + 64]))
            case "random":
                content = bytearray(np.random.default_rng(self.value).bytes(max(at, 1)))
            case "empty":
                content = bytearray()
            case "gone":
                path.unlink()
                return
        path.write_bytes(content)


DAMAGES = st.builds(
    Damage,
    kind=st.sampled_from(["cut", "flip", "zeros", "random", "empty", "gone"]),
    place=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 2**16),
)


def write_npz(folder: Path, **changed: Any) -> list[Path]:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 40), ("test", 20)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 6, 6), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 10
    arrays |= changed
    np.savez(folder / "data.npz", **{name: value for name, value in arrays.items() if value is not None})
    return [folder / "data.npz"]


def write_idx(folder: Path) -> list[Path]:
    rng, paths = np.random.default_rng(0), []
    for name, count in (("train", 40), ("t10k", 20)):
        images = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (count, 6, 6)) + rng.bytes(count * 36)
        labels = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(i % 10 for i in range(count))
        paths += [folder / f"{name}-images-idx3-ubyte.gz", folder / f"{name}-labels-idx1-ubyte"]
        paths[-2].write_bytes(gzip.compress(images, mtime=0))
        paths[-1].write_bytes(labels)
    return paths


def write_cifar10(folder: Path) -> list[Path]:
    rng, paths = np.random.default_rng(0), [folder / name for name in CIFAR10_FILES]
    for path in paths:
        data = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
        path.write_bytes(pickle.dumps({b"data": data, b"labels": list(range(10))}, protocol=2))
    return paths


CIFAR10_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
WRITERS = {"npz": write_npz, "idx": write_idx, "cifar10": write_cifar10}
WRONG_ARRAYS = [
    {"x_train": None},
    {"y_test": None},
    {"x_train": np.zeros((40, 6, 6), np.float32)},
    {"x_train": np.zeros((40, 6), np.uint8)},
    {"x_train": np.zeros((40, 5, 6), np.uint8)},
    {"x_train": np.zeros((0, 6, 6), np.uint8), "y_train": np.zeros(0, int)},
    {"x_train": np.array([None] * 40, object)},
    {"y_train": np.arange(40) - 1},
    {"y_train": np.arange(40) % 10 + 0.5},
    {"y_train": np.full(40, 2**63 + 5, np.uint64)},
    {"y_train": np.full(40, 2**32, np.int64)},
    {"y_train": np.arange(39) % 10},
    {"y_test": np.zeros(20, int)},
    {"y_test": np.arange(20)},
    {"y_train": np.array(["cat"] * 40)},
    {"class_names": np.array(["a", "b"])},
    {"class_names": np.array([])},
    {"class_names": np.array(["a"] * 10)},
    {"class_names": np.array([None] * 10, object)},
    {"class_names": np.array("abc")},
    {"x_train": np.zeros((40, 0, 6), np.uint8), "x_test": np.zeros((20, 0, 6), np.uint8)},
    {"x_train": np.zeros((40, 6, 6, 0), np.uint8), "x_test": np.zeros((20, 6, 6, 0), np.uint8)},
]


@number_of_inputs(10, 50)
def test_data_files(tmp_path: Path, inputs: int) -> None:
    workdir = tmp_path / "run"

    def check(drawn: tuple[str, int, Damage] | dict[str, Any]) -> None:
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        folder = tmp_path / "data"
        folder.mkdir()
        if isinstance(drawn, dict):
            source, (path,) = "npz", write_npz(folder, **drawn)
        else:
            source, which, damage = drawn
            paths = WRITERS[source](folder)
            path = paths[which % len(paths)]
            damage.do(path)
        named = path if source == "npz" else folder
        arguments = ("--data.source", source, "--data.path", str(named), "--data.cache-dir", str(tmp_path / "cache"))
        rest = ("--data.train-examples", "0", "--data.test-examples", "0", *NO_LABELS, "--workdir", str(workdir))
        ended = ncjax("train", *TINY, *arguments, *rest)
        assert_refused(ended)
        certain = isinstance(drawn, dict) or damage.kind in ("cut", "random", "empty", "gone")
        assert not certain or "nowhere.json" not in ended.said, (drawn, ended.said)
        assert not workdir.exists()

    damaged = st.tuples(st.sampled_from(sorted(WRITERS)), st.integers(0, 7), DAMAGES)
    try_all(inputs, st.one_of(damaged, st.sampled_from(WRONG_ARRAYS)), check)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 12), st.floats(), st.text(max_size=4), st.just(10**40)),
    lambda inner: st.one_of(st.lists(inner, max_size=11), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
    max_leaves=12,
)
LABEL_MAPS = st.one_of(
    JSON.map(json.dumps),
    st.lists(st.sampled_from([0, 1, True, 1.0, -1, 2, None, "0"]), min_size=10, max_size=10)
    .filter(lambda labels: not all(type(label) is int and label >= 0 for label in labels))
    .map(json.dumps),
    st.integers(1, 5).map(lambda deep: "[" * 10**deep),
    st.binary(max_size=40),
    st.fixed_dictionaries({str(i): st.one_of(st.integers(), st.none(), st.lists(st.text())) for i in range(10)}).map(
        json.dumps
    ),
)


@number_of_inputs(8, 30)
def test_label_map_files(tmp_path: Path, inputs: int) -> None:
    def check(content: str | bytes) -> None:
        path, workdir = tmp_path / "map.json", tmp_path / "run"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        ended = ncjax("train", *TINY, "--labels", f"file:{path}", "--workdir", str(workdir))
        assert_refused(ended, str(path))
        assert not workdir.exists()

    try_all(inputs, LABEL_MAPS, check)


REST = ("--evaluate.variants", "raw", "--evaluate.restarts", "1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("fuzz") / "trained"
    for verb in (("train", *TINY, "--workdir", str(workdir), *REST), ("features", str(workdir))):
        assert ncjax(*verb).code == 0
    return workdir


def losses(workdir: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "wall_secs"} for line in lines]


def damaged(
    command: tuple[str, ...], sound: Path, workdir: Path, patterns: tuple[str, ...], same: Callable[[], bool]
) -> Callable[[tuple[int, Damage]], None]:
    """A check that a command on a work directory with one damaged file refuses, or gives what it gave before."""

    def check(drawn: tuple[int, Damage]) -> None:
        which, damage = drawn
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(sound, workdir)
        found = sorted(path for pattern in patterns for path in workdir.glob(pattern) if path.is_file())
        path = found[which % len(found)]
        damage.do(path)
        before = files(workdir)
        ended = ncjax(*command)
        assert "Traceback" not in ended.said, (path, damage, ended.said)
        if ended.code:
            assert_refused(ended)
            assert files(workdir) == before, (path, damage)
        else:
            assert same(), (path, damage)

    return check


DRAWN = st.tuples(st.integers(0, 2**16), DAMAGES)


@number_of_inputs(6, 40)
def test_damaged_features(trained: Path, tmp_path: Path, inputs: int) -> None:
    def same() -> bool:
        names = [f"features/{epoch}.npz" for epoch in (0, 2)]
        return all(
            np.array_equal(a, b) for n in names for a, b in zip(*map(arrays, (run / n, trained / n)), strict=True)
        )

    def arrays(path: Path) -> list[np.ndarray]:
        with np.load(path) as content:
            return [content[name] for name in sorted(content)]

    run = tmp_path / "run"
    patterns = ("features/0/**/*", "features/2/**/*")
    try_all(inputs, DRAWN, damaged(("features", str(run)), trained, run, patterns, same))


@pytest.mark.slow
def test_damaged_checkpoints(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ("train", *TINY, "--workdir", str(run), *REST)
    patterns = ("checkpoints/*/**/*", "config.json")
    try_all(20, DRAWN, damaged(command, trained, run, patterns, lambda: losses(run) == losses(trained)))


@pytest.mark.slow
def test_damaged_results(trained: Path, tmp_path: Path) -> None:
    sound, run = tmp_path / "sound", tmp_path / "run"
    shutil.copytree(trained, sound)
    assert ncjax("evaluate", str(sound)).code == 0
    patterns = ("config.json", "results/*.json", "metrics.jsonl")
    check = damaged(("report", str(run)), sound, run, patterns, (run / "report.html").is_file)
    try_all(20, DRAWN, check)
