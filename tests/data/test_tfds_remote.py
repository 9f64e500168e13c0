# SPDX-License-Identifier: Apache-2.0
"""Sets of TFDS in a bucket on the loopback address, read by a process without TensorFlow and by gcsfs itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bucket import ENVIRONMENT, bucket_of
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


@pytest.fixture
def animals(tmp_path):
    rows = {"train": rows_of(10, seed=0), "test": rows_of(6, seed=1)}
    prepare(tmp_path / "there" / "sets" / "animals" / "1.0.0", rows)
    return tmp_path, sum(int(row["image"].sum()) for row in rows["train"])


def load(server, tmp_path, name="animals", path="gs://bucket/sets"):
    variables = ENVIRONMENT | {"STORAGE_EMULATOR_HOST": server.address, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, name, path, str(tmp_path / "cache")]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=120)


def contents(server):
    """The objects whose bytes were asked for."""
    return [path for path, _ in server.asked if path.startswith("/download")]


def test_a_set_in_a_bucket_is_copied_once_and_read(animals):
    pytest.importorskip("gcsfs")
    tmp_path, total = animals
    with bucket_of(tmp_path / "there") as server:
        first = load(server, tmp_path)
        assert first.stdout == f"animals [0, 1, 2, 0, 1, 2] {total}\n", first.stderr
        records = [path for path in contents(server) if "array_record" in path]
        assert len(set(records)) == 5
        assert load(server, tmp_path).stdout == first.stdout
        assert [path for path in contents(server) if "array_record" in path] == records


def test_what_is_not_in_the_bucket_is_one_line(animals):
    pytest.importorskip("gcsfs")
    tmp_path, _ = animals
    with bucket_of(tmp_path / "there") as server:
        ended = load(server, tmp_path, "plants")
    (line,) = [one for one in ended.stderr.splitlines() if one.startswith("TFDS set")]
    assert line.startswith("TFDS set 'plants' cannot be read in gs://bucket/sets (")
    assert line.endswith("check name and address; a set is prepared in a folder, and then copied to such an address")
    assert ended.returncode == 1
