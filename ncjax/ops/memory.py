# SPDX-License-Identifier: Apache-2.0
"""How much of an array is worked on at once, by platform and memory."""

import jax

CACHE = 2**20  # numbers that stay in a cache of a CPU
SHARE = 16  # of an accelerator's memory that one array in a chunk takes: there are a few, and the points themselves
UNKNOWN = 2**31  # bytes, where a device does not tell: programs that are compiled for another machine
LEAST, MOST = 2**22, 2**30  # numbers


def chunk_numbers() -> int:
    """Float32 numbers in the largest array of a chunk: a CPU's cache, or a sixteenth of an accelerator's free memory.

    Processes that work together must compile the same program, so there half of a device's memory counts as free. It is
    read when a program is traced; a power of two, so that little changes do not matter.
    """
    if jax.default_backend() == "cpu":
        return CACHE
    device = jax.local_devices()[0]
    statistics = device.memory_stats() if device.platform != "cpu" else None
    known = statistics or {}
    limit = known.get("bytes_limit", UNKNOWN)
    free = limit // 2 if jax.process_count() > 1 else limit - known.get("bytes_in_use", 0)
    numbers = max(1, free // (4 * SHARE))
    return min(MOST, max(LEAST, 1 << (int(numbers).bit_length() - 1)))
