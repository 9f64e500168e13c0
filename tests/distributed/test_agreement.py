# SPDX-License-Identifier: Apache-2.0
"""Real processes that are about to do different things stop, all of them, with what differs."""

import ast
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ncjax.distributed import agreement
from tests.runs import command, ended, environment_of_a_user, start, start_several

CONTENTS = [  # of processes 0 and 1, and what differs
    ({"seeds": 1}, {"seeds": 1}, ""),
    ({"seeds": 1}, {"seeds": 2}, "seeds: 1 on process 0, 2 on process 1"),
    ({"optim": {"lr": (0.1,)}}, {"optim": {"lr": [0.1]}}, ""),
    ({"optim": {"lr": (0.1,)}}, {"optim": {"lr": [0.2]}}, "optim.lr: [0.1] on process 0, [0.2] on process 1"),
    ({"a": 1, "b": {"c": 2}}, {"a": 2, "b": {"c": 3}}, "a: 1 on process 0, 2 on process 1; b.c: 2 on"),
    ({"a": 1}, {}, "a: 1 on process 0, None on process 1"),
    ({}, {"a": 1}, "a: None on process 0, 1 on process 1"),
    ({"versions": {"jax": "0.9"}}, {"versions": {"jax": "0.10"}}, "versions.jax: '0.9' on process 0, '0.10' on"),
    ({"path": Path("x")}, {"path": "x"}, ""),
    ({"name": "ä" * 5000}, {"name": "ä" * 5000}, ""),
    ({"mesh": {"data": 0}}, {"mesh": {"data": 2}}, "mesh.data: 0 on process 0, 2 on process 1"),
    ({"a": True}, {"a": "True"}, "a: True on process 0, 'True' on process 1"),
]
JOINS = """
import sys
from pathlib import Path
import jax
from ncjax.distributed.agreement import check_agreement
from ncjax.errors import UserError
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
found = []
for content in {contents}:
    try:
        found.append(check_agreement(content) or "")
    except UserError as error:
        found.append(str(error))
print(found)
jax.distributed.shutdown()
"""


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_two_processes_find_what_differs() -> None:
    address, processes = free_address(), []
    for process in (0, 1):
        contents = repr([content[process] for content in CONTENTS]).replace("PosixPath", "Path")
        start = [sys.executable, "-c", JOINS.replace("{contents}", contents), address, str(process)]
        given = environment_of_a_user() | {"JAX_PLATFORMS": "cpu"}
        processes.append(subprocess.Popen(start, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for out, err in [process.communicate(timeout=120) for process in processes]:
        assert out, err
        for (*_, expected), found in zip(CONTENTS, ast.literal_eval(out), strict=True):
            assert bool(found) == bool(expected), (found, expected)
            assert expected in found


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([{"a": 1}, {"a": 1}], ""),
        ([{"a": 1}, {"a": 2}], "a: 1 on process 0, 2 on process 2"),
        ([{"a": 3}, {"a": 2}], "a: 1 on process 0, 3 on process 1"),
        ([{"a": 1, "b": 1}, {"a": 2}], "b: None on process 0, 1 on process 1; a: 1 on process 0, 2 on process 2"),
    ],
)
def test_of_many_processes_the_first_that_differs_is_named(others, expected) -> None:
    assert agreement._differing([{"a": 1}, *others]) == expected


def test_alone_there_is_nothing_to_compare() -> None:
    agreement.check_agreement({"a": object()})
    agreement.check_devices()
    assert agreement.others_ended() == {}


FAILS = """
import ncjax.pipeline as pipeline
from ncjax.errors import UserError
def fail(_):
    raise UserError("the data is gone")
pipeline.load_dataset = fail
"""


def pair(first: list, second: list, options: tuple[dict, dict] = ({}, {})) -> list[tuple[int, str]]:
    """Two processes with commands of their own."""
    given = {"NCJAX_COORDINATOR": free_address(), "NCJAX_PROCESSES": 2}
    both = enumerate(zip((first, second), options, strict=True))
    return ended([start(line, NCJAX_PROCESS=process, **given, **more) for process, (line, more) in both])


@pytest.mark.slow
def test_a_process_that_fails_ends_the_other_with_its_reason(tmp_path: Path) -> None:
    line = command("train", tmp_path / "new", "--mesh.data", 0)
    (code, err), (other, why) = pair(line, line, ({"before": FAILS}, {}))
    assert (code, other) == (2, 75), why
    assert "ncjax: error: the data is gone" in err
    assert "process 0 of this run has ended (error: the data is gone)" in why
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "options", "expected"),
    [
        (["--seeds", 2], {}, "config.seeds: 1 on process 0, 2 on process 1"),
        (["--workdir", "elsewhere"], {}, "workdir: "),
        (["--optim.lr", 0.2], {}, "config.optim.lr: "),
        ([], {"devices": 3}, "devices: '1 x cpu' on process 0, '3 x cpu' on process 1"),
        (
            [],
            {"before": "import ncjax.pipeline as p; v = p.versions(); p.versions = lambda: v | {'jax': '0.1'}"},
            "versions.jax: ",
        ),
    ],
)
def test_commands_that_differ_write_nothing(other, options, expected, tmp_path: Path) -> None:
    line = command("train", tmp_path / "new", "--mesh.data", 0)
    for code, err in pair(line, [*line, *other], ({}, options)):
        assert code == 2, err
        assert f"ncjax: error: the processes of this run differ ({expected}" in err
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_is_killed_ends_the_other(lost: int, tmp_path: Path) -> None:
    """Where it waits for no collective, JAX ends it, and says why."""
    wait = "import ncjax.pipeline as p, time\np.load_dataset = lambda _: print('loads', flush=True) or time.sleep(600)"
    line = command("train", tmp_path / "new", "--mesh.data", 0)
    processes = start_several(line, processes=2, devices=1, before=wait)
    for process in processes:
        assert process.stdout.readline() == "loads\n"
    processes[lost].kill()
    code, err = ended(processes, timeout=100)[1 - lost]
    assert code == -6
    assert "another task died" in err
