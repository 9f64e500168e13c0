# SPDX-License-Identifier: Apache-2.0
"""Paths in a bucket do what those on a disk do, and what the store refuses is an error that names the path."""

import asyncio
import errno
import io
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ncjax import buckets
from ncjax.buckets import BucketPath
from ncjax.cli.main import main
from ncjax.errors import UserError
from ncjax.paths import user_path
from ncjax.storage.atomic import append_text, atomic_path, remove_folder, replace_folder, set_aside, write_arrays
from ncjax.storage.npy import load_npz, map_npy
from tests.bucket_server import bucket_in_this_process
from tests.runs import ROOT, messages


@pytest.fixture(scope="module")
def server():
    with bucket_in_this_process() as store:
        yield store


@pytest.fixture
def folder(server, request):
    server.fail_every = 0
    yield BucketPath(f"gs://bucket1/{abs(hash(request.node.name))}")
    server.fail_every = 0


@pytest.fixture
def impatient(monkeypatch):
    """gcsfs asks again at once."""

    async def none(secs):
        return

    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=none, exceptions=asyncio.exceptions))


@pytest.mark.parametrize(
    "given", ["gs://b/runs/demo", "gs:/b/runs/demo", Path("gs://b/runs/demo"), "gs://b//runs/demo/"]
)
def test_a_path_of_a_bucket_is_what_people_write(given):
    path = user_path(given)
    assert str(path) == f"{path}" == path.__fspath__() == "gs://b/runs/demo"
    assert path == user_path(path)
    assert hash(path) == hash(BucketPath("gs://b/runs/demo"))
    assert path.is_absolute()
    assert path.absolute() == path.resolve() == path
    assert pickle.loads(pickle.dumps(path)) == path


def test_paths_are_joined_and_taken_apart_as_on_a_disk():
    path = BucketPath("gs://b/runs") / "demo" / "results/evaluation.json"
    assert isinstance(path, BucketPath)
    assert str(path) == "gs://b/runs/demo/results/evaluation.json"
    assert str(path.parent) == "gs://b/runs/demo/results"
    assert (path.name, path.stem, path.suffix) == ("evaluation.json", "evaluation", ".json")
    assert str(path.with_name("a b")) == "gs://b/runs/demo/results/a b"
    assert str(path.relative_to(BucketPath("gs://b/runs/demo"))) == "results/evaluation.json"
    assert str(path.with_suffix(".html")) == "gs://b/runs/demo/results/evaluation.html"


@pytest.mark.parametrize("text", ["s3://b/run", "az://b/run", "hf://b/run", "https://a/b", "file:///a", "S3:/b"])
def test_other_stores_are_refused_in_one_line(text):
    with pytest.raises(UserError, match="gs://BUCKET/PATH") as caught:
        user_path(text)
    assert "\n" not in str(caught.value)


def test_a_bucket_has_a_name_and_gcsfs_is_asked_for(monkeypatch):
    with pytest.raises(UserError, match="names no bucket"):
        user_path("gs://")
    monkeypatch.delitem(sys.modules, "gcsfs", raising=False)
    monkeypatch.setattr(buckets, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'ncjax\[gcs\]'"):
        user_path("gs://b/run")


def test_orbax_cannot_write_to_s3_yet():
    """When it can, `s3://` may be opened in `ncjax/paths.py`."""
    from orbax.checkpoint._src.serialization import tensorstore_utils

    with pytest.raises(ValueError, match="should be absolute"):
        tensorstore_utils.build_kvstore_tspec("s3://bucket/run", name="x")


def test_files_are_written_found_and_deleted(folder):
    file = folder / "a" / "é [1]*.json"
    assert not file.exists()
    assert not folder.is_dir()
    assert file.write_text("größer") == len("größer".encode())
    assert (file.read_text(), file.read_bytes()) == ("größer", "größer".encode())
    assert file.is_file()
    assert not file.is_dir()
    assert folder.is_dir()
    assert not folder.is_file()
    assert file.stat().st_size == 8
    assert folder.stat().st_mtime <= (folder / "a").stat().st_mtime
    with file.open(encoding="utf-8") as text:
        assert text.read() == "größer"
    file.write_bytes(b"new")
    assert file.read_bytes() == b"new"
    file.unlink()
    assert not file.exists()
    file.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError) as caught:
        file.unlink()
    assert caught.value.filename == str(file)


