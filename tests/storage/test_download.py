# SPDX-License-Identifier: Apache-2.0
"""Downloads from a server on the loopback address, sound and hostile, and archives of any content."""

import hashlib
import io
import tarfile

import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.storage import download as module
from ncjax.storage.download import RemoteFile, download, install, unpack
from tests.server import cut_off, file_of, in_turn, redirect, serving

CONTENT = np.random.default_rng(0).integers(0, 256, 700_000, dtype=np.uint8).tobytes()
OTHER = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
HALF = len(CONTENT) // 2


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    monkeypatch.setattr(module, "WAIT_SECS", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def remote_of(server, content=CONTENT):
    return RemoteFile(f"{server.address}/file", len(content), hashlib.sha256(content).hexdigest())


def fetched(tmp_path, answer, part=b"", **others):
    """The content that is kept, and the ranges that were asked for."""
    if part:
        (tmp_path / "set.part").write_bytes(part)
    with serving({"/file": answer, **{f"/{name}": one for name, one in others.items()}}) as server:
        download(remote_of(server), tmp_path / "set")
    assert [file.name for file in tmp_path.iterdir()] == ["set"]
    return (tmp_path / "set").read_bytes(), [ranged for _, ranged in server.asked]


def refused(tmp_path, answer, message, part=b"", **others):
    """What is left after a download that fails; the address stands in the message."""
    if part:
        (tmp_path / "set.part").write_bytes(part)
    with serving({"/file": answer, **{f"/{name}": one for name, one in others.items()}}) as server:
        with pytest.raises(UserError, match=message) as error:
            download(remote_of(server), tmp_path / "set")
        assert f"{server.address}/file" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "set").exists()
    return (tmp_path / "set.part").stat().st_size if (tmp_path / "set.part").exists() else 0


def test_a_file_is_downloaded_and_its_progress_told(tmp_path):
    told = []
    with serving({"/file": file_of(CONTENT)}) as server:
        download(remote_of(server), tmp_path / "set", lambda *progress: told.append(progress))
    assert (tmp_path / "set").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)
    assert len(told) > 1


def test_what_is_there_is_not_asked_for_again(tmp_path):
    assert fetched(tmp_path, file_of(CONTENT), part=CONTENT[:HALF]) == (CONTENT, [f"bytes={HALF}-"])


def test_a_transfer_that_is_cut_off_is_resumed(tmp_path):
    content, ranges = fetched(tmp_path, in_turn(cut_off(CONTENT, HALF), cut_off(CONTENT, 1000), file_of(CONTENT)))
    assert content == CONTENT
    assert ranges == ["", f"bytes={HALF}-", f"bytes={HALF + 1000}-"]


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(tmp_path):
    assert fetched(tmp_path, lambda handler: handler.send(200, CONTENT), part=b"x" * HALF)[0] == CONTENT


def test_a_part_of_another_file_is_replaced(tmp_path):
    content, ranges = fetched(tmp_path, file_of(CONTENT), part=b"x" * HALF)
    assert content == CONTENT
    assert ranges == [f"bytes={HALF}-", ""]


@pytest.mark.parametrize("more", [0, 1, 5000])
def test_a_part_that_is_whole_or_longer(tmp_path, more):
    assert fetched(tmp_path, file_of(CONTENT), part=CONTENT + b"x" * more)[0] == CONTENT


def test_redirects_are_followed(tmp_path):
    assert fetched(tmp_path, redirect("/other"), other=file_of(CONTENT))[0] == CONTENT


def test_a_server_that_is_busy_is_asked_again(tmp_path):
    def busy(handler):
        handler.send(503)

    assert fetched(tmp_path, in_turn(busy, busy, file_of(CONTENT))) == (CONTENT, ["", "", ""])


# ------------------------------------------------------------------ hostile answers


def test_another_checksum_is_refused_and_nothing_kept(tmp_path):
    known = hashlib.sha256(CONTENT).hexdigest()
    assert refused(tmp_path, file_of(OTHER), f"is not the file that is known: its SHA-256 is .*must be {known}") == 0
    assert refused(tmp_path, file_of(OTHER), "is not the file that is known", part=CONTENT[:HALF]) == 0


def test_a_transfer_that_is_always_cut_off_ends_and_what_came_stays(tmp_path):
    answer = in_turn(cut_off(CONTENT, HALF), cut_off(CONTENT, 0))
    left = refused(tmp_path, answer, r"the transfer was cut off.*0\.3 MiB of 0\.7 MiB are there, and the same command")
    assert left == HALF


@pytest.mark.parametrize("others", [{}, {"a": redirect("/file"), "b": redirect("/a")}])
def test_redirects_in_circles_end(tmp_path, others):
    refused(tmp_path, redirect("/b" if others else "/file"), "redirect", **others)


