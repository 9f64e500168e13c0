# SPDX-License-Identifier: Apache-2.0
"""Reading ahead in threads and in processes: the same results in the same order, and what ends it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing

import jax
import numpy as np
import pytest

from ncjax.data.workers import in_order
from ncjax.errors import UserError


def squares(number):
    return np.full((2, 3), number**2)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_results_come_in_the_order_asked_for(workers):
    found = list(in_order(squares, range(3, 40, 2), 4, workers))
    np.testing.assert_array_equal(found, [squares(number) for number in range(3, 40, 2)])


def test_an_empty_range_starts_nothing():
    assert list(in_order(squares, range(5, 5), 4, 2)) == []


def test_workers_are_other_processes_without_the_accelerator_and_errors_come_back_as_they_are():
    def look(number):
        if number == 5:
            raise UserError("train/bee/17.png is not an image that can be read")
        import jax

        return os.getpid(), jax.config.jax_platforms, jax.config.jax_threefry_partitionable

    with closing(in_order(look, range(8), 2, 2)) as results:
        found = [next(results) for _ in range(5)]
        with pytest.raises(UserError, match=r"^train/bee/17\.png is not an image"):
            next(results)
    pids, platforms, partitionable = zip(*found, strict=True)
    assert len(set(pids)) == 2
    assert os.getpid() not in pids
    assert set(platforms) == {"cpu"}
    assert set(partitionable) == {jax.config.jax_threefry_partitionable}


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_reading_in_one_line():
    def die(number):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(UserError, match=r"^a process of data\.workers has died .*exit code -9") as error:
        list(in_order(die, range(6), 2, 2))
    assert "\n" not in str(error.value)


PARENT = """
    import os, signal, sys, time
    from ncjax.data.workers import in_order

    def read(number):
        return os.getpid()

    if __name__ == "__main__":
        numbers = in_order(read, range(1000), 2, 2)
        print(next(numbers), next(numbers), flush=True)
        time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent_and_not_before(number, tmp_path):
    (tmp_path / "parent.py").write_text(textwrap.dedent(PARENT))
    with subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = list(map(int, parent.stdout.readline().split()))
        assert len(set(pids)) == 2
        for pid in pids:
            os.kill(pid, signal.SIGTERM)  # as schedulers send it to all processes of a job
        time.sleep(1)
        assert all(map(is_alive, pids))
        parent.send_signal(number)
        parent.wait(30)
    deadline = time.monotonic() + 20
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_alive, pids))


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_without_grain_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(UserError, match=r"^data\.streamed needs grain: pip install 'ncjax\[stream\]'"):
        next(in_order(squares, range(3), 1))
