# SPDX-License-Identifier: Apache-2.0
"""Features from anywhere: every float type and file, bad input, what is left out."""

import json
import pickle
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ncjax import evaluate_arrays
from ncjax.collapse.separation import separation_law
from ncjax.cli.main import main
from ncjax.errors import UserError
from ncjax.features.readers import Sources, evaluate_files
from tests.collapse import oracle

MOD3 = [0, 1, 2, 0, 1, 2]
N, D = 180, 12


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def some(seed=0, n=N):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 6
    means = np.random.default_rng(9).normal(size=(6, D))
    return (2 * means[labels] + rng.normal(size=(n, D))).astype(np.float32), labels


def quick(*arrays, **options):
    return evaluate_arrays(*arrays, variants=(), **{"label_map": MOD3, **options})


@pytest.mark.parametrize("make", [
    lambda x: x.astype(np.float16), lambda x: x.astype(np.float64), lambda x: x.astype(jnp.bfloat16),
    lambda x: torch.tensor(x), lambda x: torch.tensor(x).bfloat16().requires_grad_(),
])  # fmt: skip
def test_every_type_gives_nearly_the_same(make):
    x, y = some()
    found = quick(make(x), torch.tensor(y) if isinstance(make(x), torch.Tensor) else y)
    assert found["collapse"]["train"]["coarse"]["nc1"] == pytest.approx(oracle.level(x, y % 3)["nc1"], rel=2e-2)


def write(kind, x, y, z, w):
    """The same content in a file of each kind; returns its name and where things are."""
    names = {"train_features": x, "train_labels": y, "test_features": z, "test_labels": w}
    if kind == "npz":
        np.savez("f.npz", **names)
    elif kind == "npy":
        for name, array in names.items():
            np.save(f"{name}.npy", array)
        rest = (f"{name}.npy" for name in ("train_labels", "test_features", "test_labels"))
        return "train_features.npy", Sources(*rest)
    else:
        tensors = {name: torch.tensor(array) for name, array in names.items()}
        tensors["train_features"] = tensors["train_features"].bfloat16()
        save_file(tensors, "f.safetensors") if kind == "safetensors" else torch.save(tensors, "f.pt")
    return f"f.{kind}", Sources()


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors", "pt"])
def test_every_kind_of_file(kind):
    (x, y), (z, w) = some(), some(1, 90)
    path, sources = write(kind, x, y, z, w)
    (found,) = evaluate_files((Path(path),), sources, "mod:3", variants=())["layers"]
    assert found["collapse"]["train"]["fine"]["nc1"] == pytest.approx(oracle.level(x, y)["nc1"], rel=2e-2)
    assert found["collapse"]["test"]["coarse"]["cdnv"] == pytest.approx(oracle.level(z, w % 3)["cdnv"], rel=2e-3)
    assert found["shapes"] == {"train": [N, D], "test": [90, D]}


def test_command_prints_the_table_and_writes_the_results(capsys):
    (x, y), (z, w) = some(), some(1, 90)
    rng = np.random.default_rng(0)
    np.savez("f.npz", train=x, train_y=y, test=z, test_y=w, w=rng.normal(size=(3, D)), b=rng.normal(size=3))
    options = ["--label-map", "mod:3", "--variants", "raw", "--bootstrap", "3", "--output", "out.json"]
    sys.argv = ["ncjax", "evaluate", "f.npz", *options]
    main()
    printed = capsys.readouterr().out
    for text in ("± over 3 resamples", "NC4: nearest mean", "CLP: raw", "20 nearest neighbours", "Carbonnelle c4"):
        assert text in printed
    content = json.loads(Path("out.json").read_text())
    (layer,) = content["layers"]
    assert layer["collapse"]["test"]["coarse"]["nc4"] > 0
    assert layer["collapse_std"]["train"]["fine"]["nc1"] > 0
    assert layer["left_out"] == ["nc3 and nc4, fine: the classifier has 3 classes"]
    assert content["command"].startswith("ncjax evaluate f.npz")


