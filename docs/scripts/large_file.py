# SPDX-License-Identifier: Apache-2.0
"""A file of Gaussian classes larger than memory, and the memory that a process holds while it reads it."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float32, Int32

BLOCK = 2**17  # rows written at a time
KINDS = ("RssAnon", "RssFile")  # what the process holds; pages of files, which the system keeps while there is room
T = TypeVar("T")


class Watched(NamedTuple):
    """What a call took."""

    secs: float
    peak_mib: dict[str, int]  # the most of each kind of memory


def write_classes(path: Path, n: int, centres: Float32[np.ndarray, "k d"]) -> Int32[np.ndarray, " n"]:
    """Points of unit variance around the centres, block by block, unless the file is there; returns their classes."""
    rng = np.random.default_rng(1)
    k, d = centres.shape
    labels = rng.integers(0, k, n).astype(np.int32)
    if not path.exists():
        points = np.lib.format.open_memmap(path, "w+", np.float32, (n, d))
        for first in range(0, n, BLOCK):
            part = labels[first : first + BLOCK]
            points[first : first + BLOCK] = centres[part] + rng.standard_normal((len(part), d), np.float32)
        points.flush()
    return labels


def watched(call: Callable[[], T]) -> tuple[T, Watched]:
    """The outcome of a call, its time, and the most memory that the process held meanwhile."""
    peaks = dict.fromkeys(KINDS, 0)
    done = threading.Event()
    thread = threading.Thread(target=_sample, args=(peaks, done), daemon=True)
    thread.start()
    started = time.perf_counter()
    found = call()
    secs = time.perf_counter() - started
    done.set()
    thread.join()
    return found, Watched(round(secs, 1), peaks)


def _sample(peaks: dict[str, int], done: threading.Event) -> None:
    while not done.wait(0.1):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], int(value.split()[0]) // 1024)
