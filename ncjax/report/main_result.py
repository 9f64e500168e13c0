# SPDX-License-Identifier: Apache-2.0
"""The headline of the page: CLP against its ceiling and its controls, in words."""

from collections.abc import Mapping, Sequence

from ncjax.report.groups import KINDS, PER_CENT, UNTRAINED, Group, Quantity

COARSE_TRAIN = Quantity("accuracy", "train", "coarse")
COARSE_TEST = Quantity("accuracy", "test", "coarse")
CEILING = Quantity("probe")  # of a linear probe on the true labels


def clp(view: str) -> Quantity:
    """Returns the test accuracy of CLP in a view."""
    return Quantity("clp", view=view)


def main_group(groups: Sequence[Group]) -> Group | None:
    """Returns the setting of the headline: best on the coarse test labels, the only ones that training knows of."""
    trained = [group for group in groups if group.kind == "trained"]
    return max(trained, key=lambda group: (group.mean(COARSE_TEST) or 0.0, group.layer == "features"), default=None)


def headline(main: Group, groups: Sequence[Group], views: Mapping[str, str]) -> str:
    """Returns CLP against its ceiling and its controls, in words.

    Args:
        main: the setting that it is about.
        groups: all, with the controls.
        views: labels of the views that were clustered, by name.
    """
    scores = {name: main.mean(clp(name)) for name in views}
    known = {name: score for name, score in scores.items() if score is not None}
    ceiling = main.mean(CEILING)
    if not known or ceiling is None:
        return f"Trained on {main.label_map}; cluster-and-linear-probe or its ceiling was not measured."
    best = max(known, key=lambda name: known[name])
    raw = f"; {100 * known['raw']:.1f}{PER_CENT} on raw features" if best != "raw" and "raw" in known else ""
    choice = f"k-means on {views[best]}" + (f", best of {len(known)} ways" if len(known) > 1 else "") + raw
    gap = 100 * (ceiling - known[best])
    return (
        f"From a network that saw only the labels {main.label_map}, clustering and a linear probe recover the fine "
        f"classes at {100 * known[best]:.1f}{PER_CENT} on the test set ({choice}): {abs(gap):.1f} points "
        f"{'below' if gap >= 0 else 'above'} the {100 * ceiling:.1f}{PER_CENT} of a probe with the true labels."
        + _controls(main, groups, best)
    )


def _controls(main: Group, groups: Sequence[Group], view: str) -> str:
    """The same view without training, and on pixels: what training itself adds."""
    phrases = []
    for kind in UNTRAINED:
        same_kind = [group for group in groups if group.kind == kind]
        same_kind.sort(key=lambda group: (group.label_map != main.label_map, group.layer != main.layer))
        value = same_kind[0].mean(clp(view)) if same_kind else None
        if value is not None:
            phrases.append(f"{KINDS[kind]} {100 * value:.1f}{PER_CENT}")
    return f" Without training, the same way: {', '.join(phrases)}." if phrases else ""
