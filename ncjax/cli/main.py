# SPDX-License-Identifier: Apache-2.0
"""The command line: it calls one verb, and ends with an exit code and at most one line on stderr."""

import errno
import signal
import sys
import traceback
from collections.abc import Sequence

from ncjax.cli.verbs import VERBS, dispatch, shows_overview
from ncjax.errors import Stopped, UserError

STOPPED = 75  # EX_TEMPFAIL
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
AGAIN = "the same command goes on from the last checkpoint"


def main() -> None:
    """Runs the verb on the command line.

    Exit codes: 2 with one line on bad input, 130 when interrupted, 75 when a signal stopped a training that the same
    command goes on with.
    """
    arguments = sys.argv[1:]
    if not shows_overview(arguments):
        from ncjax.storage.caches import keep_compiled_programs

        keep_compiled_programs()
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        code = _exit_code(arguments)
    finally:
        signal.signal(signal.SIGTERM, before)
    if code:
        _leave(code)
        raise SystemExit(code)


def _terminated(number: int, frame: object) -> None:
    raise Stopped("stopped by SIGTERM")


def _exit_code(arguments: Sequence[str]) -> int:
    try:
        dispatch("ncjax", "verb", VERBS, arguments)
    except UserError as error:
        print(f"ncjax: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"ncjax: interrupted; {AGAIN}", file=sys.stderr)
        return 130
    except Stopped as stop:
        print(f"ncjax: {stop}; the same command goes on from there", file=sys.stderr)
        return STOPPED
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(f"ncjax: error: cannot write {error.filename or 'a file'}: {error.strerror}; {AGAIN}", file=sys.stderr)
        return 2
    except Exception as error:
        if not _is_distributed():
            raise
        return _failed_process(error)
    return 0


def _is_distributed() -> bool:
    if "jax" not in sys.modules:
        return False
    from ncjax.distributed.processes import is_distributed

    return is_distributed()


def _failed_process(error: Exception) -> int:
    """A process that fails leaves the others at once, for they would wait in vain; one that lost a peer can go on."""
    from ncjax.distributed.processes import lost_peer

    if not lost_peer(error):
        traceback.print_exception(error)
        return 1
    print(f"ncjax: another process of this run ended or cannot be reached; {AGAIN}", file=sys.stderr)
    return STOPPED


def _leave(code: int) -> None:
    """One process of a distributed run ends at once when it fails: the others would wait for it at their end."""
    if "jax" in sys.modules:
        from ncjax.distributed.processes import exit_immediately

        exit_immediately(code)
