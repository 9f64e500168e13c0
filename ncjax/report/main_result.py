# SPDX-License-Identifier: Apache-2.0
"""The headline of the page: CLP against its ceiling and its controls, in words."""

from collections.abc import Mapping, Sequence

from ncjax.report.groups import KINDS, UNTRAINED, Group, Quantity
from ncjax.report.number_formats import PER_CENT

COARSE_TRAIN = Quantity("accuracy", "train", "coarse")
COARSE_TEST = Quantity("accuracy", "test", "coarse")
FEATURES = "features"  # the layer that every network has
CEILING = Quantity("probe")  # of a linear probe on the true labels


def clp(view: str) -> Quantity:
    """Returns the test accuracy of CLP in a view."""
    return Quantity("clp", view=view)


def main_group(groups: Sequence[Group]) -> Group | None:
    """Returns the setting of the headline: the first one of the config, at the input of the last layer."""
    trained = [group for group in groups if group.kind == "trained"]
    return next((group for group in trained if group.layer == FEATURES), trained[-1] if trained else None)


def headline(main: Group, groups: Sequence[Group], views: Mapping[str, str], view: str) -> str:
    """Returns CLP against its ceiling and its controls, in words.

    Args:
        main: the setting that it is about.
        groups: all, with the controls.
        views: labels of the views that were clustered, by name.
        view: the one that is compared, chosen before the run: `evaluate.headline`.
    """
    ceiling, score = main.mean(CEILING), main.mean(clp(view))
    if ceiling is None or not any(main.mean(clp(name)) is not None for name in views):
        return f"Trained on {main.label_map}; cluster-and-linear-probe or its ceiling was not measured."
    if score is None:
        return (
            f"Trained on {main.label_map}; the view of the headline, {view} (evaluate.headline), was not evaluated: "
            f"run ncjax evaluate WORKDIR --variants {view}."
        )
    gap = 100 * (ceiling - score)
    return (
        f"From a network that saw only the labels {main.label_map}{_choice(groups)}, clustering and a linear probe "
        f"recover the fine classes at {100 * score:.1f}{PER_CENT} on the test set (k-means on {views[view]}): "
        f"{abs(gap):.1f} points {'below' if gap >= 0 else 'above'} the {100 * ceiling:.1f}{PER_CENT} of a probe with "
        "the true labels." + _controls(main, groups, view)
    )


def _choice(groups: Sequence[Group]) -> str:
    """How many settings the headline's is the first of."""
    settings = {group.setting._replace(layer="") for group in groups if group.kind == "trained"}
    return f", the first of {len(settings)} settings" if len(settings) > 1 else ""


def _controls(main: Group, groups: Sequence[Group], view: str) -> str:
    """The same view without training, and on pixels: what training itself adds."""
    phrases = []
    for kind in UNTRAINED:
        same = [g for g in groups if g.kind == kind and g.setting.super_class == main.setting.super_class]
        same.sort(key=lambda group: group.layer != main.layer)
        value = same[0].mean(clp(view)) if same else None
        if value is not None:
            phrases.append(f"{KINDS[kind]} {100 * value:.1f}{PER_CENT}")
    return f" Without training, the same way: {', '.join(phrases)}." if phrases else ""
