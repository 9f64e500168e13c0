# SPDX-License-Identifier: Apache-2.0
"""`ncjax bench startup`: what is started, with which cache, and what is written."""

import json
import sys
from pathlib import Path

import pytest

from ncjax.bench import startup
from ncjax.cli.main import main

STAND_IN = """
import os, sys
from pathlib import Path

cache = Path(os.environ.get("XDG_CACHE_HOME", ".")) / "seen"
with open("log", "a") as log:
    log.write(f"{sys.argv[1]} {cache.exists()} {'JAX_COMPILATION_CACHE_DIR' in os.environ}\\n")
if sys.argv[1] == "demo":
    workdir = Path(sys.argv[sys.argv.index("--workdir") + 1])
    workdir.mkdir()
    (workdir / "metrics.jsonl").write_text("{}")
    cache.touch()
    print("beginning\\n\\nfirst sentence\\n\\nsecond sentence")
    if "--fail" in sys.argv:
        sys.exit("a line\\nno such thing")
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """`python -m ncjax` is, in this folder, a program that writes what it is started with."""
    (tmp_path / "ncjax").mkdir()
    (tmp_path / "ncjax" / "__main__.py").write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/of/the/user")
    return tmp_path / "log"


def test_the_demo_starts_with_an_empty_folder_then_with_what_it_left(stand_in, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ncjax", "bench", "startup", "--rounds", "2"])
    main()
    again = ["--help False False", "demo False False", "demo True False"]
    assert stand_in.read_text().splitlines() == ["--help False False", *again, *again]
    result = json.loads(Path("runs/bench/startup.json").read_text())
    rows = {row["name"]: row["values"] for row in result["rows"]}
    assert [len(values) for values in rows.values()] == [2] * 7
    for start in ("first start", "later start"):
        parts = [rows[f"{start}, {part}"] for part in startup.PARTS]
        assert all(0 < output <= whole and 0 < epoch <= whole for output, epoch, whole in zip(*parts, strict=True))
    assert [line["what"] for line in result["comparisons"]] == [
        "ncjax demo, until its first output",
        "ncjax demo, until its first epoch",
        "ncjax demo, whole",
    ]
    assert result["notes"] == ["The demo said: first sentence", "The demo said: second sentence"]


def test_a_demo_that_fails_says_why(stand_in):
    with pytest.raises(startup.UserError, match="--fail fails with 1: no such thing"):
        startup.bench_startup("", rounds=1, demo=("--fail",))
