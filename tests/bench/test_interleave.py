# SPDX-License-Identifier: Apache-2.0
"""Peers take turns, a failing one is reported, and memory is that of the peer alone."""

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from ncjax.bench.interleave import Peer, interleave


def counting_timer(path, name):
    def measure():
        with path.open("a") as file:
            file.write(name)
        return float(len(path.read_text()))

    return measure


def failing_timer():
    raise ValueError("no such device\nand a second line")


def dying_timer():
    calls = []

    def measure():
        calls.append(1)
        if len(calls) == 2:
            os._exit(1)
        return 1.0

    return measure


def big_timer(megabytes):
    block = bytearray(megabytes * 2**20)
    return lambda: float(len(block))


def test_each_peer_warms_up_alone_then_they_take_turns(tmp_path):
    path = tmp_path / "calls"
    found = interleave({name: Peer(partial(counting_timer, path, name)) for name in "ab"}, rounds=3)
    assert path.read_text() == "ab" + 3 * "ab"
    assert found["a"].values == (3, 5, 7)
    assert found["b"].values == (4, 6, 8)
    assert found["a"].error == found["b"].error == ""
    assert found["a"].setup_secs > 0


@pytest.mark.parametrize("peers", [1, 2, 3, 4])
def test_when_the_time_is_over_two_peers_are_measured_once_and_the_others_say_so(tmp_path, peers):
    path, names = tmp_path / "calls", "abcd"[:peers]
    found = interleave(
        {name: Peer(partial(counting_timer, path, name)) for name in names}, rounds=3, until=time.monotonic() - 1
    )
    assert path.read_text() == 2 * names[:2]  # each warms up, and is measured once
    assert [len(found[name].values) for name in names] == [1, 1, 0, 0][:peers]
    assert [found[name].error != "" for name in names] == [False, False, True, True][:peers]


@pytest.mark.parametrize(
    ("broken", "error"), [(failing_timer, "ValueError: no such device"), (dying_timer, "its process ended")]
)
def test_a_peer_that_fails_does_not_stop_the_others(tmp_path, broken, error):
    found = interleave({"broken": Peer(broken), "a": Peer(partial(counting_timer, tmp_path / "calls", "a"))}, rounds=2)
    assert found["broken"].values == ()
    assert found["broken"].error == error
    assert found["a"].values == (2, 3)


def test_peak_memory_is_that_of_the_peer_on_top_of_its_libraries():
    found = interleave(
        {"small": Peer(partial(big_timer, 1)), "big": Peer(partial(big_timer, 200), ("json",))}, rounds=1
    )
    megabytes = {name: measured.peak_bytes / 2**20 for name, measured in found.items()}
    assert 195 < megabytes["big"] < 300
    assert megabytes["small"] < 100


def endless_timer(path):
    path.write_text(str(os.getpid()))
    while True:
        pass


def test_a_busy_peer_ends_when_its_parent_is_killed(tmp_path):
    path = tmp_path / "pid"
    parent = multiprocessing.get_context("spawn").Process(
        target=interleave, args=({"busy": Peer(partial(endless_timer, path))},), kwargs={"rounds": 1}
    )
    parent.start()
    while not (path.exists() and path.read_text()):
        time.sleep(0.05)
    peer = int(path.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    deadline = time.monotonic() + 60
    while runs(peer):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def runs(pid):
    """Whether a process computes: one that has ended may stay listed until it is collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
