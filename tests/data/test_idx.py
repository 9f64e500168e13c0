# SPDX-License-Identifier: Apache-2.0
"""IDX files whose headers lie: refused, and never inflated past what they promise."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from ncjax.config import DataConfig
from ncjax.data import load_dataset
from ncjax.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 7, 6), dtype=np.uint8)
LABELS = (np.arange(10) % 2).astype(np.uint8)


def idx(shape, content):
    return struct.pack(">BBBB", 0, 0, 8, len(shape)) + struct.pack(f">{len(shape)}I", *shape) + content


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "t10k"):
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES.shape, IMAGES.tobytes())))
        (tmp_path / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS.shape, LABELS.tobytes())))
    return tmp_path


def load(folder, **options):
    return load_dataset(DataConfig(source="idx", path=str(folder), **options))


GOOD = idx(IMAGES.shape, IMAGES.tobytes())
PACKED = gzip.compress(GOOD)
LIES = {
    "a bomb behind 420 bytes": (gzip.compress(GOOD + bytes(2**26)), "promises 420 bytes of data and holds more"),
    "a promise that no stream keeps": (gzip.compress(idx((2**31, 2**10, 2**10), b"")), "bytes cannot hold them"),
    "a promise past 64 bits": (gzip.compress(idx((2**32 - 1,) * 3, b"")), "bytes cannot hold them"),
    "a byte too few": (gzip.compress(GOOD[:-1]), "promises 420 bytes of data and holds 419"),
    "a byte too many": (gzip.compress(GOOD + b"x"), "holds more"),
    "half a stream": (PACKED[: len(PACKED) // 2], "cannot be read|that can be read|cannot hold"),
    "a damaged stream": (PACKED[:60] + b"xxxx" + PACKED[64:], "that can be read|holds"),
    "a wrong checksum": (PACKED[:-8] + b"\0" * 4 + PACKED[-4:], "that can be read"),
    "no gzip": (GOOD, "that can be read"),
    "nothing": (b"", "no IDX file|that can be read"),
    "signed bytes": (gzip.compress(b"\0\0\x09\x03" + GOOD[4:]), "no IDX file"),
    "labels for images": (gzip.compress(idx((10,), bytes(10))), "no IDX file"),
}


@pytest.mark.parametrize("name", LIES)
def test_headers_that_lie_are_refused_in_bounded_memory(name, folder):
    content, message = LIES[name]
    (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message) as error:
            load(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert "train-images" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [419, 421, 2**20])
def test_plain_files_of_another_size_are_refused(folder, size):
    (folder / "train-images-idx3-ubyte").write_bytes(idx(IMAGES.shape, bytes(size)))
    with pytest.raises(UserError, match=f"promises 420 bytes of data, not {size}"):
        load(folder)


def test_whole_files_are_read_and_resized(folder):
    np.testing.assert_array_equal(load(folder).train.images[..., 0], IMAGES)
    assert load(folder, image_size=14).test.images.shape == (10, 14, 14, 1)


def test_a_hierarchy_lies_beside_them(folder):
    (folder / "superclasses.json").write_text('{"class 0": "even", "class 1": "odd"}')
    assert load(folder).super_classes == ("even", "odd")
