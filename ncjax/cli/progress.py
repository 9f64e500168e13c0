# SPDX-License-Identifier: Apache-2.0
"""Draws what stages tell: bars in a terminal, lines elsewhere; on stderr, so that results can be redirected."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from ncjax.events import Event, listening, stage

HELD_SECS = 1.0  # commands that are over by then say nothing of their stages
LINE_SECS = (10.0, 60.0)  # between two lines of a stage that goes on: at first, and at most
LASTING_SECS = 2.0  # stages that are met again and again have a line at their end only where they take longer
NAME_WIDTH = 28


@dataclass(frozen=True)
class Going:
    """A stage that has begun.

    Attributes:
        event: the newest one.
        first: parts that were done at the beginning.
        began: of `time.monotonic`.
    """

    event: Event
    first: int
    began: float


@runtime_checkable
class Drawer(Protocol):
    """What is told of stages."""

    def show(self, event: Event) -> None: ...

    def close(self) -> None: ...


@contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[None]:
    """Draws the progress of everything inside the block on stderr; only the main process of several draws.

    Args:
        quiet: draw nothing.

    Example:
        >>> with show_progress(quiet=True):
        ...     pass  # such as ncjax.train(config)
    """
    if quiet:
        yield
        return
    drawer: Drawer = Bars() if _is_terminal() else Lines()

    def show(event: Event) -> None:
        if _is_main_process():
            drawer.show(event)

    with listening(show):
        try:
            yield
        finally:
            drawer.close()


def load_jax() -> None:
    """Joins the processes of a run and loads JAX and the pipeline, which takes seconds, as a stage of its own.

    Raises:
        UserError: as `ncjax.distributed.processes.initialize`.
        Stopped: as there.
    """
    with stage("start", "loads JAX"):
        from ncjax.distributed.processes import initialize

        initialize()
        import_module("ncjax.pipeline")


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def _is_main_process() -> bool:
    if "jax" not in sys.modules:
        return True
    from ncjax.distributed.processes import is_main_process

    return is_main_process()


def progress_text(going: Going, now: float) -> str:
    """Returns share, rate and time left of a stage, as far as they are known; else how long it has gone on."""
    event, secs = going.event, now - going.began
    gained = event.done - going.first
    parts = [f"{event.done / event.total:.0%}"] if event.total else []
    if not gained or secs <= 0:
        return ", ".join([*parts, duration(secs)])
    parts += [f"{rate_text(gained / secs)} {event.unit}/s"] if event.unit else []
    left = event.total - event.done
    roughly = "" if event.unit else "about "  # parts without a unit differ in length
    parts += [f"{roughly}{duration(secs * left / gained)} left"] if left > 0 else []
    return ", ".join(parts)


def end_text(going: Going, now: float) -> str:
    """Returns how long a stage took, and its rate."""
    event, secs = going.event, now - going.began
    gained = event.done - going.first
    rate = f", {rate_text(gained / secs)} {event.unit}/s" if gained and event.unit and secs > 0 else ""
    return f"{duration(secs)}{rate}"


def rate_text(rate: float) -> str:
    """Returns a rate to two digits or more, without exponent.

    Example:
        >>> rate_text(12345.6), rate_text(12.3), rate_text(0.0123)
        ('12,346', '12', '0.012')
    """
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def duration(secs: float) -> str:
    """Returns a duration for a person.

    Example:
        >>> duration(0.41), duration(73.0), duration(3 * 3600.0 + 61)
        ('0.4 s', '1 min 13 s', '3 h 01 min')
    """
    if secs < 9.95:
        return f"{secs:.1f} s"
    if round(secs) < 60:
        return f"{secs:.0f} s"
    minutes, rest = divmod(round(secs), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(secs / 60), 60)
    return f"{hours} h {minutes:02d} min"


class Stages:
    """The stages that go on, in their order, and those that were met before; for drawers, which hold its lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.going: dict[str, Going] = {}
        self.met: set[str] = set()

    def take(self, event: Event) -> tuple[Going, bool, bool]:
        """Returns the stage of an event, whether it begins for the first time, and whether its end deserves a line."""
        before, now = self.going.get(event.stage), time.monotonic()
        going = Going(event, event.done, now) if before is None else Going(event, before.first, before.began)
        self.going[event.stage] = going
        new = event.stage not in self.met
        if event.state:
            del self.going[event.stage]
            self.met.add(event.stage)
        lasted = now - going.began >= LASTING_SECS
        return going, new and before is None, event.state == "ended" and (new or lasted)