@pytest.mark.parametrize("to", ["file:///etc/passwd", "/gone", "http://127.0.0.1:1/x"])
def test_redirects_to_nowhere_are_refused(tmp_path, to):
    refused(tmp_path, redirect(to), "cannot be (downloaded|reached)")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_server_that_refuses_is_asked_once(tmp_path, status):
    with serving({"/file": lambda handler: handler.send(status)}) as server:
        with pytest.raises(UserError, match=f"cannot be downloaded: {status}"):
            download(remote_of(server), tmp_path / "set")
        assert len(server.asked) == 1


def test_a_file_of_another_length_is_refused_before_it_is_read(tmp_path):
    refused(tmp_path, file_of(CONTENT + b"x"), f"it has {len(CONTENT) + 1} bytes, but must have {len(CONTENT)}")
    refused(tmp_path, file_of(CONTENT[:-1]), f"it has {len(CONTENT) - 1} bytes")


def test_a_file_that_does_not_end_is_refused(tmp_path):
    def endless(handler):
        handler.send(200, Content_Length="")
        for _ in range(100):
            handler.wfile.write(CONTENT)

    assert refused(tmp_path, endless, f"more than {len(CONTENT)} bytes") == 0


@pytest.mark.parametrize("told", ["bytes 0-9/10", "items 5-", "", "bytes -5"])
def test_another_part_than_was_asked_for_is_refused(tmp_path, told):
    refused(
        tmp_path,
        lambda handler: handler.send(206, CONTENT[HALF:], Content_Range=told),
        "another part of the file",
        part=CONTENT[:HALF],
    )


def test_what_is_no_http_is_refused(tmp_path):
    refused(tmp_path, lambda handler: handler.wfile.write(b"\x00\x01 hello\r\n\r\n"), "cannot be reached")


def test_nobody_listens(tmp_path):
    with serving({}) as server:
        remote = remote_of(server)
    with pytest.raises(UserError, match=r"cannot be reached \(.*refused.*; 0\.0 MiB of 0\.7 MiB are there"):
        download(remote, tmp_path / "set")


def test_a_disk_that_is_too_small_is_named_before_anything_is_asked(tmp_path):
    with serving({"/file": file_of(CONTENT)}) as server:
        remote = remote_of(server)._replace(size=10**18)
        with pytest.raises(UserError, match=r"MiB free, but file takes 953,674,316,406\.2 MiB"):
            download(remote, tmp_path / "set")
        assert server.asked == []


# ------------------------------------------------------------------ archives


def archive_of(path, *members):
    """A gzipped tar of (name, content), or of members made by hand."""
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                name, content = member
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_an_archive_is_unpacked(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    path = archive_of(
        tmp_path / "a.tar.gz", special("set", tarfile.DIRTYPE), ("set/one", b"1"), ("./set/deep/two", b"22")
    )
    install(path, target, 3)
    found = {str(file.relative_to(target)): file.read_bytes() for file in target.rglob("*") if file.is_file()}
    assert found == {"set/one": b"1", "set/deep/two": b"22"}


def test_other_files_are_copied(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "x.gz").write_bytes(b"as it is")
    install(tmp_path / "x.gz", tmp_path / "target", 0)
    assert (tmp_path / "target" / "x.gz").read_bytes() == b"as it is"


@pytest.mark.parametrize(
    "member",
    [
        ("../out", b"x"),
        ("set/../../out", b"x"),
        ("/tmp/ncjax-out", b"x"),
        special("set", tarfile.SYMTYPE, "/etc"),
        special("set", tarfile.LNKTYPE, "../out"),
        special("set", tarfile.CHRTYPE),
        special("set", tarfile.FIFOTYPE),
    ],
    ids=["..", "inner ..", "absolute", "link", "hard link", "device", "pipe"],
)
def test_members_that_lead_elsewhere_are_refused(tmp_path, member):
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    path = archive_of(tmp_path / "a.tar.gz", member, ("set/passwd", b"x"))
    with pytest.raises(UserError, match=r"a\.tar\.gz holds '.*', which does not belong into a data set"):
        unpack(path, target, 10**6)
    assert not list(target.iterdir())
    assert {file.name for file in tmp_path.rglob("*")} == {"deep", "target", "a.tar.gz"}


def test_an_archive_that_inflates_beyond_its_bound_is_refused(tmp_path):
    path = archive_of(tmp_path / "a.tar.gz", ("zeros", bytes(10**7)))
    assert path.stat().st_size < 20_000
    with pytest.raises(UserError, match=r"holds more than the 1\.0 MiB of the data set"):
        unpack(path, tmp_path, 2**20)
    assert not (tmp_path / "zeros").exists()


@pytest.mark.parametrize("damage", ["text", "empty", "half"])
def test_a_damaged_archive_is_named(tmp_path, damage):
    path = archive_of(tmp_path / "a.tar.gz", ("one", CONTENT))
    content = path.read_bytes()
    changed = {
        "text": b"hello" * 200,
        "empty": b"",
        "half": content[: len(content) // 2],
    }[damage]
    path.write_bytes(changed)
    with pytest.raises(UserError, match=r"a\.tar\.gz is no archive that can be read"):
        unpack(path, tmp_path, 10**7)
