# SPDX-License-Identifier: Apache-2.0
"""The tables of a run as Markdown."""

from pathlib import Path

from ncjax.report import run_summary
from tests.report.rows import make_row, make_workdir


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_summary_holds_the_numbers_of_every_epoch_and_control(tmp_path: Path) -> None:
    rows = [make_row(seed=seed, accuracy=accuracy) for seed, accuracy in enumerate((0.7, 0.9))]
    rows += [make_row(epoch=10, accuracy=0.6), make_row("raw_pixels", name="raw pixels", label_map=None, epoch=None)]
    main, clusters = (table.splitlines() for table in run_summary(make_workdir(tmp_path, rows)).split("\n\n"))
    assert cells(main[0])[:6] == ["network", "seeds", "epoch", "coarse test", "coarse train", "true-label probe"]
    assert cells(main[0])[6:] == ["CLP: raw features", "NC1 coarse", "NC1 fine"]
    assert [cells(line)[:3] for line in main[2:]] == [
        ["trained on coarse labels (mod:5)", "2", "20"],
        ["trained on coarse labels (mod:5/lr=0.1/wd=0.0005/seed=0)", "1", "10"],
        ["raw pixels", "1", "–"],
    ]
    expected = ["90.0 ± 0.0", "99.0 ± 0.0", "85.0 ± 0.0", "80.0 ± 14.1", "0.0123 ± 0.0000", "1.50 ± 0.00"]
    assert cells(main[2])[3:] == expected
    assert cells(clusters[0]) == ["network", "epoch", "clusters: raw features", "ARI: raw features"]
    assert cells(clusters[2])[2:] == ["50.0 ± 0.0", "0.500 ± 0.000"]
    assert {len(cells(line)) for line in main} == {9}
