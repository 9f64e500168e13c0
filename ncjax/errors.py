# SPDX-License-Identifier: Apache-2.0
"""The one error that a user of ncjax can cause, and the one way to end early."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input, in one line: what is wrong, where, and what to do. The command line prints it and exits with 2."""


class Stopped(BaseException):
    """A signal asked a run to end, or another process did not come; the same command goes on from what is written.

    As KeyboardInterrupt it is no Exception: a signal comes anywhere, and what handles errors must not take it for one.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean NAME?)` with the known name that is most like the one that was given; empty: none is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
