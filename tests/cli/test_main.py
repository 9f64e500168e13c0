# SPDX-License-Identifier: Apache-2.0
"""Whole experiments through the command line, on stand-ins of the data sets: every config takes two steps."""

import dataclasses
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from ncjax.cli.main import main
from ncjax.errors import Stopped
from ncjax.features.store import load_features
from ncjax.features.writing import save_features
from ncjax.report.groups import Quantity, summarise
from ncjax.results import Evaluation
from ncjax.storage.metrics import read_records
from tests.runs import messages

CONFIGS = Path(__file__).parents[2] / "configs"
OTHERS = ("__init__", "coarse_imagenet")  # needs pictures: tests/training/test_streaming_pictures.py
NAMES = sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem not in OTHERS and not p.stem.startswith("theory_"))
# The same networks.
SLOW = {
    "cifar10_two_cores",
    "coarse_cifar10",
    "coarse_cifar10_cpu",
    "coarse_cifar10_grid",
    "coarse_fashion",
    "fine_cifar10",
}
LABELS = (np.arange(20) % 10).astype(np.uint8)


def ncjax(*arguments: object) -> None:
    sys.argv = ["ncjax", *map(str, arguments)]
    main()


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """CIFAR-10's binary files, with four training images in each and twenty test images."""
    root = tmp_path_factory.mktemp("cifar")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    content = np.concatenate([LABELS[:, None], pixels], axis=1)
    for i in range(5):
        (root / f"data_batch_{i + 1}.bin").write_bytes(content[4 * i : 4 * i + 4].tobytes())
    (root / "test_batch.bin").write_bytes(content.tobytes())
    return root


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    """The four files of Fashion-MNIST, with twenty images a split."""
    root = tmp_path_factory.mktemp("fashion")
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    for split in ("train", "t10k"):
        (root / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 20, 28, 28) + images.tobytes())
        (root / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 20) + LABELS.tobytes())
    return root


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in NAMES])
def test_every_config_takes_two_steps(name, cifar, fashion):
    options = ["--optim.epochs", 1, "--optim.batch", 10, "--evaluate.epochs", 1]
    if name == "digits_demo":
        options += ["--data.train-examples", 160, "--optim.batch", 80]
    elif name == "coarse_fashion":
        options += ["--data.path", fashion]
    else:
        options += ["--data.source", "cifar10", "--data.path", cifar]
    if name == "coarse_cifar10_grid":
        options += ["--model.width", 2]
    ncjax("train", CONFIGS / f"{name}.py", *options)
    (record,) = read_records(Path("runs") / name / "metrics.jsonl")
    assert record.step == 2
    losses = list(record.values["train_loss"].values())
    assert np.isfinite(losses).all()
    assert len(losses) == {
        "coarse_cifar10_grid": 45,
        "digits_demo": 6,
        "shifted_digits": 6,
        "cifar10_two_cores": 6,
        "coarse_fashion": 3,
    }.get(name, 1)


@pytest.mark.slow
def test_run_ends_with_the_place_of_the_report(capsys):
    options = ["--seeds", 1, "--optim.lr", 1e-4, "--optim.epochs", 1, "--evaluate.variants", "raw"]
    ncjax("run", CONFIGS / "digits_demo.py", "--workdir", "run", *options)
    assert {"raw_pixels", "random_init", "trained", "fine", "shuffled"} == {row.kind for row in rows_of(Path("run"))}
    report = Path("run", "report.html").absolute()
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {report}"
    assert "Main table" in report.read_text()
    accuracies_are_over_the_classes_that_a_member_has(Path("run"))
    duality_is_that_of_the_classes_that_a_member_has(Path("run"))


def accuracies_are_over_the_classes_that_a_member_has(workdir):
    """After one epoch of a tiny rate, the five outputs that a coarse member never uses still win often."""
    (record,) = read_records(workdir / "metrics.jsonl")
    trained = rows_of(workdir, epoch=1)
    accuracies = {row.name: row.value("accuracy", split="test", level="coarse") for row in trained}
    assert accuracies == pytest.approx(record.values["test_accuracy"])
    test = load_features(workdir, 1).test
    of_all_outputs = (test.logits.argmax(-1) == test.targets).mean(axis=1)
    assert of_all_outputs[0] < accuracies[trained[0].name] - 0.05


