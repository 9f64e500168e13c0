# SPDX-License-Identifier: Apache-2.0
"""Recorded sessions of every verb: a terminal of 80 columns, which all fits, and pipes, which get plain lines."""

import numpy as np
import pytest

from tests.runs import DEMO, ROOT, TINY
from tests.terminal import COLUMNS, Session, in_pipe, in_terminal

SMALL = ["--model.name", "mlp", "--model.width", 4, "--optim.epochs", 2, "--seeds", 1, "--evaluate.restarts", 2]
SMALL += ["--evaluate.variants", "normalised", "--data.train-examples", 400, "--data.test-examples", 100]


def stages(session: Session) -> list[str]:
    """The stages that a pipe was told of, in order."""
    found = [line[1 : line.index("]")] for line in session.err.splitlines() if line.startswith("[")]
    return list(dict.fromkeys(found))


def check_terminal(session: Session) -> None:
    assert session.code == 0, session.out
    lines = [line for line in session.lines if not line.startswith(("results: ", "report: ", "features: "))]  # paths
    too_long = [line for line in lines if len(line) > COLUMNS and max(map(len, line.split())) <= COLUMNS]
    assert too_long == []
    assert "\x1b[?25h" in session.raw or "\x1b[?25l" not in session.raw  # the cursor is back


