# SPDX-License-Identifier: Apache-2.0
"""Features of a folder are evaluated by several processes as by one, and each reads its share of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.runs import assert_close, ended, start, start_several, without_what_differs

CLASSES, WIDTH = 10, 32
# How many training rows a process has read, and how many times one, goes to a file.
TRAIN = 20_001  # rows
COUNTING = """
import atexit, os, numpy as np
import ncjax.collapse.reading, ncjax.features.frames
from ncjax.storage import npy_rows
ncjax.collapse.reading.SUBSAMPLE, ncjax.features.frames.SAMPLE_FLOATS = 50, 2**12  # which every process reads
read = {}
whole = npy_rows.NpyRows.__getitem__
def counting(self, rows):
    read.setdefault(self._path, []).extend(np.arange(self.shape[0])[rows].tolist())
    return whole(self, rows)
npy_rows.NpyRows.__getitem__ = counting
def report():
    name = os.environ.get("NCJAX_PROCESS", "alone")
    with open(f"{os.environ['REPORT']}-{name}", "w") as file:
        (rows,) = (rows for path, rows in read.items() if "train" in path)
        file.write(f"{len(set(rows))} {len(rows)}")
atexit.register(report)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path, rng = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
    centres = 3 * rng.normal(size=(CLASSES, WIDTH))
    for split, count in (("train", TRAIN), ("test", 1003)):
        labels = np.arange(count) % CLASSES
        rows = (centres[labels] + 2 * rng.normal(size=(count, WIDTH))).astype(np.float32)
        np.save(path / f"{split}_features.npy", rows)
        np.save(path / f"{split}_labels.npy", labels)
    return path


def evaluated(
    folder: Path, output: Path, memory: float, *, processes: int, devices: int
) -> tuple[dict, list[tuple[int, int]]]:
    """The results, and of each process how many training rows it has read, and how many times one."""
    line = ["evaluate", folder, "--label-map", "mod:5", "--bootstrap", 0, "--output", output, "--memory-gib", memory]
    options = {"before": COUNTING, "REPORT": output, "devices": devices}
    started = start_several(line, processes=processes, **options) if processes > 1 else [start(line, **options)]
    for code, err in ended(started, timeout=600):
        assert code == 0, err
    names = ["alone"] if processes == 1 else map(str, range(processes))
    return json.loads(output.read_text()), [
        tuple(map(int, Path(f"{output}-{name}").read_text().split())) for name in names
    ]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("memory", [1.0, 0.0005], ids=["in memory", "in blocks"])
def test_two_processes_measure_what_one_does_and_read_their_shares(memory, folder, tmp_path):
    alone, ((whole, times),) = evaluated(folder, tmp_path / "one", memory, processes=1, devices=1)
    both, shares = evaluated(folder, tmp_path / "two", memory, processes=2, devices=2)
    assert_close(without_what_differs(alone), without_what_differs(both), atol=1e-5)
    assert whole == TRAIN
    if memory < 1:
        assert max(count for _, count in shares) < 0.7 * times
    else:  # its part of the whole and its part of each block are different rows, and are both read
        assert max(rows for rows, _ in shares) < 0.9 * whole
