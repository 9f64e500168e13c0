# SPDX-License-Identifier: Apache-2.0
"""Files from the internet: a transfer that was cut off is resumed, and only the file with the known SHA-256 is kept."""

import gzip
import http.client
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ncjax.errors import UserError, first_line
from ncjax.storage.checksums import sha256_of

BLOCK = 2**18  # bytes
TRIES = 5  # in a row that bring nothing new
TIMEOUT_SECS = 60.0
WAIT_SECS = 1.0  # before the second try; doubled before each further one
PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)  # besides the errors of the server itself
AGAIN = "the same command goes on from there"

Progress = Callable[[int, int], None]  # bytes that are there, bytes in all


class RemoteFile(NamedTuple):
    """A file on a server.

    Attributes:
        url: http or https.
        size: bytes.
        sha256: in hexadecimal.
    """

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.url.rsplit("/", 1)[-1]


def download(remote: RemoteFile, path: Path, on_progress: Progress | None = None) -> None:
    """Downloads a file, whole or not at all; one that is there with the right checksum stays.

    While it is transferred it is `path.part`; what an earlier call left there is continued by a range request.

    Args:
        remote: what is downloaded.
        path: of the new file; its folder must exist.
        on_progress: called after each block.

    Raises:
        UserError: the server cannot be reached, refuses, redirects in circles, ends early again and again, or sends
            another file; or the disk is full.
    """
    if path.exists() and sha256_of(path) == remote.sha256:
        return
    part = path.with_name(f"{path.name}.part")
    resumed = _size(part) > 0
    _transfer(remote, part, on_progress)
    if resumed and sha256_of(part) != remote.sha256:  # the old part may have been of another file
        part.unlink()
        _transfer(remote, part, on_progress)
    found = sha256_of(part)
    if found != remote.sha256:
        part.unlink()
        raise UserError(
            f"{remote.url} is not the file that is known: its SHA-256 is {found}, but must be {remote.sha256}; "
            "nothing was kept. Try again later; if it stays so, the file on the server was changed"
        )
    part.replace(path)


def _transfer(remote: RemoteFile, part: Path, on_progress: Progress | None) -> None:
    """Makes `part` as long as the file, with as many requests as it takes."""
    free = shutil.disk_usage(part.parent).free + _size(part)
    if free < remote.size:
        raise UserError(f"{part.parent} has {free / 2**20:,.0f} MiB free, but {remote.name} takes {_mib(remote.size)}")
    if _size(part) > remote.size:
        part.unlink()
    most, fruitless = _size(part), 0
    while _size(part) != remote.size:
        why = _request(remote, part, on_progress)
        there = _size(part)
        if there == remote.size:
            return
        fruitless = 0 if there > most else fruitless + 1
        most = max(most, there)
        if fruitless == TRIES:
            raise UserError(f"{remote.url}: {why}; {_mib(there)} of {_mib(remote.size)} are there, and {AGAIN}")
        if fruitless:
            time.sleep(WAIT_SECS * 2 ** (fruitless - 1))


def _request(remote: RemoteFile, part: Path, on_progress: Progress | None) -> str:
    """Appends to `part` what one request brings.

    Returns:
        Why it is not all, where another request may bring more.

    Raises:
        UserError: the server refuses, or sends another file.
    """
    start = _size(part)
    headers = {"User-Agent": "ncjax", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(remote.url, headers=headers), timeout=TIMEOUT_SECS
        ) as response:
            start = _start_of(remote, response, start)
            return _append(remote, part, start, response, on_progress)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
        elif error.code < 500 and error.code not in PASSING:
            raise UserError(f"{remote.url} cannot be downloaded: {error.code} {_first_line(error.reason)}") from error
        return f"the server answers {error.code} {_first_line(error.reason)}"
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        return f"it cannot be reached ({_first_line(getattr(error, 'reason', '') or error)})"


def _first_line(reason: object) -> str:
    return (str(reason).splitlines() or [type(reason).__name__])[0].strip()


def _start_of(remote: RemoteFile, response: http.client.HTTPResponse, wanted: int) -> int:
    """The byte that an answer begins at.

    Raises:
        UserError: it promises another length than that of the file.
    """
    start = 0
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        first = rest.partition("-")[0]
        if unit != "bytes" or first != str(wanted):
            raise UserError(f"{remote.url}: the server answers with another part of the file than was asked for")
        start = wanted
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and start + int(length) != remote.size:
        found = f"it has {start + int(length)} bytes, but must have {remote.size}"
        raise UserError(f"{remote.url} is not the file that is known: {found}")
    return start


def _append(
    remote: RemoteFile, part: Path, start: int, response: http.client.HTTPResponse, on_progress: Progress | None
) -> str:
    there = start
    with part.open("r+b" if start else "wb", buffering=0) as file:
        file.seek(start)
        file.truncate()
        while there <= remote.size:
            try:
                block = response.read1(BLOCK)
            except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
                return f"the transfer was cut off ({first_line(error)})"
            if not block:
                return "the transfer was cut off"
            file.write(block)
            there += len(block)
            if on_progress is not None:
                on_progress(min(there, remote.size), remote.size)
    part.unlink()
    raise UserError(f"{remote.url} is not the file that is known: it has more than {remote.size} bytes")


def install(file: Path, folder: Path, most_bytes: int) -> None:
    """Unpacks a `.tar.gz` into a folder, as `unpack`; copies any other file there."""
    if file.name.endswith(".tar.gz"):
        unpack(file, folder, most_bytes)
    else:
        shutil.copyfile(file, folder / file.name)


def unpack(archive: Path, folder: Path, most_bytes: int) -> None:
    """Unpacks a gzipped tar archive; plain files and folders alone, nothing outside `folder`, no modes and owners.

    Args:
        archive: file of any origin.
        folder: that exists.
        most_bytes: of all files together.

    Raises:
        UserError: the archive is damaged, holds something else, or more; what was unpacked stays.
    """
    total = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                total += member.size
                if path.is_absolute() or ".." in path.parts or not (member.isreg() or member.isdir()):
                    raise UserError(f"{archive.name} holds {member.name!r}, which does not belong into a data set")
                if total > most_bytes:
                    raise UserError(f"{archive.name} holds more than the {_mib(most_bytes)} of the data set")
                content = tar.extractfile(member)
                if content is not None:
                    target = folder / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{archive.name} is no archive that can be read ({first_line(error)})") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
