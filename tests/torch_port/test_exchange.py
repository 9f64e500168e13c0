# SPDX-License-Identifier: Apache-2.0
"""`ncjax export` and `ncjax import`: a run out to PyTorch and back is the same run."""

import contextlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ncjax.cli.main import main
from ncjax.config import ModelConfig
from ncjax.data import load_dataset
from ncjax.features.extraction import extract_features
from ncjax.features.run import Run
from ncjax.features.store import load_features, saved_epochs
from ncjax.storage.workdir import locked, read_config
from ncjax.torch_port.files import read_state_dict
from ncjax.torch_port.networks import logits_and_features, make_network
from tests.runs import messages

DIGITS = Path(__file__).parents[2] / "configs" / "digits_demo.py"
OPTIONS = (
    *("--labels", "mod:5", "--seeds", 2, "--model.width", 2, "--evaluate.variants", "raw", "--evaluate.restarts", 1),
    *("--data.train-examples", 160, "--data.test-examples", 100, "--optim.batch", 80, "--optim.epochs", 1),
)


def ncjax(*arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ncjax", *map(str, arguments)])
        main()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two members after one epoch, trained on two devices."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    ncjax("train", DIGITS, *OPTIONS, "--mesh.member", 2, "--workdir", workdir)
    return workdir


@pytest.fixture(scope="module")
def files(trained):
    """Both members, one in each format."""
    files = [trained.parent / "member_0.safetensors", trained.parent / "member_1.pt"]
    for member, file in enumerate(files):
        ncjax("export", trained, "--member", member, "--output", file)
    return files


@pytest.fixture(scope="module")
def imported(files):
    workdir = files[0].parent / "imported"
    ncjax("import", DIGITS, *OPTIONS, "--checkpoints", *files, "--workdir", workdir)
    return workdir


def torch_features(file, workdir, mean=None, std=None):
    """Features and logits of the test images, computed by PyTorch from an exported file."""
    dataset = load_dataset(read_config(workdir).data)
    pixels = dataset.train.images.astype(np.float64) / 255
    mean, std = pixels.mean() if mean is None else mean, pixels.std() if std is None else std
    network = make_network(ModelConfig(name="cnn", width=2), (8, 8, 1), 5).eval()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in read_state_dict(file).items()}, False)
    images = ((dataset.test.images / 255 - mean) / std).astype(np.float32)
    with torch.no_grad():
        logits, features = logits_and_features(network, torch.from_numpy(images).permute(0, 3, 1, 2))
    return features.numpy(), logits.numpy()


