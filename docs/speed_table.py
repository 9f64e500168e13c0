# SPDX-License-Identifier: Apache-2.0
"""Writes the README's speed table from docs/bench/*.json, the results of `ncjax bench`: python docs/speed_table.py."""

from pathlib import Path

from ncjax.bench.result import replace_speed_table, speed_table
from ncjax.storage.workdir import read_json

ROOT = Path(__file__).parents[1]
readme = ROOT / "README.md"
results = {str(path.relative_to(ROOT)): read_json(path) for path in sorted((ROOT / "docs" / "bench").glob("*.json"))}
readme.write_text(replace_speed_table(readme.read_text(), speed_table(results)))
