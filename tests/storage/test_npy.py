# SPDX-License-Identifier: Apache-2.0
"""Files of NumPy that promise or hold more than they should, in memory that is measured."""

import io
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.storage.npy import load_npz, map_npy

ARRAY = np.arange(12.0).reshape(3, 4)
MOST = 2**24  # bytes at the peak; the bombs hold and promise more
ZEROS = bytes(2**25)


def header(shape, dtype="|u1", version=1):
    file = io.BytesIO()
    write = np.lib.format.write_array_header_1_0 if version == 1 else np.lib.format.write_array_header_2_0
    write(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(path, members, kind=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", kind) as whole:
        for name, parts in members:
            with whole.open(name, "w", force_zip64=True) as member:
                for part in parts if isinstance(parts, list) else [parts]:
                    member.write(part)
    tracemalloc.reset_peak()


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


HONEST = npy(ARRAY)
BOMBS = {
    "petabytes": (header((2**30, 2**10, 2**10)), "promises 1125899906842624 bytes, but"),
    "petabytes over zeros": ([header((2**30, 2**20)), *[ZEROS] * 2], "promises 1125899906842624 bytes, but"),
    "more than the memory": ([header((2**21, 2**4)), ZEROS], "takes .* GiB, but this machine has 0.0 GiB; smaller"),
    "wide texts": (header((12,), "<U536870911"), "promises"),
    "a subarray": (header((12,), "(100000,100000,1000)u1"), "that can be read|promises"),
    "negative": (header((-3, 4), "<f8") + bytes(96), "that can be read"),
    "a header of gigabytes": ([b"\x93NUMPY\x02\x00" + (2**32 - 9).to_bytes(4, "little"), *[ZEROS] * 2], "can be read"),
    "a header of code": (b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').mkdir('executed')"[:32], "can be read"),
    "a header cut off": (HONEST[:40], "can be read"),
    "half": (HONEST[:-9], "can be read"),
    "nothing": (b"", "can be read"),
    "a pickle": (pickle.dumps(Trap()), "can be read"),
    "objects": (header((1,), "|O") + pickle.dumps([Trap()]), "Python objects, which are not read without pickle"),
}


@pytest.fixture
def within_memory(monkeypatch, tmp_path):
    """The most that a test may allocate, on a machine of 32 MiB."""
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 2**12, "SC_PHYS_PAGES": 2**13}.__getitem__)
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST
    assert not (tmp_path / "executed").exists()


def refused(read, path, message):
    tracemalloc.reset_peak()
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", BOMBS)
def test_npz_bombs_are_refused(tmp_path, within_memory, name):
    content, message = BOMBS[name]
    archive(tmp_path / "a.npz", [("good.npy", HONEST), ("bad.npy", content)])
    refused(lambda path: load_npz(path, remedy="smaller"), tmp_path / "a.npz", message)
    np.testing.assert_array_equal(load_npz(tmp_path / "a.npz", lambda _: ["good"])["good"], ARRAY)


def test_what_inflates_past_its_promise_is_read_to_its_promise(tmp_path, within_memory):
    archive(tmp_path / "a.npz", [("a.npy", [HONEST, *[ZEROS] * 2])])
    np.testing.assert_array_equal(load_npz(tmp_path / "a.npz")["a"], ARRAY)


def test_what_is_no_array_is_not_inflated(tmp_path, within_memory):
    """`a` beside `a.npy` among them, which numpy.load prefers."""
    archive(tmp_path / "a.npz", [("a.npy", HONEST), ("a", [ZEROS] * 2), ("notes.txt", [ZEROS] * 2)])
    found = load_npz(tmp_path / "a.npz")
    assert set(found) == {"a"}
    np.testing.assert_array_equal(found["a"], ARRAY)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_compress_are_refused(tmp_path, within_memory, kind):
    archive(tmp_path / "a.npz", [("a.npy", HONEST)], kind)
    refused(load_npz, tmp_path / "a.npz", "a is compressed as NumPy does not do it; save it with np.savez")


@pytest.mark.parametrize("content", [b"", b"no archive", HONEST, b"PK\x05\x06" + bytes(18), b"PK\x03\x04"])
def test_what_is_no_npz_is_refused_or_empty(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    if content[:4] == b"PK\x05\x06":
        assert load_npz(tmp_path / "a.npz") == {}
    else:
        refused(load_npz, tmp_path / "a.npz", "is not an npz file that can be read")


@pytest.mark.parametrize("name", BOMBS)
def test_npy_bombs_are_refused(tmp_path, within_memory, name):
    content, _ = BOMBS[name]
    with (tmp_path / "a.npy").open("wb") as file:
        for part in content if isinstance(content, list) else [content]:
            file.seek(len(part), os.SEEK_CUR) if part is ZEROS else file.write(part)
        file.truncate(file.tell())
    if name == "more than the memory":
        assert map_npy(tmp_path / "a.npy").shape == (2**21, 2**4)  # stays on disk
    else:
        refused(map_npy, tmp_path / "a.npy", "is not an npy file that can be read|Python objects")


@pytest.mark.parametrize("array", [
    ARRAY, ARRAY.astype(">f4"), np.asfortranarray(ARRAY), np.array(["a", "bc"]), np.array(3), np.zeros((0, 4)),
    np.zeros(3, [("a", "<f4"), ("b", "<i8")]), np.arange(3, dtype="<u2").view("V2"), np.array([True]), np.array([1j]),
], ids=lambda array: f"{array.dtype} {array.shape}")  # fmt: skip
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path, array, save):
    save(tmp_path / "a.npz", array, mine=array)
    found = load_npz(tmp_path / "a.npz")
    assert set(found) == {"arr_0", "mine"}
    for one in found.values():
        assert one.dtype == array.dtype
        np.testing.assert_array_equal(one, array)
    np.save(tmp_path / "a.npy", array)
    if array.size:
        np.testing.assert_array_equal(map_npy(tmp_path / "a.npy"), array)
