# SPDX-License-Identifier: Apache-2.0
"""Events: who is told what, from which thread and process, and how a stage ends."""

import doctest
import multiprocessing
import threading
from typing import Any

import pytest

from ncjax import events
from ncjax.events import Event, listening, relaying, stage, tell


def test_examples_in_docstrings():
    found = doctest.testmod(events)
    assert found.attempted > 0
    assert found.failed == 0


def test_a_stage_tells_its_start_its_advances_and_its_end():
    told: list[Event] = []
    with listening(told.append), stage("train", "epoch 1", total=10, done=4, unit="images") as advance:
        advance(3)
        advance(3, "epoch 2")
    assert told == [
        Event("train", 4, 10, "epoch 1", "images"),
        Event("train", 7, 10, "epoch 1", "images"),
        Event("train", 10, 10, "epoch 2", "images"),
        Event("train", 10, 10, "epoch 2", "images", "ended"),
    ]


def test_a_stage_that_fails_says_so_and_raises():
    told: list[Event] = []
    with pytest.raises(ValueError, match="no"), listening(told.append), stage("load data"):
        raise ValueError("no")
    assert [event.state for event in told] == ["", "failed"]


def test_who_listens_no_more_is_told_nothing():
    told: list[Event] = []
    with listening(told.append):
        tell(Event("one", 0, 0))
    tell(Event("two", 0, 0))
    assert [event.stage for event in told] == ["one"]


def test_a_listener_of_its_own_replaces_those_who_listen():
    ours: list[Event] = []
    theirs: list[Event] = []
    with listening(theirs.append), stage("evaluate", on_event=ours.append):
        pass
    assert len(ours) == 2
    assert theirs == []


def test_advances_from_threads_are_all_counted():
    told: list[Event] = []
    with listening(told.append), stage("evaluate", total=400) as advance:
        threads = [threading.Thread(target=lambda: [advance(1) for _ in range(100)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [event.done for event in told] == [*range(401), 400]


def _work(queue: Any) -> None:
    with listening(queue.put), stage("train with PyTorch", total=2) as advance:
        advance(2)


def test_what_another_process_tells_is_told_here():
    told: list[Event] = []
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with listening(told.append), relaying(queue):
        process = context.Process(target=_work, args=(queue,))
        process.start()
        process.join()
    assert process.exitcode == 0
    assert [(event.done, event.state) for event in told] == [(0, ""), (2, ""), (2, "ended")]
