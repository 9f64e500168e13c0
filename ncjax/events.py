# SPDX-License-Identifier: Apache-2.0
"""What stages say while they work, and who listens: the command line draws it, others may log it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable


class Event(NamedTuple):
    """What a stage is doing.

    Attributes:
        stage: what it is, such as `train`.
        done: parts that are done.
        total: of so many; 0: not known.
        name: what it works on, or the newest part.
        unit: what the parts are, in the plural; empty: parts that differ, without a rate.
        state: ended: the stage is over; failed: so it is, by an exception; empty: it goes on.
    """

    stage: str
    done: int
    total: int
    name: str = ""
    unit: str = ""
    state: Literal["", "ended", "failed"] = ""


RELAY_SECS = 5.0  # to hear what another process told before its end
Listener = Callable[[Event], None]
_listeners: list[Listener] = []


@runtime_checkable
class Advance(Protocol):
    """Says that so many more parts are done; an empty name leaves the one before."""

    def __call__(self, parts: int, name: str = "") -> None: ...


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Calls a function with every event inside the block, from whatever thread it is told.

    Example:
        >>> with listening(lambda event: print(event.stage, event.done, event.total)):
        ...     with stage("sweep", total=2) as advance:
        ...         advance(1)
        sweep 0 2
        sweep 1 2
        sweep 1 2
    """
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(event: Event) -> None:
    """Calls all listeners."""
    for listener in tuple(_listeners):
        listener(event)


@contextmanager
def stage(
    stage: str, name: str = "", *, total: int = 0, done: int = 0, unit: str = "", on_event: Listener = tell
) -> Iterator[Advance]:
    """Tells the start and the end of the block, and what it advances by in between.

    Args:
        stage: what it is, such as `train`.
        name: what it works on.
        total: parts; 0: not known.
        done: parts that are done already, such as those of an earlier process.
        unit: what the parts are, in the plural.
        on_event: who is told; by default all who listen.

    Yields:
        A function of `(parts, name)`, to be called from any thread.
    """
    event, lock = Event(stage, done, total, name, unit), threading.Lock()
    on_event(event)

    def advance(parts: int, name: str = "") -> None:
        nonlocal event
        with lock:
            event = event._replace(done=event.done + parts, name=name or event.name)
            on_event(event)

    try:
        yield advance
    except BaseException:
        on_event(event._replace(state="failed"))
        raise
    on_event(event._replace(state="ended"))


@contextmanager
def relaying(queue: Any) -> Iterator[None]:
    """Tells here what another process puts into a queue, such as by `listening(queue.put)`.

    Args:
        queue: of `multiprocessing`.
    """

    def relay() -> None:
        for event in iter(queue.get, None):
            tell(event)

    thread = threading.Thread(target=relay, name="ncjax-events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        queue.cancel_join_thread()  # a process that was killed may hold the lock of the queue for ever
        queue.put(None)
        thread.join(RELAY_SECS)
