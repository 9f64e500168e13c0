# SPDX-License-Identifier: Apache-2.0
"""Chunks follow the platform and the memory that a device tells of."""

from types import SimpleNamespace

import jax
import pytest

from ncjax.ops.memory import CACHE, LEAST, MOST, chunk_numbers


@pytest.fixture
def device(monkeypatch):
    def have(statistics, processes=1):
        one = SimpleNamespace(platform="gpu", memory_stats=lambda: statistics)
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(jax, "local_devices", lambda: [one])
        monkeypatch.setattr(jax, "process_count", lambda: processes)

    return have


def test_on_cpus_a_chunk_stays_in_the_cache():
    assert chunk_numbers() == CACHE


@pytest.mark.parametrize(
    ("statistics", "numbers"),
    [
        ({"bytes_limit": 64 * 2**30, "bytes_in_use": 0}, 2**30),
        ({"bytes_limit": 64 * 2**30, "bytes_in_use": 40 * 2**30}, 2**28),  # 24 / 16 = 1.5 GiB, of which a power of two
        ({"bytes_limit": 2**50, "bytes_in_use": 0}, MOST),
        ({"bytes_limit": 2**30, "bytes_in_use": 2**30}, LEAST),
        (None, 2**25),
    ],
)
def test_on_accelerators_it_is_a_share_of_the_free_memory(device, statistics, numbers):
    device(statistics)
    assert chunk_numbers() == numbers


def test_processes_that_work_together_choose_alike_whatever_is_in_use(device):
    found = set()
    for used in (0, 60 * 2**30):
        device({"bytes_limit": 64 * 2**30, "bytes_in_use": used}, processes=2)
        found.add(chunk_numbers())
    assert found == {2**29}
