# SPDX-License-Identifier: Apache-2.0
"""The headline of the page: CLP against its ceiling and its controls, in words and as four numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ncjax.report.groups import KINDS, UNTRAINED, Group, Quantity, Spread
from ncjax.report.number_formats import MISSING, PER_CENT, percent

COARSE_TRAIN = Quantity("accuracy", "train", "coarse")
COARSE_TEST = Quantity("accuracy", "test", "coarse")
FEATURES = "features"  # the layer that every network has
CEILING = Quantity("probe")  # of a linear probe on the true labels
MEASURED = ("trained", "features")  # kinds of networks that a headline is about


class Tile(NamedTuple):
    """One number of the headline: what it is, its text, and n with what ± is over."""

    label: str
    text: str
    note: str


def clp(view: str) -> Quantity:
    """Returns the test accuracy of CLP in a view."""
    return Quantity("clp", view=view)


def main_group(groups: Sequence[Group]) -> Group | None:
    """Returns the setting of the headline: the first one of the config, at the input of the last layer.

    Of features from files, where nothing was trained here, the last layer.
    """
    for kind in MEASURED:
        chosen = [group for group in groups if group.kind == kind]
        if chosen:
            return next((group for group in chosen if group.layer == FEATURES), chosen[-1])
    return None


def headline(main: Group, groups: Sequence[Group], views: Mapping[str, str], view: str) -> str:
    """Returns CLP against its ceiling and its controls, in words.

    Args:
        main: the setting that it is about.
        groups: all, with the controls.
        views: labels of the views that were clustered, by name.
        view: the one that is compared, chosen before the run: `evaluate.headline`.
    """
    ceiling, score = main.spread(CEILING), main.spread(clp(view))
    subject = f"Trained on {main.label_map}" if main.kind == "trained" else f"Features of {main.label_map}"
    if ceiling.mean is None or not any(main.mean(clp(name)) is not None for name in views):
        return f"{subject}; cluster-and-linear-probe or its ceiling was not measured."
    if score.mean is None:
        return (
            f"{subject}; the view of the headline, {view} (evaluate.headline), was not evaluated: "
            f"run ncjax evaluate WORKDIR --variants {view}."
        )
    gap = 100 * (ceiling.mean - score.mean)
    whose = "a network that saw only the labels" if main.kind == "trained" else "the features of"
    noise = ", no more than one standard deviation over seeds" if _within_noise(ceiling, score) else ""
    return (
        f"From {whose} {main.label_map}{_choice(groups)}, clustering and a linear probe "
        f"recover the fine classes at {percent(main.values(clp(view)))}{PER_CENT} on the test set (k-means on "
        f"{views[view]}): {abs(gap):.1f} points {'below' if gap >= 0 else 'above'} the "
        f"{percent(main.values(CEILING))}{PER_CENT} of a probe with the true labels{noise}."
        + _controls(main, groups, view)
    )


def tiles(main: Group, groups: Sequence[Group], views: Mapping[str, str], view: str) -> tuple[Tile, ...]:
    """Returns coarse accuracy, CLP in the view of the headline, its ceiling, and CLP of each control in that view."""
    found = [
        _tile("accuracy on the coarse labels", main, COARSE_TEST),
        _tile(f"reconstructed labels (CLP, {views.get(view, view)})", main, clp(view)),
        _tile("ceiling: probe on the true labels", main, CEILING),
    ]
    controls = [
        _tile(f"control: {KINDS[group.kind]}, the same way", group, clp(view)) for group in control_groups(main, groups)
    ]
    return tuple(tile for tile in (*found, *controls))


def _tile(label: str, group: Group, quantity: Quantity) -> Tile:
    values = group.values(quantity)
    if not values:
        return Tile(label, MISSING, "not measured")
    note = f"n = {len(values)}" + (", ± over seeds" if len(values) > 1 else ", no spread")
    return Tile(label, f"{percent(values)}{PER_CENT}", note)


def control_groups(main: Group, groups: Sequence[Group]) -> Iterator[Group]:
    """The controls of the headline: without training and on pixels, under the same label map."""
    for kind in UNTRAINED:
        same = [g for g in groups if g.kind == kind and g.setting.super_class == main.setting.super_class]
        same.sort(key=lambda group: group.layer != main.layer)
        yield from same[:1]


def _choice(groups: Sequence[Group]) -> str:
    """How many settings the headline's is the first of."""
    settings = {group.setting._replace(layer="") for group in groups if group.kind == "trained"}
    return f", the first of {len(settings)} settings" if len(settings) > 1 else ""


def _controls(main: Group, groups: Sequence[Group], view: str) -> str:
    """The same view without training, and on pixels: what training itself adds."""
    phrases, score = [], main.spread(clp(view))
    for group in control_groups(main, groups):
        spread = group.spread(clp(view))
        if spread.mean is not None:
            noise = " (within noise)" if _within_noise(spread, score) else ""
            phrases.append(f"{KINDS[group.kind]} {percent(group.values(clp(view)))}{PER_CENT}{noise}")
    return f" Without training, the same way: {', '.join(phrases)}." if phrases else ""


def _within_noise(a: Spread, b: Spread) -> bool:
    """Whether two means over seeds are no further apart than one standard deviation of their difference."""
    if a.mean is None or b.mean is None or "seeds" not in (a.over, b.over):
        return False
    own = [spread.std if spread.over == "seeds" and spread.std is not None else 0.0 for spread in (a, b)]
    return abs(a.mean - b.mean) <= math.hypot(*own)
