# SPDX-License-Identifier: Apache-2.0
"""A stage in a process of its own: what it returns, how it fails, and that it ends with its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ncjax.bench.apart import apart
from ncjax.data import load_dataset
from ncjax.errors import UserError
from ncjax.events import listening
from ncjax.paths import user_path
from ncjax.tables import find_named
from tests.runs import ROOT


def test_results_come_back_from_another_process():
    assert apart(os.getpid) != os.getpid()
    assert apart(max, 3, 5) == 5


def test_what_stages_tell_there_is_told_here():
    told = []
    with listening(told.append):
        apart(load_dataset, "digits")
    assert [(event.stage, event.name, event.state) for event in told] == [
        ("load data", "digits", ""), ("load data", "digits", "ended")
    ]  # fmt: skip


def test_errors_of_the_user_come_back_as_they_are():
    with pytest.raises(UserError, match=r"model\.name"):
        apart(find_named, {"cnn": user_path}, "none", "model.name")


def test_other_errors_are_written_by_the_process_that_has_them(capfd):
    with pytest.raises(RuntimeError, match="getitem failed in a process of its own"):
        apart(_getitem(), {}, "missing")
    assert "KeyError: 'missing'" in capfd.readouterr().err


def _getitem():
    import operator

    return operator.getitem


def test_a_process_that_is_killed_is_one_line():
    with pytest.raises(UserError, match="the process of _exit was killed"):
        apart(os._exit, 3)


SLEEPS = """
import time
from ncjax.bench.apart import apart
from ncjax.data import load_dataset
from ncjax.distributed.signals import ends_on_signals
from ncjax.errors import Stopped

if __name__ == "__main__":
    with ends_on_signals():
        try:
            apart(time.sleep, 120)
        except Stopped as stop:
            print(stop)
"""


def test_a_signal_ends_both(tmp_path):
    script = tmp_path / "sleeps.py"
    script.write_text(SLEEPS)
    started = subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    try:
        child = wait_for(lambda: children_of(started.pid))
        time.sleep(2.0)  # for it to import what it needs
        started.send_signal(signal.SIGTERM)
        said, _ = started.communicate(timeout=60)
    finally:
        started.kill()
    assert "stopped by SIGTERM" in said
    assert not any(Path(f"/proc/{number}").exists() for number in child)


ORPHAN = """
import os, time
from ncjax.bench.apart import apart

def work():
    print(os.getpid(), flush=True)
    time.sleep(300)

if __name__ == "__main__":
    apart(work)
"""


def test_the_process_ends_with_the_one_that_started_it(tmp_path):
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    paths = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=paths)
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(600):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if "Z" in Path(f"/proc/{child}/stat").read_text().split(")")[-1].split()[0]:
            return  # ended, and nobody has asked for its exit code
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("it is still there")


def children_of(number):
    """The processes that have it for a parent, but for the one that cleans up after multiprocessing."""
    found = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    return [one for one in found if "spawn_main" in Path(f"/proc/{one}/cmdline").read_text()]


def wait_for(look, secs=60):
    end = time.monotonic() + secs
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError("nothing came")
