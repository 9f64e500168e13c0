# SPDX-License-Identifier: Apache-2.0
"""The memory that is free: the least of what the system and the control group say."""

from pathlib import Path

import pytest

from ncjax.storage import memory


@pytest.fixture
def system(monkeypatch, tmp_path) -> Path:
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemAvailable:    4096 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    return tmp_path


def test_the_system_says_it(system):
    assert memory.free_bytes() == 4096 * 1024


@pytest.mark.parametrize(("most", "used", "wanted"), [("3000", "1000", 2000), ("max", "1000", 2**22), ("10", "20", 0)])
def test_a_control_group_leaves_less(system, most, used, wanted):
    (system / "memory.max").write_text(f"{most}\n")
    (system / "memory.current").write_text(f"{used}\n")
    assert memory.free_bytes() == wanted


def test_a_control_group_of_the_first_version(system):
    (system / "memory").mkdir()
    (system / "memory" / "memory.limit_in_bytes").write_text("5000\n")
    (system / "memory" / "memory.usage_in_bytes").write_text("2000\n")
    assert memory.free_bytes() == 3000


def test_a_system_that_does_not_say_it_has_half_free(system, monkeypatch):
    (system / "meminfo").unlink()
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PAGE_SIZE": 4, "SC_PHYS_PAGES": 100}.__getitem__)
    assert memory.free_bytes() == 200
