# SPDX-License-Identifier: Apache-2.0
"""Functions in processes of their own: what they return, how they fail, and that nothing is left of them."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from ncjax.bench.limited import Answer, run_limited


def answer(variable):
    return os.getpid(), os.environ.get(variable)


def fail():
    raise ValueError("no such\nthing")


def end():
    os._exit(3)


def sleep_with_a_child(file):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(file).write_text(str(child.pid))
    time.sleep(600)


def test_it_is_another_process_with_other_variables(monkeypatch):
    monkeypatch.setenv("NCJAX_KEPT", "before")
    process, seen = run_limited(partial(answer, "NCJAX_KEPT"), 60.0, {"NCJAX_KEPT": "within"}).value
    assert process != os.getpid()
    assert seen == "within"
    assert os.environ["NCJAX_KEPT"] == "before"


@pytest.mark.parametrize(("function", "error"), [(fail, "ValueError: no such"), (end, "its process ended")])
def test_failures_are_told(function, error):
    assert run_limited(function, 60.0) == Answer(None, error)


def test_at_the_limit_it_ends_with_what_it_has_started(tmp_path):
    file = tmp_path / "child"
    assert run_limited(partial(sleep_with_a_child, file), 8.0) == Answer(None, "stopped after 8 s")
    child = int(file.read_text())
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the child still runs")
