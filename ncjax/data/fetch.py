# SPDX-License-Identifier: Apache-2.0
"""Official archives of data sets: downloaded once, checked, unpacked into the user's cache folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import filelock

from ncjax.errors import UserError
from ncjax.results import Event
from ncjax.storage.atomic import atomic_folder
from ncjax.storage.caches import cache_folder, is_temporary
from ncjax.storage.checksums import damage, write_checksums
from ncjax.storage.download import RemoteFile, download, install

MOST_INFLATED = 2**28  # bytes that an archive may unpack to; the largest has 185 million


class Download(NamedTuple):
    """What a data set is downloaded as.

    Attributes:
        files: archives, which are unpacked, and other files.
        home: the page that describes the data set and its terms.
    """

    files: tuple[RemoteFile, ...]
    home: str


_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

# Sizes and SHA-256 are those of TensorFlow Datasets 4.9.10, in the files url_checksums/{cifar10,cifar100,
# fashion_mnist}.txt of its package; a test compares them. The archives of CIFAR are the binary versions: no pickles.
DOWNLOADS: dict[str, Download] = {
    "cifar10": Download(
        (
            RemoteFile(
                f"{_TORONTO}cifar-10-binary.tar.gz",
                170052171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "cifar100": Download(
        (
            RemoteFile(
                f"{_TORONTO}cifar-100-binary.tar.gz",
                168513733,
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
        ),
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "fashion_mnist": Download(
        (
            RemoteFile(
                f"{_FASHION}train-images-idx3-ubyte.gz",
                26421880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            RemoteFile(
                f"{_FASHION}train-labels-idx1-ubyte.gz",
                29515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            RemoteFile(
                f"{_FASHION}t10k-images-idx3-ubyte.gz",
                4422102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            RemoteFile(
                f"{_FASHION}t10k-labels-idx1-ubyte.gz",
                5148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
        "https://github.com/zalandoresearch/fashion-mnist",
    ),
}


def fetch(name: str, cache: Path | None = None, on_event: Callable[[Event], None] | None = None) -> Path:
    """Downloads a data set, unless it is there undamaged; from then on its source needs no path.

    Args:
        name: a key of `DOWNLOADS`.
        cache: folder that it is put into; None: ncjax/ in the user's cache folder.
        on_event: called with the bytes of each file that are there.

    Returns:
        The folder with its files.

    Raises:
        UserError: there is no such data set, another process downloads it, it cannot be downloaded or is not what is
            known, or the folder cannot be written.
    """
    if name not in DOWNLOADS:
        raise UserError(f"nothing is known of {name!r} to download; known are {', '.join(DOWNLOADS)}")
    folder = fetched_folder(name, _lasting(cache))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_name(f".{name}.lock"), timeout=0):
            if not folder.is_dir() or damage(folder, identity=_identity(name)):
                _download(name, folder, on_event or (lambda event: None))
    except filelock.Timeout as error:
        raise UserError(f"{name} is being downloaded by another process; wait for its end") from error
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose another folder for the cache") from error
    return folder


def fetched_folder(name: str, cache: Path) -> Path:
    """Where `fetch` puts a data set in a cache folder, whether it is there or not."""
    return cache / "data" / name


def _lasting(cache: Path | None) -> Path:
    found = cache or cache_folder()
    if is_temporary(found):
        raise UserError(f"{found} is deleted when this process ends; name another cache folder for the download")
    return found.absolute()


def _identity(name: str) -> dict[str, str | int]:
    return {remote.name: remote.sha256 for remote in DOWNLOADS[name].files}


def _tell(on_event: Callable[[Event], None], name: str, done: int, total: int) -> None:
    on_event(Event("download", done, total, name))


def _download(name: str, folder: Path, on_event: Callable[[Event], None]) -> None:
    """What has been downloaded stays beside the folder until all of it is there: a later call goes on with it."""
    remotes = DOWNLOADS[name].files
    files = [folder.with_name(remote.name) for remote in remotes]
    for remote, file in zip(remotes, files, strict=True):
        download(remote, file, partial(_tell, on_event, remote.name))
    with atomic_folder(folder) as draft:
        for file in files:
            install(file, draft, MOST_INFLATED)
        write_checksums(draft, identity=_identity(name))
    for file in files:
        file.unlink(missing_ok=True)
