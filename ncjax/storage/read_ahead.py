# SPDX-License-Identifier: Apache-2.0
"""Reading while what was read before is used."""

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterable[T]) -> Generator[T, None, None]:
    """The same items; each is made, in a thread of its own, while the one before is used.

    Where `items` is a generator, it is closed when this one is.
    """
    done = object()
    iterator: Iterator[T] = iter(items)

    def advance() -> object:
        return next(iterator, done)

    with ThreadPoolExecutor(1) as pool:
        try:
            ready = pool.submit(advance)
            while (item := ready.result()) is not done:
                ready = pool.submit(advance)
                yield item  # type: ignore[misc]
        finally:
            ready.cancel()
            if isinstance(iterator, Generator):
                pool.submit(iterator.close).result()