class Lines:
    """Lines for files and pipes: when a stage begins, now and then while it goes on, and when it has ended."""

    def __init__(self, held_secs: float = HELD_SECS) -> None:
        self.stages, self.closed, self.held_secs = Stages(), threading.Event(), held_secs
        self.held: list[str] | None = [] if held_secs else None
        self.due: dict[
            str, tuple[float, float]
        ] = {}  # when the next line of a stage is due, and the time to the one after
        self.thread = threading.Thread(target=self._watch, name="ncjax-progress", daemon=True)
        self.thread.start()

    def show(self, event: Event) -> None:
        """Takes an event."""
        with self.stages.lock:
            going, begins, ends = self.stages.take(event)
            if begins:
                self._say(event.stage, event.name)
            if ends:
                self._say(event.stage, f"done in {end_text(going, time.monotonic())}", event.name)

    def close(self) -> None:
        """Says nothing more; what is still held back is forgotten."""
        self.closed.set()
        self.thread.join()

    def _say(self, stage: str, *parts: str) -> None:
        line = f"[{stage}] {', '.join(filter(None, parts))}".strip()
        if self.held is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self.held.append(line)

    def _watch(self) -> None:
        if self.closed.wait(self.held_secs):
            return
        with self.stages.lock:
            held, self.held = self.held or [], None
            print("".join(f"{line}\n" for line in held), end="", file=sys.stderr, flush=True)
        while not self.closed.wait(0.5):
            with self.stages.lock:
                self._say_what_is_due(time.monotonic())

    def _say_what_is_due(self, now: float) -> None:
        going = self.stages.going
        self.due = {name: due for name, due in self.due.items() if name in going}
        for name, one in going.items():
            at, pause = self.due.setdefault(name, (one.began + LINE_SECS[0], LINE_SECS[0]))
            if now >= at:
                self._say(name, progress_text(one, now), one.event.name)
                self.due[name] = now + pause, min(2 * pause, LINE_SECS[1])


class Bars:
    """A bar for each stage that goes on, and a line above them for each that has ended."""

    def __init__(self) -> None:
        self.stages = Stages()
        self.live: Any = None

    def show(self, event: Event) -> None:
        """Takes an event."""
        with self.stages.lock:
            going, _, ends = self.stages.take(event)
            if self.live is None:
                self.live = self._start()
            if ends:
                self.live.console.print(self._ended(going, time.monotonic()))
            if not self.stages.going:
                self.close()

    def close(self) -> None:
        """Takes the bars away, so that others may print."""
        live, self.live = self.live, None
        if live is not None:
            live.stop()

    def _start(self) -> Any:
        from rich.console import Console
        from rich.live import Live

        live = Live(
            console=Console(stderr=True),
            get_renderable=self._bars,
            refresh_per_second=5,
            transient=True,
            redirect_stdout=False,
        )
        live.start()
        return live

    def _ended(self, going: Going, now: float) -> Any:
        from rich.text import Text

        text = f"{going.event.stage}: done in {end_text(going, now)}"
        return Text(f"{text}, {going.event.name}" if going.event.name else text, no_wrap=True, overflow="ellipsis")

    def _bars(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table, now = Table.grid(padding=(0, 1), expand=True), time.monotonic()
        table.add_column(no_wrap=True)
        table.add_column(ratio=1, min_width=8)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=NAME_WIDTH)
        for one in tuple(self.stages.going.values()):
            event = one.event
            bar = ProgressBar(total=event.total or None, completed=event.done, pulse=not event.total)
            table.add_row(
                event.stage, bar, progress_text(one, now), Text(event.name, overflow="ellipsis", no_wrap=True)
            )
        return table