def duality_is_that_of_the_classes_that_a_member_has(workdir):
    """NC3 and NC4 of the test split by NumPy, from the logits that were kept."""
    kept = load_features(workdir, 1)
    for row in rows_of(workdir, epoch=1):
        index = row.member
        if row.kind == "shuffled":
            assert "nc3 and nc4: the classes of shuffled:mod:5:0 are no function of the fine labels" in row.left_out
            assert row.value("nc3", level="coarse") is row.value("nc4", level="coarse") is None
            continue
        level, classes = {"trained": ("coarse", 5), "fine": ("fine", 10)}[row.kind]
        weights = kept.classifier.weights[index, :, :classes].T.astype(np.float64)
        train, test = (split.layers["features"][index] for split in (kept.train, kept.test))
        means = np.stack([train[kept.train.targets[index] == c].mean(0) for c in range(classes)])
        centred = np.stack([test[kept.test.targets[index] == c].mean(0) for c in range(classes)])
        centred = (centred - centred.mean(0)).astype(np.float64)
        wanted = np.linalg.norm(weights / np.linalg.norm(weights) - centred / np.linalg.norm(centred))
        assert row.value("nc3", level=level) == pytest.approx(wanted, rel=1e-4)
        nearest = ((test[:, None] - means[None]) ** 2).sum(-1).argmin(1)
        differing = (nearest != kept.test.logits[index, :, :classes].argmax(-1)).mean()
        assert row.value("nc4", level=level) == pytest.approx(differing, abs=0.006)  # two images at a tie


