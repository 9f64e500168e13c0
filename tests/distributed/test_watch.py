# SPDX-License-Identifier: Apache-2.0
"""Where nothing ends for long, a line says what waits; otherwise nothing is said."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.runs import DEMO, ROOT, ended, start

WAITS = """
import hashlib, time
from ncjax.distributed import watch
watch.SILENT_SECS = 1.0

def wait(secs):
    until = time.monotonic() + secs
    while time.monotonic() < until:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**5)
"""


def said(body: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-c", WAITS + body],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return re.findall(r"ncjax: process \d+ has waited for .* s for (.*) to end; where it never does", ended.stderr)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("with watch.watched('a step'): wait(1.5)", ["a step"]),
        ("with watch.watched('a step'): wait(2.5)", ["a step", "a step"]),  # after 1 and 2 s
        ("with watch.watched('a step'): wait(1.5)\nwith watch.watched('a look'): wait(1.5)", ["a step", "a look"]),
        ("with watch.watched('all'):\n  with watch.watched('a step'): wait(1.5)", ["a step"]),
        ("for i in range(20):\n  with watch.watched('a step'): wait(0.1)", []),
        ("with watch.watched('a step'): pass\nwait(2.0)", []),
    ],
)
def test_what_waits_is_named(body: str, expected: list[str]) -> None:
    assert said(body) == expected


HANGS = """
import time
import jax
from ncjax.distributed import watch
from ncjax.training import monitor
import ncjax.cli.main
watch.SILENT_SECS = 2
measured = monitor._cheap

def never(value):
    while True:
        time.sleep(1)

def hung(statistics):
    found = measured(statistics)
    return {
        name: jax.pure_callback(never, jax.ShapeDtypeStruct(one.shape, one.dtype), one, vmap_method="sequential")
        for name, one in found.items()
    }

monitor._cheap = hung
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_device_that_never_ends_is_named_and_sigterm_ends_it(tmp_path) -> None:
    """The first look at collapse hangs."""
    arguments = ["train", DEMO, "--workdir", tmp_path, "--optim.epochs", 12]
    process = start(arguments, devices=1, before=HANGS)
    line = ""
    try:
        while "for the measures of epoch 10 to end" not in line:
            line = process.stderr.readline()
            assert line, "it ended"
        process.send_signal(signal.SIGTERM)
    finally:
        ((code, _),) = ended([process], timeout=60)
    assert code == 75
