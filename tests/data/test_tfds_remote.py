# SPDX-License-Identifier: Apache-2.0
"""Sets of TFDS in a bucket on the loopback address, read by a process without TensorFlow and by gcsfs itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ncjax.buckets import BucketPath
from tests.bucket_server import bucket_in_this_process
from tests.data.test_tfds import prepare, rows_of

ROOT = Path(__file__).parents[2]
# etils asks TensorFlow to read gs:// wherever it is installed, and TensorFlow knows no bucket but Google's.
SCRIPT = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *package: None if name == "tensorflow" else find(name, *package)
from etils.epath import gpath
gpath._is_tf_installed = lambda: False
from ncjax.config import DataConfig
from ncjax.data import load_dataset
from ncjax.errors import UserError
config = DataConfig(source="tfds", tfds_name=sys.argv[1], path=sys.argv[2], cache_dir=sys.argv[3])
try:
    dataset = load_dataset(config)
except UserError as error:
    sys.exit(str(error))
print(dataset.name, dataset.test.labels.tolist(), int(dataset.train.images.sum()))
"""


SETS = "gs://bucket1/sets"
ROWS = {"train": rows_of(10, seed=0), "test": rows_of(6, seed=1)}


@pytest.fixture
def store(tmp_path):
    """Holds the set `animals`."""
    there = tmp_path / "there"
    prepare(there / "animals" / "1.0.0", ROWS)
    with bucket_in_this_process() as server:
        for file in filter(Path.is_file, there.rglob("*")):
            (BucketPath(SETS) / file.relative_to(there)).write_bytes(file.read_bytes())
        server.requests.clear()
        yield server


def load(tmp_path, name="animals"):
    command = [sys.executable, "-c", SCRIPT, name, SETS, str(tmp_path / "cache")]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)


def records_read(store):
    """The requests for the bytes of a file of records."""
    return [one for one in store.requests if "array_record" in one and "alt=media" in one]


def test_a_set_in_a_bucket_is_copied_once_and_read(store, tmp_path):
    total = sum(int(row["image"].sum()) for row in ROWS["train"])
    first = load(tmp_path)
    assert first.stdout == f"animals [0, 1, 2, 0, 1, 2] {total}\n", first.stderr
    records = records_read(store)
    assert len(set(records)) == 5
    assert load(tmp_path).stdout == first.stdout
    assert records_read(store) == records


def test_what_is_not_in_the_bucket_is_one_line(store, tmp_path):
    ended = load(tmp_path, "plants")
    (line,) = [one for one in ended.stderr.splitlines() if one.startswith("TFDS set")]
    assert line.startswith(f"TFDS set 'plants' cannot be read in {SETS} (")
    assert line.endswith("check name and address; a set is prepared in a folder, and then copied to such an address")
    assert ended.returncode == 1