def test_what_is_below_is_listed_as_on_a_disk(folder, tmp_path):
    names = ["10/a", "9/b/c.npy", ".draft/x", "x.json", "[z]/d.json"]
    for root in (folder, tmp_path):
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)

    def below(root, found):
        return sorted(str(path.relative_to(root)) for path in found)

    assert below(folder, folder.iterdir()) == below(tmp_path, tmp_path.iterdir())
    for pattern in ("[0-9]*", ".*", "*", "*.json", "*/*.json", "x.json", "none*"):
        assert below(folder, folder.glob(pattern)) == below(tmp_path, tmp_path.glob(pattern)), pattern
    files = [path for path in tmp_path.rglob("*.json") if path.is_file()]
    assert below(folder, folder.rglob("*.json")) == below(tmp_path, files)
    odd = folder / "[z]"
    assert below(odd, odd.glob("*")) == ["d.json"]


def test_folders_are_moved_whole_and_what_is_directly_in_them_comes_last(folder, server):
    draft, final = folder / ".5.draft", folder / "5"
    (final / "old").write_text("old")
    (draft / "0" / "0.0").write_bytes(b"rows")
    (draft / "arrays.json").write_text("[]")
    server.requests.clear()
    replace_folder(draft, final)
    assert [path.name for path in sorted(final.iterdir())] == ["0", "arrays.json"]
    assert not draft.exists()
    copies = [request for request in server.requests if "copyTo" in request or "rewriteTo" in request]
    assert "arrays.json" in copies[-1]
    remove_folder(final)
    remove_folder(final)
    assert not final.exists()


def test_a_file_is_set_aside_under_a_free_name(folder):
    for content in ("one", "two"):
        (folder / "a.json").write_text(content)
        set_aside(folder / "a.json")
    assert (folder / "a.unreadable.json").read_text() == "one"
    assert (folder / "a.unreadable_again.json").read_text() == "two"


def test_a_file_appears_whole_or_not_at_all(folder):
    file, rows = folder / "a.npz", np.arange(12.0).reshape(3, 4)
    with pytest.raises(ZeroDivisionError), atomic_path(file) as draft:
        draft.write_bytes(b"half" * (1 // 0))
    assert not folder.exists()
    write_arrays(file, {"rows": rows})
    np.testing.assert_array_equal(load_npz(file)["rows"], rows)
    with pytest.raises(io.UnsupportedOperation):
        file.open("wb")
    with pytest.raises(UserError, match="copy it"):
        map_npy(folder / "a.npy")


def test_lines_are_added(folder):
    for line in ("one\n", "two\n"):
        append_text(folder / "log.jsonl", line)
    assert (folder / "log.jsonl").read_text() == "one\ntwo\n"


def test_a_store_that_fails_now_and_then_is_asked_again(folder, server, impatient):
    server.fail_every = 3
    for number in range(6):
        (folder / str(number)).write_text(str(number))
    assert sorted(path.name for path in folder.iterdir()) == list("012345")
    assert (folder / "3").read_text() == "3"


def test_a_command_whose_store_cannot_be_reached_may_be_started_again(folder, server, impatient, monkeypatch, capsys):
    (folder / "config.json").write_text("{}")
    server.fail_every = 1
    monkeypatch.setattr(
        "sys.argv", ["ncjax", "train", str(ROOT / "configs" / "digits_demo.py"), "--workdir", str(folder)]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 75
    said = messages(capsys.readouterr().err)[-1]
    assert said.startswith(f"ncjax: error: cannot reach {folder}/")
    assert "the same command goes on" in said


def test_a_store_that_cannot_be_reached_is_an_error_and_not_a_missing_file(folder, server, impatient):
    """Else a run would begin anew over its own checkpoints."""
    (folder / "config.json").write_text("{}")
    server.fail_every = 1
    for ask in (BucketPath.exists, BucketPath.is_file, BucketPath.is_dir, BucketPath.read_bytes, BucketPath.stat):
        with pytest.raises(OSError, match=r"config\.json") as caught:
            ask(folder / "config.json")
        assert caught.value.errno == errno.EIO
        assert caught.value.strerror
