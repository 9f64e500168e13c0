# SPDX-License-Identifier: Apache-2.0
"""Real signals to real commands, which wait in Python, in one long call of C, or for steps of a training."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ncjax.distributed.signals import stop_requests
from ncjax.errors import Stopped
from tests.runs import ROOT, command, ended, start

INT, TERM = signal.SIGINT, signal.SIGTERM
COMMAND = """
import hashlib, sys, time
import ncjax.cli.main as cli
from ncjax.distributed import signals
from ncjax.errors import Stopped

signals.GRACE_SECS = {grace}

def ready():
    print("ready", flush=True)

def wait():
    ready()
    time.sleep(60)

def compile(rounds=2**31 - 1):  # does not come back to Python, as a compilation
    ready()
    hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)

def swallow():
    ready()
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass

def in_steps():
    with signals.stop_requests(), signals.patience():
        compile()

def steps_that_end():
    with signals.stop_requests() as asked:
        with signals.patience():
            ready()
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                time.sleep(0.01)
        if asked():
            raise Stopped("stopped after step 3 of 9")

def after_the_last_steps():
    with signals.stop_requests():
        ready()
        time.sleep(1)

def dispatch(*_):
    {body}

cli.dispatch = dispatch
sys.argv = ["ncjax", "train"]
cli.main()
"""
LONG, SHORT = 1e6, 0.5  # seconds until a command is ended: never, or soon


def outcome(
    body: str, grace: float, numbers: list[int], pause: float = 0.3, started_by: tuple[str, ...] = ()
) -> tuple[int, str]:
    """Exit code and stderr of a command that gets these signals."""
    process = subprocess.Popen(
        [*started_by, sys.executable, "-c", COMMAND.format(body=body, grace=grace)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": "none"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    for number in numbers:
        time.sleep(pause)
        process.send_signal(number)
    ((code, err),) = ended([process], timeout=60)
    return code, err


@pytest.mark.parametrize(
    ("body", "grace", "numbers", "code", "message"),
    [
        ("wait()", LONG, [INT], 130, "interrupted;"),
        ("wait()", LONG, [TERM], 75, "stopped by SIGTERM;"),
        ("compile()", SHORT, [INT], 130, "interrupted;"),
        ("compile()", SHORT, [TERM], 75, "stopped by SIGTERM;"),
        ("compile()", LONG, [INT, INT], 130, "interrupted twice;"),
        ("compile()", LONG, [TERM, INT], 130, "interrupted twice;"),
        ("swallow()", SHORT, [INT], 130, "interrupted;"),
        ("swallow()", SHORT, [TERM], 75, "stopped by SIGTERM;"),
        ("swallow()", LONG, [INT, INT], 130, "interrupted twice;"),
        ("in_steps()", SHORT, [INT, INT], 130, "interrupted twice;"),
        ("in_steps()", SHORT, [INT, INT], 130, "stops after these steps, with a checkpoint; another Ctrl-C ends it"),
        ("steps_that_end()", SHORT, [INT], 75, "stopped after step 3 of 9;"),
        ("steps_that_end()", SHORT, [TERM], 75, "stopped after step 3 of 9;"),
        ("after_the_last_steps()", LONG, [INT], 130, "interrupted;"),
        ("after_the_last_steps()", LONG, [TERM], 75, "stopped by SIGTERM;"),
    ],
)
def test_no_signal_is_swallowed(body, grace, numbers, code, message):
    found, err = outcome(body, grace, numbers)
    assert found == code, err
    assert f"ncjax: {message}" in err
    assert "Traceback" not in err


def test_a_second_sigterm_counts_where_it_is_no_echo():
    code, err = outcome("steps_that_end()", LONG, [TERM, TERM], pause=0.0)
    assert (code, "stopped after step 3" in err) == (75, True), err
    code, err = outcome("in_steps()", LONG, [TERM, TERM], pause=1.2)
    assert (code, "interrupted twice" in err) == (75, True), err


def test_a_signal_that_is_ignored_stays_ignored():
    """As nohup, and shells that start a command in the background, want it."""
    deaf = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
    code, err = outcome("steps_that_end()", SHORT, [INT], started_by=deaf)
    assert (code, err) == (0, "")


@pytest.fixture
def handled(monkeypatch):
    """The numbers of signals that come to the handler from before."""
    found = []
    before = {number: signal.signal(number, lambda number, _: found.append(number)) for number in (INT, TERM)}
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("numbers", "answered", "expected"),
    [
        ([], False, []),
        ([INT], True, []),
        ([TERM], True, []),
        ([INT], False, [INT]),
        ([TERM], False, [TERM]),
        ([TERM, TERM], True, []),
        ([TERM, TERM], False, [TERM]),
        ([INT, INT], True, [INT]),
        ([TERM, INT], True, [INT]),
    ],
)
def test_a_request_is_answered_or_acts_as_without(handled, numbers, answered, expected):
    try:
        with stop_requests() as asked:
            assert not asked()
            for number in numbers:
                signal.raise_signal(number)
            assert asked() == bool(numbers)
            if answered:
                raise Stopped("after a step")
    except Stopped:
        assert answered
    assert handled == expected
    signal.raise_signal(TERM)
    assert handled == [*expected, TERM]


def test_another_thread_is_asked_nothing():
    found = []

    def work():
        with stop_requests() as asked:
            found.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


def test_stopped_is_no_error_that_readers_of_files_catch():
    assert not issubclass(Stopped, Exception)


COMPILES_FOR_EVER = """
import hashlib
import ncjax.training.loop as loop
def compile_chunk(*_):
    print("compiling", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
loop.compile_chunk = compile_chunk
"""


@pytest.mark.slow
@pytest.mark.parametrize(("numbers", "code"), [([TERM], 75), ([INT], 130), ([INT, INT], 130)])
def test_a_training_that_compiles_ends_and_its_work_directory_goes_on(numbers, code, tmp_path):
    process = start(command("train", tmp_path), before=COMPILES_FOR_EVER)
    assert process.stdout.readline() == "compiling\n"
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.3)
    ((found, err),) = ended([process], timeout=60)
    assert found == code, err
    ((found, err),) = ended([start(command("train", tmp_path))])
    assert found == 0, err
