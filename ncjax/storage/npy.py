# SPDX-License-Identifier: Apache-2.0
"""Arrays in files of NumPy: no more is read or inflated than a header promises, and no header promises too much."""

import io
import math
import zipfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ncjax.buckets import BucketPath
from ncjax.errors import UserError, first_line
from ncjax.storage.bounded import check_inflated, check_memory

HEADER = 10_012  # bytes that are read for a header of npy, of which NumPy trusts none of more than 10,000
SUFFIX = ".npy"
KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # as NumPy writes; others are not inflated a part at a time


def load_npz(
    file: Path, choose: Callable[[Collection[str]], Iterable[str]] = tuple, *, remedy: str = "make the arrays smaller"
) -> dict[str, np.ndarray]:
    """Arrays of an npz file by name; what is no array is left out.

    Args:
        file: the npz file.
        choose: which of the names are read; it may raise a UserError.
        remedy: ends the message where the arrays do not fit the memory.

    Raises:
        UserError: the file is no npz, is damaged, or holds objects; or an array is larger than its data or the memory.
    """
    try:
        with file.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            members = {one.filename.removesuffix(SUFFIX): one for one in archive.infolist() if _is_array(one)}
            wanted = {name: members[name] for name in choose(members.keys())}
            check_memory(sum(_promised(file, archive, one) for one in wanted.values()), f"{file}", remedy)
            return {name: _read(archive, one) for name, one in wanted.items()}
    except UserError:
        raise
    except Exception as error:  # a damaged archive can raise anything
        raise UserError(f"{file} is not an npz file that can be read ({first_line(error)}); save it again") from error


def map_npy(file: Path) -> np.ndarray:
    """The array of an npy file, read from disk where it is indexed.

    Raises:
        UserError: the file is no npy, is damaged, or holds objects.
    """
    if isinstance(file, BucketPath):
        raise UserError(f"{file} is in a bucket, where it cannot be read a part at a time; copy it to a disk")
    try:
        with file.open("rb") as stream:
            _promised_by(stream.read(HEADER), f"{file}")
        mapped: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
        return mapped
    except UserError:
        raise
    except Exception as error:  # a damaged header can raise anything
        raise UserError(f"{file} is not an npy file that can be read ({first_line(error)}); save it again") from error


def _is_array(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith(SUFFIX)


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as member:
        found: np.ndarray = npy.read_array(member, allow_pickle=False)
        return found


def _promised(file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """The bytes of an array, as its header says; a header is read, and nothing else."""
    where = f"{file}: {info.filename.removesuffix(SUFFIX)}"
    if info.compress_type not in KINDS:
        raise UserError(f"{where} is compressed as NumPy does not do it; save it with np.savez or np.savez_compressed")
    with archive.open(info) as member:
        size = _promised_by(member.read(HEADER), where)
    check_inflated(size, info.compress_size, where)
    return size


def _promised_by(header: bytes, where: str) -> int:
    """The bytes of an array by its header.

    Raises:
        UserError: it is one of Python objects.
    """
    start = io.BytesIO(header)
    read: Any = npy.read_array_header_1_0 if npy.read_magic(start) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(start)
    if dtype.hasobject:
        raise UserError(
            f"{where} holds Python objects, which are not read without pickle; "
            "save numbers, and names as an array of text: np.array(names, dtype=str)"
        )
    return math.prod(shape) * int(dtype.itemsize)
