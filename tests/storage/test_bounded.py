# SPDX-License-Identifier: Apache-2.0
import os
import zlib

import pytest

from ncjax.errors import UserError
from ncjax.storage.bounded import check_inflated, check_memory, read_bounded


@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_files_up_to_the_limit_are_read_whole(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    assert read_bounded(tmp_path / "a", 100) == content


@pytest.mark.parametrize("size", [101, 10**12])
def test_larger_files_are_refused_without_reading_them(tmp_path, size):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(size)
    with pytest.raises(UserError, match=f"a holds {size} bytes, more than the 100"):
        read_bounded(tmp_path / "a", 100)


def test_what_cannot_be_read_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "no", tmp_path / "pipe"):
        with pytest.raises(UserError, match=f"{path} cannot be read: "):
            read_bounded(path, 100)


def test_what_does_not_fit_the_memory_is_refused(monkeypatch):
    check_memory(0, "it", "")
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 2**12, "SC_PHYS_PAGES": 2**18}.__getitem__)
    check_memory(2**30, "it", "")
    with pytest.raises(UserError, match=r"it takes 2\.0 GiB, but this machine has 1\.0 GiB; stream it"):
        check_memory(2**31, "it", "stream it")


@pytest.mark.parametrize("size", [1, 1000, 10**6, 10**7])
def test_what_deflate_makes_of_zeros_passes(size):
    stored = len(zlib.compress(bytes(size), 9))
    check_inflated(size, stored, "it")
    with pytest.raises(UserError, match=f"it promises {1100 * size + 10**5} bytes, but {stored} bytes cannot"):
        check_inflated(1100 * size + 10**5, stored, "it")
