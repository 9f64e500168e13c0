# SPDX-License-Identifier: Apache-2.0
"""Two real processes on a streamed image folder: the numbers of one process, and each reads only its part."""

from pathlib import Path

import pytest
from PIL import Image

from ncjax.config import DataConfig
from ncjax.data import load_dataset
from tests.runs import assert_close, assert_same_features, command, ended, records, start, start_several

COUNTS_READS = """
import os
from pathlib import Path
from ncjax.data import folder

decode = folder.decode

def decode_and_count(file, *args):
    with open(f"{os.environ['READS']}_{os.environ.get('NCJAX_PROCESS', 'alone')}", "a") as log:
        log.write(f"{file}\\n")
    return decode(file, *args)

folder.decode = decode_and_count
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """scikit-learn's digits as a folder: 320 and 100 of them."""
    root = tmp_path_factory.mktemp("digits")
    dataset = load_dataset(DataConfig(source="digits", train_examples=320, test_examples=100))
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            (root / name / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(root / name / str(label) / f"{i:03}.png")
    return root


@pytest.mark.slow
def test_two_processes_train_like_one_and_each_reads_its_part(digits: Path, tmp_path: Path) -> None:
    def streamed(name: str, *spread: object) -> list[object]:
        options = ("--data.source", "image_folder", "--data.path", digits, "--data.streamed", *spread)
        cache = ("--data.cache-dir", tmp_path / f"cache_{name}")
        return command("train", tmp_path / name, *options, *cache)

    given = {"before": COUNTS_READS, "READS": tmp_path / "reads"}
    spread = ("--mesh.member", 1, "--mesh.data", 2)
    processes = start_several(streamed("two", *spread), processes=2, devices=1, **given)
    for code, err in [*ended([start(streamed("one"), **given)]), *ended(processes)]:
        assert code == 0, err
    assert_close(records(tmp_path / "one"), records(tmp_path / "two"), atol=1e-5)
    assert_same_features(tmp_path / "one", tmp_path / "two", 2, atol=1e-4)
    alone, *parts = (len((tmp_path / f"reads_{name}").read_text().splitlines()) for name in ("alone", "0", "1"))
    assert alone > 4 * 320  # one look, two epochs, features
    assert sum(parts) <= alone + 4  # both look at the first image of a split
    assert max(parts) <= 0.55 * alone