def assert_features_are_those_of(workdir, files, **statistics):
    kept = load_features(workdir, 1).test
    for member, file in enumerate(files):
        features, logits = torch_features(file, workdir, **statistics)
        np.testing.assert_allclose(kept.layers["features"][member], features, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(kept.logits[member], logits, rtol=1e-4, atol=1e-4)


def arrays_of(split):
    return split.layers["features"], split.logits, split.labels, split.targets


def everything_under(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------ out and in


def test_pytorch_computes_the_kept_features_from_exported_weights(trained, files):
    assert_features_are_those_of(trained, files)
    first, second = (load_features(trained, 1).test.layers["features"][member] for member in (0, 1))
    assert np.abs(first - second).max() > 0.1


def test_members_of_a_run_that_has_grown_are_exported_by_their_number(trained, files, tmp_path):
    """The member of another rate that was added comes first."""
    shutil.copytree(trained, tmp_path / "run")
    ncjax("train", DIGITS, *OPTIONS, "--optim.lr", 0.01, 0.05, "--workdir", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert [len(part.members) for part in run.parts] == [2, 2]
    for member in (1, 3):
        ncjax("export", run.workdir, "--member", member, "--output", tmp_path / f"{member}.pt")
        _, logits = torch_features(tmp_path / f"{member}.pt", run.workdir)
        np.testing.assert_allclose(run.features(1).test.logits[member], logits, rtol=1e-4, atol=1e-4)
    old, same = (read_state_dict(path) for path in (files[1], tmp_path / "3.pt"))
    assert all(same[name].tobytes() == array.tobytes() for name, array in old.items())


def test_exported_file_is_a_plain_state_dict_of_the_network(files):
    network = make_network(ModelConfig(name="cnn", width=2), (8, 8, 1), 5)
    network.load_state_dict(torch.load(files[1], weights_only=True), strict=True)
    assert torch.equal(network.state_dict()["fc.weight"], torch.from_numpy(read_state_dict(files[1])["fc.weight"]))


def test_imported_run_keeps_the_features_of_the_trained_run(trained, imported):
    theirs, ours = load_features(trained, 1), load_features(imported, 1)
    assert saved_epochs(imported) == (1,)
    assert ours.classifier is not None
    assert theirs.classifier is not None
    assert ours.names == theirs.names
    kept = [(*arrays_of(one.train), *arrays_of(one.test), *one.classifier) for one in (theirs, ours)]
    for expected, found in zip(*kept, strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_weights_survive_export_import_export_bit_for_bit(imported, files, capsys):
    """Into the work directory, where no other place is named."""
    ncjax("export", imported, "--member", 1)
    path = imported / "member_1.pt"
    assert capsys.readouterr().out == f"weights: {path.absolute()}\n"
    expected, found = read_state_dict(files[1]), read_state_dict(path)
    assert set(found) == set(expected)
    assert all(found[name].tobytes() == array.tobytes() for name, array in expected.items())


@pytest.mark.slow
def test_evaluation_of_an_imported_run_says_where_its_weights_come_from(imported, files):
    ncjax("evaluate", imported)
    written = json.loads((imported / "results" / "evaluation.json").read_text())
    for member, file in enumerate(files):
        assert any(note.startswith("The weights of mod:5/") and file.name in note for note in written["notes"])
        (row,) = [row for row in written["rows"] if row["kind"] == "trained" and row["member"] == member]
        labels = load_dataset(read_config(imported).data).test.labels
        accuracy = (torch_features(file, imported)[1].argmax(-1) == labels % 5).mean()
        (measured,) = [
            m for m in row["measurements"] if (m["metric"], m["level"], m["split"]) == ("accuracy", "coarse", "test")
        ]
        assert measured["value"] == pytest.approx(accuracy, abs=0.011)  # one image of a hundred at a tie
        assert row["epoch"] == 1
    assert any(note.startswith("Their images were normalised with mean 0.3") for note in written["notes"])
    assert written["provenance"]["command"].startswith("ncjax import ")
    ncjax("report", imported)
    assert "were imported from member_1.pt" in (imported / "report.html").read_text()


@pytest.mark.parametrize("statistics", [{"mean": 0.5}, {"mean": 0.1, "std": 0.25}])
def test_files_of_pytorch_code_are_imported_in_order_with_their_normalisation(imported, files, statistics, tmp_path):
    state = {f"module.{name}": torch.from_numpy(array) for name, array in read_state_dict(files[0]).items()}
    torch.save({"net": state, "acc": 91.2, "epoch": 3}, tmp_path / "wrapped.pth")
    given = [files[1], tmp_path / "wrapped.pth"]
    options = [text for name, value in statistics.items() for text in (f"--{name}", value)]
    ncjax("import", DIGITS, *OPTIONS, "--checkpoints", *given, *options, "--workdir", tmp_path / "run")
    assert_features_are_those_of(tmp_path / "run", given, **statistics)
    found, of_the_data = (load_features(workdir, 1).test.layers["features"] for workdir in (tmp_path / "run", imported))
    assert np.abs(found[::-1] - of_the_data).max() > 1e-3
    if "std" in statistics:
        assert_kept_and_used_again(tmp_path / "run", given, statistics)


def assert_kept_and_used_again(workdir, files, statistics):
    """results/training.json names the statistics, and features that are lost are made again with them."""
    run = Run.open(workdir)
    pixels = run.dataset.train.images / 255
    wanted = {"mean": pixels.mean(), "std": pixels.std(), **statistics}
    for name, value in wanted.items():
        assert getattr(run.training, name) == pytest.approx((value,), rel=1e-6)
    logits = extract_features(run, layers=("logits",)).test.layers["logits"]
    np.testing.assert_allclose(logits, load_features(workdir, 1).test.logits, rtol=1e-5, atol=1e-5)
    shutil.rmtree(workdir / "features" / "1")
    ncjax("train", DIGITS, *OPTIONS, "--workdir", workdir)
    assert_features_are_those_of(workdir, files, **statistics)
    assert run.training.mean == pytest.approx((wanted["mean"],), rel=1e-6)


def test_an_import_takes_the_lock_and_removes_nothing(files, tmp_path, capsys):
    arguments = ("import", DIGITS, *OPTIONS, "--checkpoints", *files, "--workdir", tmp_path / "run")
    with locked(tmp_path / "run"):
        before = everything_under(tmp_path)
        assert "is in use by process" in refused(capsys, *arguments)
        assert everything_under(tmp_path) == before
    ncjax(*arguments)
    assert json.loads((tmp_path / "run" / "data.json").read_text())["train"]["image"] == [8, 8, 1]


def test_importing_into_a_finished_run_leaves_what_belongs_together(trained, files, tmp_path):
    """Whether it is refused or replaces the run."""
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    with contextlib.suppress(SystemExit):
        options = (*OPTIONS, "--mesh.member", 2, "--workdir", workdir)
        ncjax("import", DIGITS, *options, "--checkpoints", files[1], files[0])
    ncjax("export", workdir, "--member", 0, "--output", tmp_path / "again.pt")
    assert_features_are_those_of(workdir, [tmp_path / "again.pt"])


def test_training_an_imported_run_leaves_it_as_it_is(imported, tmp_path):
    """It is at its end; and it goes on to say where its weights come from."""
    workdir = tmp_path / "run"
    shutil.copytree(imported, workdir)
    before = load_features(workdir, 1).test.layers["features"]
    ncjax("train", DIGITS, *OPTIONS, "--workdir", workdir)
    np.testing.assert_array_equal(load_features(workdir, 1).test.layers["features"], before)
    assert len(json.loads((workdir / "results" / "training.json").read_text()).get("imported", [])) == 2


# ------------------------------------------------------------------ bad input


def refused(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        ncjax(*arguments)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    (line,) = messages(captured.err)
    assert line.startswith("ncjax: error: ")
    assert captured.out == ""
    return line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mean", 0.1, 0.2, 0.3), "mean has 3 numbers, but the images have 1 channels"),
        (("--std", 0.1, 0.2), "std has 2 numbers, but the images have 1 channels"),
        (("--std", 0), "std is (0.0,), but must be above 0"),
        (("--std", -1), "std is (-1.0,), but must be above 0"),
        (("--std", "nan"), "std"),
        (("--std", "inf"), "std"),
        (("--mean", "nan"), "mean"),
        (("--mean", "inf"), "mean"),
        (("--mean", "dark"), "mean"),
        (("--seeds", 3), "2 checkpoints for the 3 members"),
        (("--seeds", 1), "2 checkpoints for the 1 members"),
        (("--model.width", 3), "width 3"),
        (("--model.name", "vgg11"), "these weights are not those of a vgg11"),
        (("--labels", "fine"), "fc.weight is 5x8, but must be 10x8"),
        (("--seeds", 0), "seeds is 0"),
    ],
)
def test_import_that_does_not_fit_is_one_line_and_leaves_nothing(files, options, message, tmp_path, capsys):
    arguments = ("import", DIGITS, *OPTIONS, "--checkpoints", *files, *options, "--workdir", tmp_path / "new")
    assert message in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_import_of_bad_files_names_the_file_and_leaves_nothing(files, tmp_path, capsys):
    network = make_network(ModelConfig(name="resnet18", width=2), (8, 8, 1), 5)
    torch.save(network.state_dict(), tmp_path / "resnet.pt")
    (tmp_path / "broken.pt").write_bytes(files[1].read_bytes()[:500])
    for name, message in (("none.pt", "no file at"), ("broken.pt", "truncated"), ("resnet.pt", "not those of a cnn")):
        given = (files[0], tmp_path / name)
        line = refused(
            capsys, "import", DIGITS, *OPTIONS, "--checkpoints", *given, "--workdir", tmp_path / "new" / "run"
        )
        assert message in line
        assert str(tmp_path / name) in line
    assert not (tmp_path / "new").exists()


def test_import_into_a_run_of_another_config_is_refused_and_changes_nothing(trained, files, capsys):
    before = everything_under(trained)
    arguments = ("import", DIGITS, *OPTIONS, "--checkpoints", *files, "--workdir", trained)
    assert str(trained) in refused(capsys, *arguments, "--optim.epochs", 2)
    assert everything_under(trained) == before


def test_import_without_a_config_or_files_is_one_line(tmp_path, capsys):
    assert "needs a config file" in refused(capsys, "import")
    assert "--checkpoints" in refused(capsys, "import", DIGITS, "--workdir", tmp_path / "new")
    assert "no config file at none.py" in refused(capsys, "import", "none.py")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("member", [2, -1, "first"])
def test_export_of_no_such_member_is_one_line_and_leaves_nothing(trained, member, tmp_path, capsys):
    before = everything_under(trained)
    line = refused(capsys, "export", trained, "--member", member, "--output", tmp_path / "weights.pt")
    assert str(member) in line
    assert list(tmp_path.iterdir()) == []
    assert everything_under(trained) == before


def test_export_of_what_holds_no_checkpoint_is_one_line_and_leaves_nothing(trained, tmp_path, capsys):
    output = ("--output", tmp_path / "weights.pt")
    assert "none/config.json" in refused(capsys, "export", tmp_path / "none", *output)
    (tmp_path / "empty").mkdir()
    assert "is this the work directory of a run?" in refused(capsys, "export", tmp_path / "empty", *output)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(trained / "config.json", bare)
    assert f"{bare} holds no checkpoint; run: ncjax train" in refused(capsys, "export", bare, *output)
    assert [path.name for path in bare.iterdir()] == ["config.json"]
    (bare / "checkpoints").mkdir()
    assert f"{bare} holds no checkpoint; run: ncjax train" in refused(capsys, "export", bare, *output)
    assert not (tmp_path / "weights.pt").exists()
    assert "ncjax export needs WORKDIR" in refused(capsys, "export")


def test_export_in_another_format_is_refused_before_the_run_is_opened(tmp_path, capsys):
    line = refused(capsys, "export", tmp_path / "none", "--output", tmp_path / "weights.onnx")
    assert "weights.onnx must end with .pt, .pth or .safetensors" in line
    assert list(tmp_path.iterdir()) == []


def test_export_to_a_place_that_cannot_be_written_is_one_line(trained, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    output = tmp_path / "file" / "weights.pt"
    assert str(output) in refused(capsys, "export", trained, "--output", output)
    assert everything_under(tmp_path) == {"file": b"kept"}


# ------------------------------------------------------------------ without PyTorch


@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_without_pytorch_the_extra_is_named(package, tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("ncjax.torch_port")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    for arguments in (
        ("export", tmp_path),
        ("import", DIGITS, *OPTIONS, "--checkpoints", tmp_path / "x.pt", "--workdir", tmp_path / "new"),
        ("compare", DIGITS, "--workdir", tmp_path / "new"),
    ):
        assert "pip install 'ncjax[torch]'" in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []
