# SPDX-License-Identifier: Apache-2.0
"""Official archives from a server on the loopback address into a cache folder, and what sources read there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import tensorflow_datasets

from ncjax.config import DataConfig
from ncjax.data import fetch as module
from ncjax.data import load_dataset
from ncjax.data.cifar import CIFAR10_CLASSES
from ncjax.data.fetch import DOWNLOADS, fetch, fetched_folder
from ncjax.data.label_maps import LabelMap
from ncjax.errors import UserError
from ncjax.storage import download
from tests.archives import LABELS, PIXELS, answers, archives, downloads_of, tar_of
from tests.server import cut_off, file_of, serving


@pytest.fixture
def server(monkeypatch):
    """A server with stand-ins for all archives, which the table leads to."""
    files = archives()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "WAIT_SECS", 0.0)
    with serving(answers(files)) as found:
        monkeypatch.setattr(module, "DOWNLOADS", downloads_of(found.address, files))
        yield found


def load(source, cache):
    return load_dataset(DataConfig(source=source, cache_dir=str(cache)))


def names_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", DOWNLOADS)
def test_the_table_is_what_tensorflow_datasets_publishes(name):
    known = Path(tensorflow_datasets.__file__).parent / "url_checksums" / f"{name}.txt"
    published = {tuple(line.split("\t")[:3]) for line in known.read_text().splitlines()}
    assert {(one.url, str(one.size), one.sha256) for one in DOWNLOADS[name].files} == published


def test_cifar10_needs_no_path_after_it_was_fetched(server, tmp_path):
    with pytest.raises(UserError, match=r"data\.path is empty, and cifar10 is not in .*: ncjax data fetch cifar10 --c"):
        load("cifar10", tmp_path)
    folder = fetch("cifar10", tmp_path)
    assert folder == fetched_folder("cifar10", tmp_path)
    dataset = load("cifar10", tmp_path)
    np.testing.assert_array_equal(dataset.test.labels, LABELS)
    np.testing.assert_array_equal(dataset.train.images, PIXELS.reshape(20, 3, 32, 32).transpose(0, 2, 3, 1))
    assert dataset.class_names == CIFAR10_CLASSES
    expected = {f"cifar-10-batches-bin/{name}" for name in ("batches.meta.txt", "test_batch.bin")}
    expected |= {f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)}
    assert names_in(folder) == {*expected, "sha256.json"}
    assert names_in(tmp_path / "data") <= {*(f"cifar10/{one}" for one in names_in(folder)), ".cifar10.lock"}


def test_the_others_too(server, tmp_path):
    for name in ("cifar100", "fashion_mnist"):
        fetch(name, tmp_path)
    found = load("cifar100", tmp_path)
    assert LabelMap.parse("superclass", found.class_names, found.super_classes).super_class[:7] == (0, 0, 0, 0, 0, 1, 1)
    fashion = load("fashion_mnist", tmp_path)
    np.testing.assert_array_equal(fashion.train.images[..., 0], PIXELS[:, :784].reshape(20, 28, 28))
    assert (fashion.name, fashion.class_names[9]) == ("fashion_mnist", "Ankle boot")


def test_the_default_is_the_cache_folder_of_the_user(server, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch("cifar10") == tmp_path / "ncjax" / "data" / "cifar10"
    assert load_dataset("cifar10").test.labels.size == 20


def test_a_path_goes_before_what_was_fetched(server, tmp_path):
    fetch("cifar10", tmp_path)
    other = DataConfig(source="cifar10", cache_dir=str(tmp_path), path=str(tmp_path))
    with pytest.raises(UserError, match="no cifar10 files in"):
        load_dataset(other)


def test_what_is_there_undamaged_is_not_downloaded_again(server, tmp_path):
    folder = fetch("cifar10", tmp_path)
    assert len(server.asked) == 1
    fetch("cifar10", tmp_path)
    assert len(server.asked) == 1
    (folder / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(b"")
    fetch("cifar10", tmp_path)
    assert len(server.asked) == 2
    assert load("cifar10", tmp_path).test.labels.size == 20


def test_progress_is_told_as_events(server, tmp_path):
    told = []
    fetch("fashion_mnist", tmp_path, told.append)
    ends = [event for event in told if event.state == "ended" and event.done == event.total]
    assert [event.name for event in ends] == [one.name for one in DOWNLOADS["fashion_mnist"].files]
    assert all(event.stage == "download" for event in told)


def test_files_that_are_whole_are_kept_when_a_later_one_fails(server, tmp_path):
    name = "/t10k-images-idx3-ubyte.gz"
    sound, server.answers[name] = server.answers[name], lambda handler: handler.send(404)
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte\.gz cannot be downloaded: 404"):
        fetch("fashion_mnist", tmp_path)
    assert not fetched_folder("fashion_mnist", tmp_path).exists()
    before, server.answers[name] = len(server.asked), sound
    fetch("fashion_mnist", tmp_path)
    assert [path for path, _ in server.asked[before:]] == [name, "/t10k-labels-idx1-ubyte.gz"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar_of({"../../out": b"x"}), "which does not belong into a data set"),
        (b"not an archive", "is no archive that can be read"),
        (tar_of({"zeros": bytes(2**21)}), "holds more than the 1.0 MiB"),
    ],
    ids=["..", "text", "too much"],
)
def test_archives_that_are_something_else_leave_the_cache_as_it_was(server, tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(module, "MOST_INFLATED", 2**20)
    fetch("cifar10", tmp_path)
    (tmp_path / "data" / "cifar10" / "cifar-10-batches-bin" / "test_batch.bin").unlink()
    before = names_in(tmp_path / "data" / "cifar10")
    name = "cifar-10-binary.tar.gz"
    server.answers[f"/{name}"] = file_of(content)
    changed = downloads_of(server.address, archives() | {name: content})
    monkeypatch.setattr(module, "DOWNLOADS", changed)
    with pytest.raises(UserError, match=message):
        fetch("cifar10", tmp_path)
    assert names_in(tmp_path / "data" / "cifar10") == before
    assert {path.name for path in (tmp_path / "data").iterdir()} <= {"cifar10", ".cifar10.lock", name}


def test_two_processes_do_not_download_the_same(server, tmp_path):
    (tmp_path / "data").mkdir()
    with (
        filelock.FileLock(tmp_path / "data" / ".cifar10.lock"),
        pytest.raises(UserError, match="cifar10 is being downloaded by another process; wait for its end"),
    ):
        fetch("cifar10", tmp_path)
    assert server.asked == []


def test_folders_that_cannot_be_written_are_named(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/data/cifar10: .*choose another folder for the cache"):
        fetch("cifar10", tmp_path / "file")
    monkeypatch.setattr(module, "is_temporary", lambda folder: True)
    with pytest.raises(UserError, match="is deleted when this process ends; name another cache folder"):
        fetch("cifar10")
    assert server.asked == []


def test_what_is_not_in_the_table_is_refused(tmp_path):
    with pytest.raises(UserError, match="nothing is known of 'imagenet' to download; known are cifar10, cifar100, fa"):
        fetch("imagenet", tmp_path)


SCRIPT = """
import sys
from pathlib import Path
from ncjax.data import fetch
from tests.archives import archives, downloads_of
fetch.DOWNLOADS = downloads_of(sys.argv[1], archives())
fetch.fetch("cifar10", Path(sys.argv[2]))
"""


def test_a_process_that_is_killed_is_gone_on_with(tmp_path, monkeypatch):
    """The server sends the first half, and then nothing for as long as the first process lives."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    name, files = "cifar-10-binary.tar.gz", archives()
    content, half = files[name], len(files[name]) // 2
    killed = []

    def stalls(handler):
        cut_off(content, half)(handler)
        handler.wfile.flush()
        while not killed:
            time.sleep(0.02)

    with serving({f"/{name}": stalls}) as server:
        command = [sys.executable, "-c", SCRIPT, server.address, str(tmp_path)]
        process = subprocess.Popen(command, env=os.environ)
        part = tmp_path / "data" / f"{name}.part"
        try:
            while not (part.exists() and part.stat().st_size == half):
                assert process.poll() is None
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed.append(True)
        server.answers[f"/{name}"] = file_of(content)
        subprocess.run(command, env=os.environ, check=True)
        assert [ranged for _, ranged in server.asked] == ["", f"bytes={half}-"]
    assert load("cifar10", tmp_path).train.labels.size == 20
