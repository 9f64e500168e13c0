# SPDX-License-Identifier: Apache-2.0
"""What a page does not show, and why."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ncjax.report.groups import Group
from ncjax.report.main_result import clp, control_groups
from ncjax.report.read import Results

MOST_NAMES = 4  # of networks that share a reason


class Missing(NamedTuple):
    """What is not there, of which networks, and why."""

    what: str
    of: str
    reason: str


def list_missing(
    results: Results, groups: Sequence[Group], labels: Sequence[str], main: Group | None, views: Mapping[str, str]
) -> tuple[Missing, ...]:
    """Returns what results lack that a page shows otherwise, then what was left out of networks.

    Args:
        results: of a work directory, or of features from files.
        groups: that are shown.
        labels: of the groups.
        main: the setting of the headline; None: there is none.
        views: labels of the views that were evaluated, by name.
    """
    found = [Missing("examples, embedding, confusion", "", reason) for reason in results.missing]
    found += list(_of_examples(results)) if results.examples else []
    if main is not None:
        found += list(_of_headline(results, groups, main, views))
    return (*found, *_left_out(groups, labels))


def _of_examples(results: Results) -> list[Missing]:
    found = []
    examples = results.examples
    if examples is not None and examples.thumbnails is None:
        reason = "the features came without images" if results.workdir is None else "the images could not be read"
        found.append(Missing("example images", "", reason))
    if "tsne" not in results.evaluation.views:
        found.append(Missing("t-SNE", "", "the view tsne was not evaluated (--variants tsne); PCA is drawn instead"))
    return found


def _of_headline(results: Results, groups: Sequence[Group], main: Group, views: Mapping[str, str]) -> list[Missing]:
    found = []
    if len({row.epoch for row in results.evaluation.rows if row.epoch is not None}) < 2:
        reason = "the features of fewer than two epochs were evaluated (evaluate.epochs)"
        found.append(Missing("figures over epochs", "", reason))
    if len(main.rows) == 1:
        found.append(Missing("spread over seeds", main.label_map, "there is one seed (n = 1)"))
    view = results.headline
    if view in views and not any(group.mean(clp(view)) is not None for group in control_groups(main, groups)):
        reason = "neither random initialisation nor raw pixels were measured under this label map"
        found.append(Missing(f"controls of the headline ({views[view]})", main.label_map, reason))
    if not any(row.test_distances for row in main.rows):
        found.append(
            Missing("class distances of the test split", main.label_map, "no test split, or an earlier version")
        )
    return found


def _left_out(groups: Sequence[Group], labels: Sequence[str]) -> list[Missing]:
    """Lines of the networks, those that several share once."""
    of: dict[str, list[str]] = {}
    for group, label in zip(groups, labels, strict=True):
        for line in dict.fromkeys(line for row in group.rows for line in row.left_out):
            of.setdefault(line, []).append(label)
    found = []
    for line, names in of.items():
        what, colon, reason = line.partition(": ")
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        found.append(Missing(what if colon else "", ", ".join(names[:MOST_NAMES]) + more, reason if colon else line))
    return found
