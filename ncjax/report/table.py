# SPDX-License-Identifier: Apache-2.0
"""The tables of a run: the strings of their cells, and both as Markdown for terminals and documents."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ncjax.report.comparison import comparison_tables
from ncjax.report.groups import (
    KINDS,
    MISSING,
    VARIANTS,
    Group,
    group_rows,
    index,
    labels_of,
    number,
    percent,
    variants_of,
)
from ncjax.report.read import read_results
from ncjax.report.theory import holds_theory, theory_summary


def table_row(group: Group, label: str, variants: Sequence[str]) -> dict[str, Any]:
    """The strings of one line of the tables; accuracies in per cent."""
    names = ("coarse_train_accuracy", "coarse_test_accuracy", "probe_train_accuracy", "probe_test_accuracy")
    row: dict[str, Any] = {name: percent(group.values(name)) for name in names}
    row |= {
        f"{metric}_{split}": number(group.values(f"{metric}_{split}"))
        for metric in ("nc1_coarse", "nc1_fine")
        for split in ("train", "test")
    }
    row |= {
        f"distance_{name}": number(group.values(f"distance_{name}"))
        for name in ("same_class", "merged_classes", "other_classes")
    }
    scores = ("test_accuracy", "test_accuracy_oracle", "cluster_accuracy_train", "cluster_accuracy_test")
    row["clp"] = {
        variant: {score: percent(group.values("clp", variant, score)) for score in scores}
        | {score: index(group.values("clp", variant, score)) for score in ("ari", "nmi")}
        for variant in variants
    }
    epoch = MISSING if group.epoch is None else f"{group.epoch:g}"
    kind = KINDS.get(group.kind, group.kind)
    return row | {"label": label, "kind": kind, "epoch": epoch, "seeds": len(group.rows)}


def summary(workdir: Path) -> str:
    """Markdown tables of all networks and controls at all kept epochs; accuracies in per cent.

    The first: coarse accuracy, probe on the true labels (the ceiling) and CLP by variant on the test set, NC1 on the
    training set. The second: agreement of the training clusters with the fine classes, accuracy and ARI. After `ncjax
    compare` those of `comparison_tables` follow.

    Raises:
        UserError: the work directory holds no results, or they cannot be read.
    """
    if holds_theory(workdir):
        return theory_summary(workdir)
    results = read_results(workdir)
    shown = group_rows(results.rows)
    variants = variants_of(shown)
    names = [VARIANTS.get(name, name) for name in variants]
    rows = [table_row(group, label, variants) for group, label in zip(shown, labels_of(shown), strict=True)]
    main = [
        ["network", "seeds", "epoch", "coarse test", "coarse train", "true-label probe"]
        + [f"CLP: {name}" for name in names]
        + ["NC1 coarse", "NC1 fine"]
    ]
    clusters = [["network", "epoch", *(f"clusters: {name}" for name in names), *(f"ARI: {name}" for name in names)]]
    for row in rows:
        scores = [row["clp"][name] for name in variants]
        name = row["kind"] if row["label"] in (row["kind"], "") else f"{row['kind']} ({row['label']})"
        main.append(
            [name, str(row["seeds"]), row["epoch"]]
            + [row[key] for key in ("coarse_test_accuracy", "coarse_train_accuracy", "probe_test_accuracy")]
            + [score["test_accuracy"] for score in scores]
            + [row["nc1_coarse_train"], row["nc1_fine_train"]]
        )
        clusters.append(
            [name, row["epoch"], *(s["cluster_accuracy_train"] for s in scores), *(s["ari"] for s in scores)]
        )
    tables = [_markdown(main), _markdown(clusters)]
    for table in comparison_tables(results.comparison) if results.comparison else ():
        tables.append(f"{table.title}:\n\n{_markdown([list(table.head), *map(list, table.lines)])}")
    return "\n\n".join(tables)


def _markdown(lines: list[list[str]]) -> str:
    head, *body = lines
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))
