# SPDX-License-Identifier: Apache-2.0
"""Writes the README's speed table from docs/bench/*.json: `python docs/scripts/speed_table.py`."""

from pathlib import Path

from ncjax.bench.result import read_result, replace_speed_table, speed_table

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Read, format, write."""
    files = sorted((ROOT / "docs" / "bench").glob("*.json"))
    table = speed_table({str(path.relative_to(ROOT)): read_result(path) for path in files})
    readme = ROOT / "README.md"
    readme.write_text(replace_speed_table(readme.read_text(), table))


if __name__ == "__main__":
    main()