def test_several_files_are_layers_with_the_law_of_separation():
    """Each layer has a third of the spread of the one before: log D falls by log 9 a layer."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % 6
    means, noise = rng.normal(size=(6, D)), rng.normal(size=(N, D))
    for layer in range(3):
        np.savez(f"{layer}.npz", features=means[y] + 0.1 * noise / 3**layer, labels=y)
    paths = tuple(Path(f"{layer}.npz") for layer in range(3))
    law = evaluate_files(paths, Sources(), "mod:3", variants=())["separation_law"]
    assert set(law) == {"coarse_train", "fine_train"}
    assert law["fine_train"]["slope"] == pytest.approx(-np.log(9), rel=0.02)
    assert law["fine_train"]["r2"] == pytest.approx(1, abs=1e-3)


def test_law_of_separation_is_the_least_squares_line():
    found = separation_law([8.0, 5.0, 1.0, 0.7])
    logs = np.log([8.0, 5.0, 1.0, 0.7])
    assert found.slope == pytest.approx(np.cov(np.arange(4), logs)[0, 1] / np.var(np.arange(4), ddof=1))
    assert found.r2 == pytest.approx(np.corrcoef(np.arange(4), logs)[0, 1] ** 2)
    with pytest.raises(UserError, match="two or more layers"):
        separation_law([1.0, 0.0])


# ------------------------------------------------------------------ bad input


BAD = {
    r"train features are \[180, 12, 1\], but must be": lambda x, y: (x[..., None], y),
    "train has 180 rows of features and 179 labels": lambda x, y: (x, y[1:]),
    "train label -1 of row 0 is out of range": lambda x, y: (x, y - 1),
    "train label 6 is out of range: the label map has 6 classes": lambda x, y: (x, np.where(y == 0, 6, y)),
    "train labels are of type float64, but must be whole": lambda x, y: (x, y + 0.5),
    "train labels are of type <U": lambda x, y: (x, y.astype(str)),
    "train features are of type <U": lambda x, y: (x.astype(str), y),
    "every row of the train features holds NaN": lambda x, y: (x * np.nan, y),
    "train features have no labels": lambda x, y: (x, None),
    "train has 12 features and test 11": lambda x, y: (x, y, x[:, 1:], y),
    "test has 180 rows of features and 3 labels": lambda x, y: (x, y, x, y[:3]),
    "all labels are 0": lambda x, y: (x, 0 * y),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arrays_are_named(message):
    with pytest.raises(UserError, match=message):
        quick(*BAD[message](*some()))


@pytest.mark.parametrize(("options", "message"), [
    ({"weights": np.ones((3, D + 1))}, r"classifier weights are \[3, 13\], but must be \[classes, 12\]"),
    ({"weights": np.ones((3, D)), "bias": np.ones(4)}, r"classifier bias is \[4\], but must be \[3\]"),
    ({"weights": np.full((3, D), np.inf)}, "hold NaN or infinite"),
    ({"label_map": [0, 2, 0, 2, 0, 2]}, "with none left out"),
    ({"label_map": "split:2:0"}, "does not merge classes"),
    ({"label_map": "mod:x"}, "is not a whole number"),
])  # fmt: skip
def test_bad_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        quick(*some(), **options)


def test_nan_rows_are_left_out_and_named():
    x, y = some()
    bad = x.copy()
    bad[3], bad[17, 2] = np.nan, np.inf
    found, wanted = quick(bad, y), quick(np.delete(x, [3, 17], 0), np.delete(y, [3, 17]))
    assert found["left_out"][0] == "train: 2 of 180 rows, which hold NaN or infinite numbers (rows 3, 17)"
    assert found["collapse"]["train"]["coarse"]["nc1"] == pytest.approx(
        wanted["collapse"]["train"]["coarse"]["nc1"], rel=1e-4
    )


def test_without_test_split_labels_map_or_weights_the_rest_is_given():
    found = evaluate_arrays(*some())
    assert found["left_out"] == [
        "coarse and within: no label map that merges classes",
        "test: there is no test split",
        "nc3 and nc4: there are no classifier weights",
        "probes and clp: there is no test split",
    ]
    assert found["collapse"]["train"]["fine"]["nc1"] > 0


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(("name", "content", "message"), [
    ("f.pt", pickle.dumps(Trap()), "nothing of it was executed"),
    ("f.npz", b"no archive", "cannot be read"),
    ("f.txt", b"", "is of no known kind"),
    ("gone.npz", None, "no file at gone.npz"),
])  # fmt: skip
def test_bad_files_are_named(name, content, message, capsys):
    if content is not None:
        Path(name).write_bytes(content)
    sys.argv = ["ncjax", "evaluate", name, "--label-map", "mod:3"]
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err
    assert not Path("executed").exists()


def test_place_that_cannot_be_written_is_said_before_all_the_work(capsys):
    sys.argv = ["ncjax", "evaluate", "gone.npz", "--output", "nowhere/out.json"]
    with pytest.raises(SystemExit):
        main()
    assert "cannot write nowhere/out.json" in capsys.readouterr().err


def test_pickled_arrays_are_not_read():
    np.save("f.npy", np.array([Trap()], dtype=object))
    with pytest.raises(UserError, match="cannot be read"):
        evaluate_files((Path("f.npy"),), Sources(), None)
    assert not Path("executed").exists()


def test_missing_names_are_listed():
    np.savez("f.npz", x=some()[0], y=some()[1])
    with pytest.raises(UserError, match="holds none of train_features, train, features, only x, y"):
        evaluate_files((Path("f.npz"),), Sources(), None)
