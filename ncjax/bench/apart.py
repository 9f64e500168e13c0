# SPDX-License-Identifier: Apache-2.0
"""A stage in a process of its own: it has the device to itself, and gives it back at its end."""

import multiprocessing
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from ncjax.distributed.signals import end_with_parent, ends_on_signals, patience
from ncjax.errors import Stopped, UserError
from ncjax.events import listening, relaying

P = ParamSpec("P")
T = TypeVar("T")


def apart(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Calls a function of a module in a process of its own; a signal to this process is passed on to it.

    The process ends with this one, and what its stages tell is told here.

    Raises:
        UserError: the function raised one, or its process was killed.
        Stopped: a signal asked for it.
        RuntimeError: the function raised anything else; that process has written what.
    """
    context = multiprocessing.get_context("spawn")
    queue, (receiver, sender) = context.Queue(), context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, queue, function, arguments, keywords))
    with receiver, relaying(queue):
        process.start()
        sender.close()
        try:
            raised, found = receiver.recv()
        except EOFError:
            process.join()
            raise UserError(f"the process of {function.__name__} was killed; the same command goes on") from None
        except BaseException:
            process.terminate()
            with patience():
                process.join()
            raise
        process.join()
    queue.close()
    if raised is not None:
        raise raised
    return found


def _call(sender: Connection, queue: Any, function: Callable[..., Any], arguments: Any, keywords: Any) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        with ends_on_signals(), listening(queue.put):
            found: tuple[BaseException | None, Any] = None, function(*arguments, **keywords)
    except (UserError, Stopped) as error:
        found = (error, None)
    except KeyboardInterrupt:
        found = Stopped("interrupted"), None
    except Exception as error:
        traceback.print_exception(error)
        found = RuntimeError(f"{function.__name__} failed in a process of its own"), None
    sender.send(found)