def check_pipe(session: Session) -> None:
    assert session.code == 0, session.err
    assert "\x1b" not in session.out + session.err
    assert "\r" not in session.out + session.err
    assert all(line.startswith("[") for line in session.err.splitlines() if line), session.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three small members, and what a terminal showed while it was trained, evaluated and reported."""
    folder = tmp_path_factory.mktemp("sessions")
    return folder / "run", in_terminal(["run", DEMO, "--workdir", "run", *SMALL], folder)


def test_run_in_a_terminal_shows_every_stage_and_tables_that_fit(trained):
    workdir, session = trained
    check_terminal(session)
    for stage in ("start", "load data", "compile", "train", "extract features", "evaluate", "report"):
        assert f"{stage}: done in" in session.out, stage
    assert any("images/s" in line and "epoch 2/2, loss" in line for line in session.lines)
    assert "report: " in session.out
    assert "trained on coarse labels" in session.out
    assert "e+0" not in session.out
    assert (workdir / "report.html").is_file()


@pytest.mark.slow
def test_evaluate_in_a_pipe_writes_plain_lines(trained):
    workdir, _ = trained
    session = in_pipe(["evaluate", workdir, "--bootstrap", 0], workdir.parent)
    check_pipe(session)
    assert stages(session)[:3] == ["start", "load data", "read features"]
    assert "[evaluate] done in" in session.err
    assert session.out.splitlines()[-1] == f"results: {workdir / 'results' / 'evaluation.json'}"


def test_quiet_leaves_stderr_empty(trained):
    workdir, _ = trained
    session = in_pipe(["report", workdir, "--quiet"], workdir.parent)
    assert (session.code, session.err) == (0, "")
    assert session.out.splitlines()[-1] == f"report: {workdir / 'report.html'}"
    assert "| network | seeds |" in session.out  # Markdown, for a file


def test_status_in_a_terminal_fits(trained):
    workdir, _ = trained
    session = in_terminal(["status", workdir], workdir.parent)
    check_terminal(session)
    assert "digits_demo: trained" in session.out
    assert "epoch 2 of 2, 3 members" in session.out
    assert "last checkpoint: step " in session.out


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["features", "report", "evaluate", "status"])
def test_verbs_of_a_work_directory(verb, trained):
    workdir, _ = trained
    check_terminal(in_terminal([verb, workdir], workdir.parent))
    check_pipe(in_pipe([verb, workdir], workdir.parent))


@pytest.mark.slow
def test_train_in_a_pipe_says_what_it_does(tmp_path):
    session = in_pipe(["train", DEMO, "--workdir", "run", *TINY], tmp_path)
    check_pipe(session)
    assert stages(session) == ["start", "load data", "prepare", "compile", "extract features", "train"]
    assert "[train] done in" in session.err
    assert "images/s, epoch 2/2, loss " in session.err.splitlines()[-1]


@pytest.mark.slow
def test_files_of_features(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 10
    rows = (5 * rng.normal(size=(10, 8))[labels] + rng.normal(size=(400, 8))).astype(np.float32)
    np.savez(tmp_path / "file.npz", train=rows[::2], train_y=labels[::2], test=rows[1::2], test_y=labels[1::2])
    arguments = ["evaluate", "file.npz", "--label-map", "mod:5", "--bootstrap", 2]
    check_terminal(in_terminal(arguments, tmp_path))
    session = in_pipe(arguments, tmp_path)
    check_pipe(session)
    assert "[evaluate] done in" in session.err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_verbs_that_meet_pytorch(tmp_path):
    options = [*SMALL, "--labels", "mod:5", "--model.name", "cnn"]
    session = in_terminal(["compare", DEMO, "--workdir", "both", *options, "--budget-minutes", 8], tmp_path)
    check_terminal(session)
    for stage in ("measure", "train", "train with PyTorch", "evaluate", "report"):
        assert f"{stage}: done in" in session.out, stage
    session = in_pipe(["export", "both", "--output", "weights.pt"], tmp_path)
    check_pipe(session)
    assert "read checkpoint" in stages(session)
    session = in_pipe(["import", DEMO, "--checkpoints", "weights.pt", "--workdir", "back", *options], tmp_path)
    check_pipe(session)
    assert stages(session)[-1] == "extract features"
    check_terminal(in_terminal(["status", "back"], tmp_path))


@pytest.mark.slow
def test_theory(tmp_path):
    config = ROOT / "configs" / "theory_frozen.py"
    options = ["--seeds", 2, "--descent.steps", 20]
    session = in_pipe(["theory", config, "--workdir", "sweep", *options], tmp_path)
    check_pipe(session)
    assert {"sweep", "predictions and pictures", "report"} <= set(stages(session))
    check_terminal(in_terminal(["report", "sweep"], tmp_path))


@pytest.mark.slow
def test_bench(tmp_path):
    options = ["--rounds", 1, "--model.name", "mlp", "--model.width", 4, "--labels", "mod:5", "--seeds", 1]
    session = in_terminal(["bench", "train", DEMO, *options], tmp_path)
    check_terminal(session)
    assert "prepare peers: done in" in session.out
    assert "measure: done in" in session.out


@pytest.mark.parametrize(
    "arguments", [["list"], ["data"], ["reproduce"], ["--help"], ["bench", "--help"]], ids=" ".join
)
def test_lists_fit_a_terminal_and_are_plain_in_a_pipe(arguments, tmp_path):
    check_terminal(in_terminal(arguments, tmp_path))
    session = in_pipe(arguments, tmp_path)
    check_pipe(session)
    assert len(session.out.splitlines()) > 5


@pytest.mark.slow
def test_the_demo_shows_both_acts(tmp_path):
    session = in_terminal(["demo", "--workdir", "demo", *SMALL], tmp_path)
    check_terminal(session)
    assert "real features: clusters" in session.out
    for stage in ("train", "evaluate", "report"):
        assert f"{stage}: done in" in session.out, stage
    session = in_pipe(["reproduce", "digits", "--minutes", 0.01], tmp_path)  # which is cut off, and says so
    assert session.code == 75
    check_pipe(session._replace(code=0, err=session.err[: session.err.index("ncjax: ")]))
    assert "the next call" in session.out


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(tmp_path):
    session = in_terminal(["evaluate", "nowhere"], tmp_path, TERM="dumb")
    assert session.code == 2
    assert "\x1b" not in session.raw
    assert session.lines[-1].startswith("ncjax: error: ")
