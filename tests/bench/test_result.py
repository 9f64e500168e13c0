# SPDX-License-Identifier: Apache-2.0
"""Rows and comparisons as JSON and as tables; the README's table is that of the files in docs/bench."""

import dataclasses
import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from ncjax.bench.interleave import Measured
from ncjax.bench.result import (
    MARKS,
    Pair,
    bench_result,
    bench_row,
    fastest,
    read_result,
    replace_speed_table,
    row_of,
    speed_table,
    tables,
    write_result,
)
from ncjax.errors import UserError

ROOT = Path(__file__).parents[2]
ROWS = [
    row_of("ours", "images/s", Measured((3000.0, 1000.04, 2000.0), 12.345, 3 * 2**20, "")),
    row_of("theirs", "images/s", Measured((400.0, 500.0), 1.0, 2**20, "")),
    row_of("theirs, slow", "images/s", Measured((0.123456,), 1.0, 2**20, "")),
    row_of("broken", "images/s", Measured((), 0.0, 0, "ValueError: no compiler")),
]
PAIRS = [Pair("one member", "ours", "theirs"), Pair("never", "ours", "broken")]


@pytest.fixture
def result():
    return bench_result("ncjax bench it", ROWS, PAIRS, ["A note."])


def test_the_file_says_what_was_measured_and_where(result, tmp_path):
    write_result(tmp_path / "it.json", result)
    written = json.loads((tmp_path / "it.json").read_text())
    ours, *_, broken = written["rows"]
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
    assert written["comparisons"] == [{"what": "one member", "ours": "ours", "theirs": "theirs", "ratio": 4.4444}]
    assert written["command"] == "ncjax bench it"
    assert written["versions"]["jax"] == version("jax")
    assert "config" not in written
    machine = written["machine"]
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
        "| theirs, slow | 0.123 images/s (n = 1) | 1 | 1.0 | 1.0 |",
        "| broken | failed: ValueError: no compiler | 0 |  |  |",
        "",
        "|  | ours | theirs | ours / theirs |",
        "| --- | --- | --- | --- |",
        "| one member | ours: 2,000 images/s (1,000 to 3,000) | theirs: 450 images/s (400 to 500) | 4.44 |",
        "",
        "A note.",
    ]
    alone = bench_result("ncjax bench it", [bench_row("ours", "s", (1.0,))], [], [])
    assert tables(alone).splitlines()[2:] == ["| ours | 1.00 s (n = 1) | 1 |  |  |"]


def test_speed_table_takes_the_place_of_the_old_one(result):
    machines = (
        dataclasses.replace(result.machine, processor="Some CPU", cores=2),
        dataclasses.replace(result.machine, accelerator="1 x Some GPU"),
    )
    results = (dataclasses.replace(result, machine=machine) for machine in machines)
    table = speed_table(dict(zip(("docs/a.json", "docs/b.json"), results, strict=True)))
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
    results = {str(path.relative_to(ROOT)): read_result(path) for path in files}
    page = (ROOT / "README.md").read_text()
    assert replace_speed_table(page, speed_table(results)) == page


BENCH_FILES = [
    path for path in sorted((ROOT / "docs" / "bench").rglob("*.json")) if "comparisons" in json.loads(path.read_text())
]


@pytest.mark.parametrize("path", BENCH_FILES, ids=lambda path: path.stem)
def test_files_of_earlier_benchmarks_are_read_and_written_as_they_are(path, tmp_path):
    write_result(tmp_path / "again.json", read_result(path))
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 3}, "rows"),
        ({"extra": 3}, "unknown field extra"),
        ({"machine": {}}, "missing field"),
        (
            {"comparisons": [{"what": "", "ours": "a", "theirs": "b", "ratio": 1.0}]},
            "compares 'a' and 'b', but its rows",
        ),
    ],
)
def test_other_files_are_refused(change, message, result, tmp_path):
    path = tmp_path / "it.json"
    write_result(path, result)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError) as refusal:
        read_result(path)
    assert str(refusal.value).startswith(f"{path} is not a result of ncjax bench: ")
    assert message in str(refusal.value)