OF_DIGITS = ["--labels", "mod:5", "shuffled:mod:5:0", "--seeds", 1, "--optim.epochs", 12, "--evaluate.epochs", 0, 6]
OF_DIGITS += ["--evaluate.restarts", 3, "--data.train-examples", 800]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run of two members, coarse and shuffled, on 800 digits for twelve epochs."""
    workdir = tmp_path_factory.mktemp("digits") / "run"
    ncjax("run", CONFIGS / "digits_demo.py", "--workdir", workdir, *OF_DIGITS)
    return workdir


def rows_of(workdir, **wanted):
    rows = evaluation_of(workdir).rows
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def evaluation_of(workdir):
    return Evaluation.from_json((workdir / "results" / "evaluation.json").read_text())


def views_of(row):
    return {one.view for one in row.measurements if one.metric == "clp"}


def test_coarse_training_beats_its_controls(digits):
    (coarse,) = rows_of(digits, kind="trained", epoch=12)
    (shuffled,) = rows_of(digits, kind="shuffled", epoch=12)
    (start,) = rows_of(digits, kind="random_init")
    assert coarse.value("accuracy", level="coarse") > 0.9
    assert shuffled.value("accuracy", level="coarse") < 0.4  # of five labels that mean nothing
    assert coarse.value("probe") > 0.9
    assert coarse.value("clp", view="raw") > 0.85
    nc1 = {row.kind: row.value("nc1", split="train", level="coarse") for row in (coarse, start)}
    assert nc1["trained"] < 0.5 * nc1["random_init"]
    assert start.find("accuracy", level="coarse") is None
    assert [row.epoch for row in rows_of(digits, kind="trained")] == [6, 12]


@pytest.mark.slow
def test_run_says_that_pixels_of_digits_cluster_already(digits, capsys):
    ncjax("evaluate", digits, "--variants", "raw")
    printed = capsys.readouterr().out
    assert "note: Raw pixels of this data set already cluster at 9" in printed
    assert printed.splitlines()[-1] == f"results: {(digits / 'results' / 'evaluation.json').absolute()}"
    assert views_of(rows_of(digits, kind="trained")[0]) == {"raw", "normalised", "residual_pca"}  # earlier ones stay
    ncjax("evaluate", digits)
    assert views_of(rows_of(digits, kind="trained")[0]) == {"raw", "normalised", "residual_pca"}


def test_exported_features_are_the_input_of_the_last_layer(digits):
    ncjax("features", digits, "--epochs", 12)
    with ocp.StandardCheckpointer() as checkpointer:
        folder = max((digits / "checkpoints").iterdir(), key=lambda path: int(path.name))
        linear = checkpointer.restore((folder / "default").absolute())["params"]["head"]["linear"]
    with np.load(digits / "features" / "12.npz", allow_pickle=False) as arrays:
        assert arrays["train_features"].shape == (2, 800, 64)
        for split in ("train", "test"):
            expected = (
                np.einsum("snd,sdc->snc", arrays[f"{split}_features"], linear["kernel"])
                + np.asarray(linear["bias"])[:, None]
            )
            np.testing.assert_array_equal(arrays["classifier_weights"], linear["kernel"])
            np.testing.assert_array_equal(arrays["classifier_bias"], linear["bias"])
            np.testing.assert_allclose(arrays[f"{split}_logits"], expected, atol=1e-3)
            np.testing.assert_array_equal(arrays[f"{split}_coarse"][0], arrays[f"{split}_fine"] % 5)
    assert not (digits / "features" / "6.npz").exists()


def test_standard_deviations_are_of_seeds_or_of_resamples(digits):
    found = [one for one in summarise(evaluation_of(digits)) if one.group.kind == "trained" and one.group.epoch == 12]
    ((group, spreads),) = found
    (row,) = rows_of(digits, kind="trained", epoch=12)
    assert group.rows == (row,)
    cdnv = row.find("cdnv", split="test", level="coarse")
    assert spreads[Quantity("cdnv", "test", "coarse")] == (cdnv.value, cdnv.std, "resamples", 1)
    assert 0 < cdnv.std < cdnv.value
    assert row.find("nc4", level="coarse").std is not None
    assert "nc3 and nc4: there are no classifier weights" in rows_of(digits, kind="raw_pixels")[0].left_out


@pytest.mark.slow
def test_features_of_earlier_versions_are_measured_without_their_classifier(digits, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(digits, copy)
    shutil.rmtree(copy / "features")
    save_features(copy, dataclasses.replace(load_features(digits, 12), classifier=None))
    assert load_features(copy, 12).classifier is None
    ncjax("evaluate", copy, "--variants", "raw", "--bootstrap", 0)
    (row,), (before,) = (rows_of(folder, kind="trained", epoch=12) for folder in (copy, digits))
    assert any(line.startswith("nc3 and nc4: the classifier was not kept") for line in row.left_out)
    assert row.value("nc3", level="coarse") is None
    assert row.value("nc1", level="coarse") == pytest.approx(before.value("nc1", level="coarse"))
    assert row.bootstrap == 0
    assert row.find("nc1", level="coarse").std is None


def test_finished_run_is_left_as_it_is(digits):
    before = [(digits / name).read_bytes() for name in ("config.json", "metrics.jsonl", "results/training.json")]
    ncjax("train", CONFIGS / "digits_demo.py", "--workdir", digits, *OF_DIGITS)
    after = [(digits / name).read_bytes() for name in ("config.json", "metrics.jsonl", "results/training.json")]
    assert after == before


# ------------------------------------------------------------------ bad input


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        ncjax(*arguments)
    assert stop.value.code == 2
    (line,) = messages(capsys.readouterr().err)
    assert line.startswith("ncjax: error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sedes", 3), "--sedes"),
        (("--seeds", "three"), "--seeds"),
        (("--optim.lr", "fast"), "--optim.lr"),
        (("--optim.schedule", "linear"), "'linear'"),
        (
            ("--optim.name", "lion"),
            "optim.name is 'lion', but must be one of sgd, adamw; change it in",
        ),
        (("--loss.name", "hinge"), "loss.name is 'hinge', but must be one of cross_entropy, squared_error"),
        (("--loss.label-smoothing", 1), "loss.label_smoothing is 1.0, but must be from 0 to below 1"),
        (("--data.augment", "blur"), "data.augment is 'blur', but must be one of"),
        (("--optim.precision", "half"), "--optim.precision is 'half', but must be one of float32, tf32, bfloat16"),
        (("--optim.batch", 5000), "optim.batch is 5000, but digits has 1433 training images"),
        (("--optim.batch", 0), "optim.batch is 0"),
        (("--optim.batch", 0), "; change it in the config file or with --optim.batch"),
        (("--labels", "mod:11"), "mod:11"),
        (("--labels", "modulo"), "unknown label map 'modulo'"),
        (("--labels", "file:map.json"), "map.json must hold a list of 10 coarse labels"),
        (("--mesh.data", 16), "needs 16 devices"),
        (("--mesh.member", 0, "--mesh.data", 0), "mesh.data is 0, but must be 1 or more where mesh.member is 0"),
        (("--evaluate.labels", "shuffled:mod:5:0"), "evaluate.labels"),
        (("--data.source", "idx"), "--data.path"),
    ],
)
def test_bad_config_is_one_line_and_leaves_nothing(arguments, message, tmp_path, capsys):
    (tmp_path / "map.json").write_text("[0, 1, 2]")
    assert message in refused(capsys, "train", CONFIGS / "digits_demo.py", "--workdir", "new", *arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trian",), "unknown verb 'trian'"),
        (("train",), "needs a config file"),
        (("train", "none.py"), "no config file at none.py"),
        (("evaluate", "none"), "none/config.json: no such file"),
        (("report", "none"), "none/results/evaluation.json is missing"),
        (("features", "none"), "none/config.json: no such file"),
        (("features",), "ncjax features needs WORKDIR; see: ncjax features --help"),
        (("report", "none", "none"), "none/results/evaluation.json is missing"),
        (("report",), "ncjax report needs a run's work directory"),
        (("report", "none", "none", "--figures", "f"), "--figures is of a single run"),
        (("train", "theory_frozen"), "get_config() returns TheoryConfig"),
        (("evaluate",), "error: ncjax evaluate needs a run's work directory, or a file or folder of features"),
        (
            ("evaluate", "here", "--control-maps", 0),
            "control_maps is 0, but must be 1 or more; change it with --control",
        ),
        (
            ("evaluate", "here", "--memory-gib", 0),
            "memory_gib is 0.0, but must be above 0; change it with --memory-gib",
        ),
        (("evaluate", "a.npz", "--control-maps", 3), "--control-maps is of a run's work directory, not of files"),
    ],
)
def test_bad_command_is_one_line(arguments, message, capsys):
    assert message.lower() in refused(capsys, *arguments).lower()


@pytest.mark.slow
def test_a_folder_of_features_is_read_in_blocks_where_its_memory_is_small(tmp_path):
    rng = np.random.default_rng(0)
    means = 6 * rng.normal(size=(10, 8))
    for split, count in (("train", 400), ("test", 100)):
        labels = np.arange(count) % 10
        np.save(tmp_path / f"{split}_features.npy", (means[labels] + rng.normal(size=(count, 8))).astype(np.float16))
        np.save(tmp_path / f"{split}_labels.npy", labels)
    values = []
    for gib in (4, 1e-5):
        options = ["--label-map", "mod:5", "--memory-gib", gib, "--output", tmp_path / "out.json", "--bootstrap", 2]
        ncjax("evaluate", tmp_path, *options)
        (row,) = Evaluation.from_json((tmp_path / "out.json").read_text()).rows
        values.append({(m.metric, m.split, m.level, m.view, m.index): m.value for m in row.measurements})
    assert values[0].keys() == values[1].keys()
    assert values[0]["clp", "test", "fine", "raw", None] == 1
    for key, value in values[0].items():
        if value is None:
            assert values[1][key] is None, key
        elif "probe_" not in key[0]:
            assert values[1][key] == pytest.approx(value, rel=1e-4, abs=1e-5), key


def test_work_directory_of_another_config_is_refused_and_kept(digits, capsys):
    before = (digits / "config.json").read_bytes()
    line = refused(capsys, "train", CONFIGS / "digits_demo.py", "--workdir", digits, *OF_DIGITS, "--model.width", 3)
    assert "model.width: 16 there, 3 now): all members of a run have the same network" in line
    longer = [*OF_DIGITS, "--optim.epochs", 20]
    line = refused(capsys, "train", CONFIGS / "digits_demo.py", "--workdir", digits, *longer)
    assert "optim.epochs: 12 there, 20 now" in line
    assert "set optim.schedule_epochs to 12" in line
    assert line.endswith("--optim.schedule-epochs")
    assert (digits / "config.json").read_bytes() == before


def test_damaged_features_are_named(digits, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(digits, copy)
    shutil.rmtree(copy / "checkpoints")  # from which they would be made again
    for file in (copy / "features" / "6").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert "features/6 cannot be read" in refused(capsys, "features", copy, "--epochs", 6)
    assert "no features of epoch 3" in refused(capsys, "features", copy, "--epochs", 3)


def test_features_with_one_bit_changed_are_refused(digits, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(digits, copy)
    shutil.rmtree(copy / "checkpoints")
    file = max(filter(Path.is_file, (copy / "features" / "6").rglob("*")), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert f"{file.relative_to(copy / 'features' / '6')} is not what was written" in refused(
        capsys, "features", copy, "--epochs", 6
    )


def test_class_without_an_example_is_named(capsys, tmp_path):
    options = ["--data.train-examples", 160, "--data.test-examples", 4, "--optim.epochs", 1, "--optim.batch", 80]
    with pytest.raises(SystemExit):
        ncjax("run", CONFIGS / "digits_demo.py", *options)
    assert "has no test image" in capsys.readouterr().err


def test_help_lists_every_field_with_its_unit(capsys):
    with pytest.raises(SystemExit) as stop:
        ncjax("train", CONFIGS / "digits_demo.py", "--help")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in ("--seeds", "--optim.lr", "--data.crop-padding", "--mesh.member", "--evaluate.restarts"):
        assert field in text
    assert "Global batch of one member [images]" in text
    assert "--loss.name cross_entropy, squared_error --optim.name sgd, adamw" in text
    ncjax("--help")
    assert "ncjax demo" in capsys.readouterr().out


def test_interruption_has_its_own_exit_code(capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("ncjax.cli.main.dispatch", interrupted)
    with pytest.raises(SystemExit) as stop:
        ncjax("report", "run")
    assert stop.value.code == 130
    assert capsys.readouterr().err == "ncjax: interrupted; the same command goes on from the last checkpoint\n"


def test_stopped_training_has_its_own_exit_code(capsys, monkeypatch):
    def stopped(*arguments):
        raise Stopped("stopped after step 3 of 9")

    monkeypatch.setattr("ncjax.cli.main.dispatch", stopped)
    with pytest.raises(SystemExit) as stop:
        ncjax("report", "run")
    assert stop.value.code == 75
    assert capsys.readouterr().err == "ncjax: stopped after step 3 of 9; the same command goes on from there\n"
