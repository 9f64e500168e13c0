# SPDX-License-Identifier: Apache-2.0
"""Small stand-ins for the official archives, with the names that they have, and tables that lead to them."""

import gzip
import hashlib
import io
import struct
import tarfile

import numpy as np

from ncjax.data.cifar import CIFAR10_CLASSES
from ncjax.data.fetch import DOWNLOADS, Download
from ncjax.storage.download import RemoteFile
from tests.server import Answer, file_of

LABELS = (np.arange(20) % 10).astype(np.uint8)
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)


def tar_of(files: dict[str, bytes]) -> bytes:
    """A gzipped archive, the same in every process."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, one in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(one)
            tar.addfile(info, io.BytesIO(one))
    return gzip.compress(content.getvalue(), mtime=0)


def cifar10_archive() -> bytes:
    """Four training images in each of the five files, twenty test images."""
    rows = np.concatenate([LABELS[:, None], PIXELS], axis=1)
    files = {f"data_batch_{i + 1}.bin": rows[4 * i : 4 * i + 4].tobytes() for i in range(5)}
    files |= {"test_batch.bin": rows.tobytes(), "batches.meta.txt": "\n".join(CIFAR10_CLASSES).encode()}
    return tar_of({f"cifar-10-batches-bin/{name}": content for name, content in files.items()})


def cifar100_archive() -> bytes:
    """A training and a test image of each class, five of which make a super-class."""
    fine = np.arange(100, dtype=np.uint8)
    rows = np.concatenate([fine[:, None] // 5, fine[:, None], np.tile(PIXELS, (5, 1))], axis=1).tobytes()
    names = {"fine": [f"fine {i:02}" for i in range(100)], "coarse": [f"coarse {i:02}" for i in range(20)]}
    files = {"train.bin": rows, "test.bin": rows}
    files |= {f"{level}_label_names.txt": "\n".join(known).encode() for level, known in names.items()}
    return tar_of({f"cifar-100-binary/{name}": content for name, content in files.items()})


def fashion_files() -> dict[str, bytes]:
    images = PIXELS[:, : 28 * 28].tobytes()
    files = {}
    for split in ("train", "t10k"):
        files[f"{split}-images-idx3-ubyte.gz"] = struct.pack(">4I", 0x803, 20, 28, 28) + images
        files[f"{split}-labels-idx1-ubyte.gz"] = struct.pack(">2I", 0x801, 20) + LABELS.tobytes()
    return {name: gzip.compress(content, mtime=0) for name, content in files.items()}


def archives() -> dict[str, bytes]:
    """All files of the data sets that can be downloaded, by their names on the server."""
    return {
        "cifar-10-binary.tar.gz": cifar10_archive(),
        "cifar-100-binary.tar.gz": cifar100_archive(),
        **fashion_files(),
    }


def answers(files: dict[str, bytes]) -> dict[str, Answer]:
    return {f"/{name}": file_of(content) for name, content in files.items()}


def downloads_of(address: str, files: dict[str, bytes]) -> dict[str, Download]:
    """The table of ncjax with these files at this address."""
    return {
        name: Download(tuple(_remote(address, remote.name, files) for remote in known.files), known.home)
        for name, known in DOWNLOADS.items()
    }


def _remote(address: str, name: str, files: dict[str, bytes]) -> RemoteFile:
    return RemoteFile(f"{address}/{name}", len(files[name]), hashlib.sha256(files[name]).hexdigest())
