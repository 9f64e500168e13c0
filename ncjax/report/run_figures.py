# SPDX-License-Identifier: Apache-2.0
"""Figures of a run: accuracies against their ceiling, and how CLP, collapse and training go over epochs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ncjax.report.figure import COLOURS, INK, WIDTH, Chart, Figure, Record, finish, source
from ncjax.report.groups import Group, Quantity
from ncjax.report.main_result import CEILING, COARSE_TEST, clp
from ncjax.report.series import panels, point, said_spread
from ncjax.results import MetricInfo
from ncjax.storage.metrics import Record as Line

CEILING_LABEL = "true-label probe (ceiling)"
LEVEL_COLOURS = {"coarse": COLOURS[0], "fine": COLOURS[1]}
WHOLE_AXIS = "The axis of accuracies is whole, from 0 to 100 %."
OBSERVED = {"nc1": "NC1", "nc1_ratio": "NC1 ratio", "cdnv": "CDNV"}
POSITIVE = ("NC1", "CDNV", "NC1 ratio", "VCI")  # over orders of magnitude
MOST_EPOCHS = 100  # of training that are drawn
STEP = 11  # pixels of a view in a line of the accuracies


def spread_of(group: Group, quantity: Quantity, factor: float = 1.0) -> Record:
    """Mean, spread and n of a quantity of a group; of one network the spread of its resamples, where it has one."""
    spread = group.spread(quantity)
    return point(group.values(quantity), of_one=spread.std, factor=factor)


def accuracy_figure(groups: Sequence[Group], labels: Sequence[str], views: Mapping[str, str]) -> Figure:
    """A line a group: CLP test accuracy by view as dots with their spread, the true-label probe as a tick.

    Args:
        groups: from top to bottom.
        labels: of the groups, different from each other.
        views: labels of the views, by name.
    """
    rows = [
        {"network": label, "measure": shown, **spread_of(group, quantity, 100.0)}
        for group, label in zip(groups, labels, strict=True)
        for shown, quantity in ((CEILING_LABEL, CEILING), *((f"CLP, {views[view]}", clp(view)) for view in views))
    ]
    drawn = [row for row in rows if row["mean"] is not None]
    return Figure(
        "accuracies",
        "Reconstructed labels against their ceiling",
        "A dot is a linear probe trained on the labels that clustering gave back; the tick is the same probe trained "
        "on "
        f"the true fine labels. Both are scored on the test set. {said_spread(drawn)}. {WHOLE_AXIS}",
        _accuracy_chart(drawn, list(labels), [f"CLP, {label}" for label in views.values()]),
        drawn,
    )


def _accuracy_chart(rows: Sequence[Record], networks: list[str], views: list[str]) -> Chart:
    import altair as alt

    domain = [*views, CEILING_LABEL]
    scale = alt.Scale(domain=domain, range=[*(COLOURS * 3)[: len(views)], INK])
    legend = alt.Legend(orient="top", title=None, columns=2, symbolType="circle", symbolOpacity=1)
    base = alt.Chart().encode(
        x=alt.X("mean:Q", title="test accuracy on the fine classes (%)", scale=alt.Scale(domain=[0, 100])),
        y=alt.Y("network:N", title=None, sort=networks, scale=alt.Scale(domain=networks)),
        color=alt.Color("measure:N", scale=scale, legend=legend),
        tooltip=["network:N", "measure:N", "mean:Q", "sd:Q", "n:Q"],
    )
    offset = alt.YOffset("measure:N", scale=alt.Scale(domain=views))
    ceilings, of_views = ([row for row in rows if (row["measure"] in views) == wanted] for wanted in (False, True))
    spread = [row for row in of_views if row["low"] is not None]
    ticks = base.mark_tick(thickness=2, size=max(1, len(views)) * STEP).properties(data=source(ceilings))
    dots = base.mark_point(filled=True, size=45, opacity=1).encode(yOffset=offset).properties(data=source(of_views))
    bars = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q"), x2="high:Q", yOffset=offset)
    layers = alt.layer(ticks, *([bars.properties(data=source(spread))] if spread else []), dots)
    return finish(layers.properties(width=1.4 * WIDTH, height=1.4 * STEP * max(2, len(views)) * len(networks)))


def clp_over_epochs(
    history: Sequence[Group], views: Mapping[str, str], pixels: Mapping[str, float | None]
) -> Figure | None:
    """CLP test accuracy by view, its ceiling and the coarse accuracy of one setting; None with fewer than two epochs.

    Args:
        history: the epochs of the setting, in order.
        views: labels of the views, by name.
        pixels: CLP of raw pixels by view, where it was measured.
    """
    if len(history) < 2:
        return None
    lines = {CEILING_LABEL: CEILING, **{f"CLP, {label}": clp(name) for name, label in views.items()}}
    lines["coarse labels"] = COARSE_TEST
    rows = [
        {"measure": shown, "epoch": group.epoch or 0, "panel": "test accuracy (%)", **spread_of(group, quantity, 100.0)}
        for shown, quantity in lines.items()
        for group in history
    ]
    rows = [row for row in rows if row["mean"] is not None]
    colours = {CEILING_LABEL: INK, **dict(zip([f"CLP, {x}" for x in views.values()], COLOURS * 3, strict=False))}
    colours["coarse labels"] = "#7f7f7f"
    known = ", ".join(f"{views[name]} {100 * value:.1f} %" for name, value in pixels.items() if value is not None)
    return Figure(
        "clp_over_epochs",
        "CLP over training, by view",
        "The network of the headline at the epochs whose features were kept; epoch 0 is random initialisation. "
        f"{said_spread(rows)}. "
        f"{WHOLE_AXIS}" + (f" CLP of raw pixels, the same way: {known}." if known else ""),
        panels(rows, by="panel", colour="measure", colours=colours),
        rows,
    )


def collapse_over_epochs(history: Sequence[Group], metrics: Mapping[str, MetricInfo]) -> Figure | None:
    """Every measure of collapse that has a column in the tables, at both label levels; None with one epoch."""
    shown = {name: info.short for name, info in metrics.items() if info.scope == "level" and info.short}
    rows = [
        {"metric": short, "labels": level, "split": split, "epoch": group.epoch or 0}
        | dict(spread_of(group, Quantity(name, split, level)))
        for name, short in shown.items()
        for level in LEVEL_COLOURS
        for split in ("train", "test")
        for group in history
    ]
    rows = [row for row in rows if row["mean"] is not None]
    if len({row["epoch"] for row in rows}) < 2:
        return None
    return Figure(
        "collapse_over_epochs",
        "Collapse over training, to the coarse and to the fine labels",
        "The network of the headline; 0 is collapsed, but for effective ranks. Solid: training split; dashed: test "
        "split. "
        f"{said_spread(rows)}; of a single network, over resamples of its examples. Panels have their own axes; "
        "those that say so "
        "are logarithmic.",
        panels(rows, by="metric", colour="labels", colours=LEVEL_COLOURS, dashed="split", log=POSITIVE),
        rows,
    )


def training_curves(metrics: Sequence[Line]) -> Figure | None:
    """Loss and accuracy on the labels of training, a colour a setting; None where there are none."""
    what = {"loss": "loss (nat)", "accuracy": "accuracy (%)"}
    lines, settings = _thinned(metrics), _settings(metrics)
    rows = [
        {"panel": title, "setting": setting, "split": split, "epoch": line.epoch, **point(values, factor=factor)}
        for (name, title), factor in zip(what.items(), (1.0, 100.0), strict=True)
        for split in ("train", "test")
        for line in lines
        for setting, values in _by_setting(line.values.get(f"{split}_{name}", {}), settings).items()
    ]
    rows = [row for row in rows if row["mean"] is not None]
    if not rows:
        return None
    return Figure(
        "training_curves",
        "Loss and accuracy on the labels of training",
        f"{_said_settings(settings)}; shuffled labels belong to no class. Solid: training images; dashed: test images. "
        f"{said_spread(rows)}. {WHOLE_AXIS}{_said_thinned(metrics, lines)}",
        panels(rows, by="panel", colour="setting", dashed="split", log=("loss (nat)",), columns=2),
        rows,
    )


def observed_collapse(metrics: Sequence[Line]) -> Figure | None:
    """The measures that training took, a colour a setting and a panel a measure and level; None: it took none."""
    observed = [line for line in metrics if any(f"{name}_fine" in line.values for name in OBSERVED)]
    lines, settings = _thinned(observed), _settings(metrics)
    rows = [
        {"panel": f"{title}, {level} labels", "setting": setting, "epoch": line.epoch, **point(values)}
        for name, title in OBSERVED.items()
        for level in LEVEL_COLOURS
        for line in lines
        for setting, values in _by_setting(line.values.get(f"{name}_{level}", {}), settings).items()
    ]
    rows = [row for row in rows if row["mean"] is not None]
    if not rows:
        return None
    return Figure(
        "collapse_while_training",
        "Collapse while training",
        "Measured after each epoch on some training images (evaluate.observe_images), to the labels that a member is "
        f"trained on and to the fine labels. {_said_settings(settings)}. {said_spread(rows)}. Axes are logarithmic "
        "where "
        f"they say so.{_said_thinned(observed, lines)}",
        panels(rows, by="panel", colour="setting", log=[row["panel"] for row in rows], columns=2),
        rows,
    )


def _thinned(metrics: Sequence[Line]) -> list[Line]:
    """Some of many lines at equal distances, with the first and the last."""
    if len(metrics) <= MOST_EPOCHS:
        return list(metrics)
    chosen = {round(place * (len(metrics) - 1) / (MOST_EPOCHS - 1)) for place in range(MOST_EPOCHS)}
    return [metrics[place] for place in sorted(chosen)]


def _said_thinned(metrics: Sequence[Line], lines: Sequence[Line]) -> str:
    left_out = len(metrics) - len(lines)
    return f" Of {len(metrics)} epochs {len(lines)} are drawn; all are in metrics.jsonl." if left_out else ""


class _Settings(NamedTuple):
    """What a colour stands for: members but for their seed, or label maps where these are too many."""

    of_maps: bool
    names: tuple[str, ...]  # those that are drawn
    left_out: int


def _settings(metrics: Sequence[Line]) -> _Settings:
    members = dict.fromkeys(name for line in metrics for values in line.values.values() for name in values)
    settings = dict.fromkeys(_setting(name, False) for name in members)
    maps = dict.fromkeys(_setting(name, True) for name in members)
    of_maps = len(settings) > len(COLOURS) and len(maps) < len(settings)
    names = tuple(maps if of_maps else settings)
    return _Settings(of_maps, names[: len(COLOURS)], max(0, len(names) - len(COLOURS)))


def _setting(member: str, of_maps: bool) -> str:
    setting = member.rpartition("/seed=")[0] or member
    return setting.partition("/lr=")[0] if of_maps else setting


def _said_settings(settings: _Settings) -> str:
    what = "a label map, with all its learning rates and weight decays" if settings.of_maps else "a setting"
    more = f" ({settings.left_out} more are in metrics.jsonl)" if settings.left_out else ""
    return f"Each colour is {what}{more}"


def _by_setting(values: Mapping[str, float | None], settings: _Settings) -> dict[str, list[float | None]]:
    """Numbers of members by what a colour stands for."""
    found: dict[str, list[float | None]] = {}
    for member, value in values.items():
        setting = _setting(member, settings.of_maps)
        if setting in settings.names:
            found.setdefault(setting, []).append(value)
    return found
