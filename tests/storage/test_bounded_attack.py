# SPDX-License-Identifier: Apache-2.0
"""Real processes on real bombs: each ends with code 2 and one line, in the memory that a refusal takes."""

import gzip
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.runs import measuring_memory

pytestmark = pytest.mark.slow
ZEROS = bytes(2**26)
MOST_KIB = 2**20  # resident at the peak; the bombs hold 8 GiB


def idx_bomb(folder):
    """420 bytes are promised, 8 GiB follow: a gzip file is as many streams as one likes."""
    header = struct.pack(">BBBBIII", 0, 0, 8, 3, 10, 7, 6)
    for split in ("train", "t10k"):
        bomb = gzip.compress(header + bytes(420)) + gzip.compress(ZEROS) * 128
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(bomb)
        labels = struct.pack(">BBBBI", 0, 0, 8, 1, 10) + bytes(10)
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return "idx", folder, "promises 420 bytes of data and holds more"


def npz_bomb(folder):
    """An array of 2**50 bytes by its header."""
    with zipfile.ZipFile(folder / "set.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            with archive.open(f"{name}.npy", "w") as member:
                header = {"descr": "|u1", "fortran_order": False, "shape": (2**30, 2**10, 2**10)}
                np.lib.format.write_array_header_1_0(member, header)
                member.write(ZEROS)
    return "npz", folder / "set.npz", "x_train promises 1125899906842624 bytes"


def picture_bomb(folder):
    """A whole PNG of 65,000 x 65,000 pixels of one bit, which is half a gigabyte unpacked and 4 GB in bytes."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / split / name / "0.png")
    side, rows = 65_000, zlib.compressobj()
    data = b"".join(rows.compress(bytes(side // 8 + 1)) for _ in range(side)) + rows.flush()
    parts = (b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")
    chunks = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in parts)
    (folder / "train" / "b" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return "image_folder", folder, "b/1.png is not an image that can be read"


def pickle_bomb(folder):
    """A memo of 2**31 entries, which is 17 GB of pointers."""
    for name in ("train", "test"):
        (folder / name).write_bytes(b"\x80\x02}r" + (2**31 - 2).to_bytes(4, "little") + b".")
    return "cifar100", folder, "train is not a cifar100 file that can be read"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("bomb", [idx_bomb, npz_bomb, picture_bomb, pickle_bomb])
def test_bombs_are_refused_by_the_command(bomb, streamed, tmp_path):
    (tmp_path / "data").mkdir()
    source, path, message = bomb(tmp_path / "data")
    flags = ["--data.source", source, "--data.path", path, "--data.cache-dir", tmp_path / "cache"]
    flags += ["--data.streamed"] if streamed else []
    command = [sys.executable, "-m", "ncjax", "train", "digits_demo", "--workdir", tmp_path / "run", *flags]
    child = subprocess.run(measuring_memory(command, tmp_path / "kib"), capture_output=True, text=True, check=False)
    text = child.stdout + child.stderr
    assert child.returncode == 2, text
    assert message in text.splitlines()[-1]
    assert "Traceback" not in text
    assert int((tmp_path / "kib").read_text()) < MOST_KIB
    assert not (tmp_path / "run").exists()
