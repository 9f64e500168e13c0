# SPDX-License-Identifier: Apache-2.0
"""The command line: it calls one verb, and ends with an exit code; the last line on stderr explains it."""

import errno
import platform
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata

from ncjax import __version__
from ncjax.buckets import is_in_bucket
from ncjax.cli.progress import show_progress
from ncjax.cli.verbs import QUIET, VERBS, dispatch, shows_overview
from ncjax.distributed.signals import AGAIN, INTERRUPTED, STOPPED, ends_on_signals
from ncjax.errors import Stopped, UserError, first_line

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def main() -> None:
    """Runs the verb on the command line.

    Exit codes: 2 with one line on bad input, 130 when interrupted, 75 when a signal stopped a training that the same
    command goes on with, or a bucket cannot be reached.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != QUIET]
    if arguments[:1] == ["--version"]:
        print(version())
        return
    if not shows_overview(arguments):
        from ncjax.distributed.threads import reserve_threads
        from ncjax.storage.caches import keep_compiled_programs

        keep_compiled_programs()
        reserve_threads()
    with ends_on_signals():
        code, why = _outcome(arguments, quiet=QUIET in sys.argv)
        if code:
            signal.signal(signal.SIGTERM, lambda *_: None)  # said already; who insists is answered by the thread
            print(f"ncjax: {why}", file=sys.stderr, flush=True)
            _leave(code, why)
            raise SystemExit(code)


def version() -> str:
    """Returns the version of ncjax, and of what its numbers depend on."""
    return f"ncjax {__version__} (JAX {metadata.version('jax')}, Python {platform.python_version()})"


def _outcome(arguments: Sequence[str], *, quiet: bool) -> tuple[int, str]:
    """The exit code, and what a code that is not 0 means."""
    try:
        with show_progress(quiet=quiet or shows_overview(arguments)):
            dispatch("ncjax", "verb", VERBS, arguments)
    except UserError as error:
        return 2, f"error: {' '.join(str(error).split())}"
    except KeyboardInterrupt:
        return INTERRUPTED, f"interrupted; {AGAIN}"
    except Stopped as stop:
        return STOPPED, f"{stop}; the same command goes on from there"
    except OSError as error:
        if error.errno == errno.EIO and is_in_bucket(error.filename):
            return STOPPED, f"error: cannot reach {error.filename}: {error.strerror}; {AGAIN}"
        if error.errno not in UNWRITABLE:
            raise
        return 2, f"error: cannot write {error.filename or 'a file'}: {error.strerror}; {AGAIN}"
    except Exception as error:
        if not _is_distributed():
            raise
        return _failed_process(error)
    return 0, ""


def _is_distributed() -> bool:
    if "jax" not in sys.modules:
        return False
    from ncjax.distributed.agreement import is_joined

    return is_joined()


def _failed_process(error: Exception) -> tuple[int, str]:
    """A process that fails leaves the others at once, for they would wait in vain; one that lost a peer can go on."""
    from ncjax.distributed.agreement import others_ended
    from ncjax.distributed.processes import lost_peer

    if not lost_peer(error):
        traceback.print_exception(error)
        return 1, f"error: {type(error).__name__}: {first_line(error)}"
    ended = "; ".join(f"process {process}: {why}" for process, (_, why) in others_ended().items())
    return STOPPED, f"another process of this run ended or cannot be reached{f' ({ended})' if ended else ''}; {AGAIN}"


def _leave(code: int, why: str) -> None:
    """One process of a distributed run ends at once when it fails: the others would wait for it at their end."""
    if _is_distributed():
        from ncjax.distributed.agreement import say_why_ended
        from ncjax.distributed.processes import exit_immediately

        say_why_ended(code, why)
        exit_immediately(code)
