# SPDX-License-Identifier: Apache-2.0
"""Reading and decoding ahead, in the order asked for: in threads of this process, or in processes of their own."""

import os
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any, TypeVar

from ncjax.distributed.signals import end_with_parent
from ncjax.errors import UserError, first_line

T = TypeVar("T")
GRACE_SECS = 60  # that a worker goes on after SIGTERM
RANDOM = ("jax_default_prng_impl", "jax_threefry_partitionable")  # settings of JAX that decide what a key gives


def in_order(read: Callable[[int], T], numbers: range, ahead: int, workers: int = 0) -> Generator[T, None, None]:
    """`read(i)` for each number, in order; Grain reads up to `ahead` of them before they are asked for.

    Args:
        read: called from several threads; with workers it is pickled, and called in their processes, where JAX has the
            CPU alone.
        numbers: what is read.
        ahead: results that wait at most, but for one or two in each thread or worker.
        workers: processes; 0: as many threads as this process has processors.

    Raises:
        UserError: Grain is not installed, or a worker has died; and what `read` raises.
    """
    try:
        import grain
    except ImportError as error:
        raise UserError("data.streamed needs grain: pip install 'ncjax[stream]'") from error
    workers = min(workers, len(numbers))
    threads = 0 if workers else processors()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(ahead, threads) if threads else 0)
    source = grain.MapDataset.range(numbers.start, numbers.stop, numbers.step).map(read).to_iter_dataset(options)
    if workers:
        _read_no_flags()
        each = grain.multiprocessing.MultiprocessingOptions(workers, max(1, ahead // workers))
        source = source.mp_prefetch(each, partial(_start_worker, _random_settings()))
    iterator = iter(source)
    try:
        yield from iterator
    except RuntimeError as error:
        if not workers or "terminated unexpectedly" not in str(error):
            raise
        raise UserError(
            f"a process of data.workers has died ({first_line(error)}); it may have met the limit of memory, or the "
            "script that calls ncjax lacks `if __name__ == '__main__':`"
        ) from error
    finally:
        iterator.close()


def _read_no_flags() -> None:
    """Grain has flags of absl, which are for programs that parse them: here they have their defaults."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _random_settings() -> Mapping[str, Any]:
    import jax

    return {name: getattr(jax.config, name) for name in RANDOM}


def _start_worker(settings: Mapping[str, Any], worker: int, workers: int) -> None:
    """In a worker: JAX has one thread of the CPU, and signals are left to the parent, with which the worker ends.

    A scheduler sends SIGTERM to all processes of a job; the parent then needs its workers for the steps under way.
    """
    del worker, workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECS))
    threading.Thread(target=end_with_parent, name="ncjax-parent", daemon=True).start()
    os.environ["NPROC"] = "1"
    import jax

    jax.config.update("jax_platforms", "cpu")
    for name, value in settings.items():
        jax.config.update(name, value)
