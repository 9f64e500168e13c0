# SPDX-License-Identifier: Apache-2.0
"""A lock in a bucket, which has none: an object that is written only where nobody else has written it meanwhile.

Its holder renews it. One that is not renewed for `LEASE_SECS` belongs to a process that was killed, and is taken over;
no clocks are compared. TensorStore reads and writes it, on conditions that the store checks (`ifGenerationMatch`).
"""

import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ncjax.buckets import BucketPath

RENEW_SECS = 10.0
LEASE_SECS = 60.0
POLL_SECS = 2.0


class HeldElsewhere(Exception):
    """Another process holds the lock, and lives; the text names it."""


@contextmanager
def leased(path: BucketPath, holder: str, wait_secs: float = 0.0) -> Iterator[None]:
    """Hold the lock at a path while the block runs.

    Where another process takes it over, because this one was stopped for longer than `LEASE_SECS`, this process ends
    with code 1 when it renews next, within `RENEW_SECS` after it goes on.

    Args:
        path: of the object.
        holder: names this process.
        wait_secs: for the end of another process that holds it and lives.

    Raises:
        HeldElsewhere: another process holds it for longer than is waited.
        ValueError: the store refuses or cannot be reached.
    """
    import tensorstore

    store, token = tensorstore.KvStore.open(f"{path.parent}/").result(), f"{holder}\n{uuid.uuid4().hex}"
    generation, ended = _acquire(store, path, token, wait_secs), threading.Event()
    lease = _Lease(store, path, token, generation)
    renewer = threading.Thread(target=lease.renew_until, args=(ended,), name="ncjax-lease", daemon=True)
    renewer.start()
    try:
        yield
    finally:
        ended.set()
        renewer.join()
        with suppress(ValueError):
            store.write(path.name, None, if_equal=lease.generation).result()


def holder_of(content: str) -> str:
    """The process that the content of a lock names."""
    return content.partition("\n")[0]


def _acquire(store: Any, path: BucketPath, token: str, wait_secs: float) -> bytes:
    """The generation of the object that this process has written."""
    began = unchanged_since = time.monotonic()
    seen, told = b"", False
    while True:
        found = store.read(path.name).result()
        there, content, now = found.stamp.generation, found.value.decode(errors="replace"), time.monotonic()
        if content == token:  # written by an attempt whose answer was lost
            return bytes(there)
        if seen and there != seen and found.state != "missing" and now - began > wait_secs:
            raise HeldElsewhere(holder_of(content))
        unchanged_since, seen = (unchanged_since, seen) if there == seen else (now, there)
        if found.state == "missing" or now - unchanged_since > LEASE_SECS:
            if written := store.write(path.name, token, if_equal=there).result().generation:
                return bytes(written)
            continue
        if not told:
            told = True
            wait = f"waiting up to {LEASE_SECS:.0f} s to see if it runs"
            print(f"ncjax: {path.parent} was locked by {holder_of(content)}; {wait}", file=sys.stderr)
        time.sleep(POLL_SECS)


class _Lease:
    """The lock that this process holds."""

    def __init__(self, store: Any, path: BucketPath, token: str, generation: bytes) -> None:
        self.store, self.path, self.token, self.generation = store, path, token, generation

    def renew_until(self, ended: threading.Event) -> None:
        """Write it again and again; a store that cannot be reached is asked again the next time."""
        while not ended.wait(RENEW_SECS):
            with suppress(ValueError):
                self._renew()

    def _renew(self) -> None:
        if written := self.store.write(self.path.name, self.token, if_equal=self.generation).result().generation:
            self.generation = bytes(written)
            return
        found = self.store.read(self.path.name).result()
        self.generation = bytes(found.stamp.generation)
        if found.value.decode(errors="replace") != self.token:
            other = holder_of(found.value.decode(errors="replace")) or "another process"
            print(
                f"ncjax: {other} has taken over {self.path.parent}, because this process did not renew its lock for "
                f"{LEASE_SECS:.0f} s; it ends here, and what it has saved is kept",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)
