# SPDX-License-Identifier: Apache-2.0
"""Rows and comparisons as JSON and as tables; the README's table is that of the files in docs/bench."""

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from ncjax.bench.interleave import Measured
from ncjax.bench.result import (
    MARKS,
    Comparison,
    Row,
    fastest,
    replace_speed_table,
    row_of,
    speed_table,
    tables,
    to_json,
)

ROOT = Path(__file__).parents[2]
ROWS = [
    row_of("ours", "images/s", Measured((3000.0, 1000.04, 2000.0), 12.345, 3 * 2**20, "")),
    row_of("theirs", "images/s", Measured((400.0, 500.0), 1.0, 2**20, "")),
    row_of("theirs, slow", "images/s", Measured((0.123456,), 1.0, 2**20, "")),
    row_of("broken", "images/s", Measured((), 0.0, 0, "ValueError: no compiler")),
]
PAIRS = [Comparison("one member", "ours", "theirs"), Comparison("never", "ours", "broken")]


@pytest.fixture
def result():
    return to_json("ncjax bench it", ROWS, PAIRS, ["A note."])


def test_the_file_says_what_was_measured_and_where(result):
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    ours, *_, broken = result["rows"]
    assert ours == {
        "name": "ours",
        "unit": "images/s",
        "median": 2000,
        "min": 1000,
        "max": 3000,
        "setup_secs": 12.345,
        "peak_mib": 3,
        "values": [3000, 1000, 2000],
        "error": "",
    }
    assert broken == {"name": "broken", "unit": "images/s", "values": [], "error": "ValueError: no compiler"}
    assert result["comparisons"] == [{"what": "one member", "ours": "ours", "theirs": "theirs", "ratio": 4.4444}]
    assert result["command"] == "ncjax bench it"
    assert result["versions"]["jax"] == version("jax")
    machine = result["machine"]
    assert machine["accelerator"] is None
    assert machine["torch"] == version("torch")
    assert 1 <= machine["cores"] <= os.cpu_count()
    (line,) = (line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert machine["memory_gib"] == pytest.approx(int(line.split()[1]) / 2**20, abs=0.1)


def test_the_fastest_is_the_one_with_the_highest_median():
    assert fastest(ROWS) == "ours"
    assert fastest(ROWS[1:]) == "theirs"
    assert fastest(ROWS[3:]) is None


def test_tables_show_spread_reason_ratio_and_notes(result):
    assert tables(result).splitlines() == [
        "|  | median (min to max) | n | secs to ready | peak MiB |",
        "| --- | --- | --- | --- | --- |",
        "| ours | 2,000 images/s (1,000 to 3,000) | 3 | 12.3 | 3.0 |",
        "| theirs | 450 images/s (400 to 500) | 2 | 1.0 | 1.0 |",
        "| theirs, slow | 0.123 images/s (0.123 to 0.123) | 1 | 1.0 | 1.0 |",
        "| broken | failed: ValueError: no compiler | 0 |  |  |",
        "",
        "|  | ours | theirs | ours / theirs |",
        "| --- | --- | --- | --- |",
        "| one member | ours: 2,000 images/s (1,000 to 3,000) | theirs: 450 images/s (400 to 500) | 4.44 |",
        "",
        "A note.",
    ]
    alone = to_json("ncjax bench it", [Row("ours", "s", (1.0,))], [], [])
    assert tables(alone).splitlines()[2:] == ["| ours | 1.00 s (1.00 to 1.00) | 1 |  |  |"]


def test_speed_table_takes_the_place_of_the_old_one(result):
    result["machine"] |= {"processor": "Some CPU", "cores": 2}
    table = speed_table({"docs/a.json": result, "docs/b.json": result | {"machine": {"accelerator": "1 x Some GPU"}}})
    line = "| one member | ours: 2,000 images/s (1,000 to 3,000) | theirs: 450 images/s (400 to 500) | 4.44 | "
    assert table.splitlines()[2:] == [
        line + "[2 cores of Some CPU](docs/a.json) |",
        line + "[1 x Some GPU](docs/b.json) |",
    ]
    page = f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n"
    replaced = replace_speed_table(page, table)
    assert replaced == f"before\n{MARKS[0]}\n\n{table}\n\n{MARKS[1]}\nafter\n"
    assert replace_speed_table(replaced, table) == replaced


def test_the_speed_table_of_the_readme_is_that_of_the_files():
    files = sorted((ROOT / "docs" / "bench").glob("*.json"))
    assert files
    results = {str(path.relative_to(ROOT)): json.loads(path.read_text()) for path in files}
    page = (ROOT / "README.md").read_text()
    assert replace_speed_table(page, speed_table(results)) == page
