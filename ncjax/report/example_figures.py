# SPDX-License-Identifier: Apache-2.0
"""Examples of the training split: where they lie, which cluster they joined, and what they look like."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from ncjax.report.figure import COLOURS, IMAGE, Chart, Figure, Record, finish, source

MOST_PANELS = 24  # super-classes that have a panel
MOST_ENTRIES = 12  # classes in a legend
PANEL = 210  # pixels
SHOWN = 7  # images of a cluster, and of those that went wrong
MOST_CLUSTERS = 40  # that are shown with images
WHOLE = "all super-classes"
SWITCH = {"fine": "fine class", "cluster": "cluster", "coarse": "coarse class"}


class Points(NamedTuple):
    """The chosen examples of one member; lists of `q`."""

    whole: Float[np.ndarray, "q 2"]
    inside: Float[np.ndarray, "q 2"]
    fine: Sequence[str]
    coarse: Sequence[str]
    cluster: Sequence[str]  # the class that the cluster stands for, with its number; empty text: none
    right: Sequence[bool]  # whether that class is the true one
    images: Sequence[str]  # data URIs; empty: there are none


class ClusterImages(NamedTuple):
    """Images of one cluster: of the class that it stands for, and of others."""

    name: str
    super_class: str
    right: Sequence[tuple[str, str]]  # data URI and true class
    wrong: Sequence[tuple[str, str]]
    counts: str  # how many of the chosen examples are right


def data_uris(images: UInt8[np.ndarray, "q h w ch"]) -> list[str]:
    """Each image as a data URI: PNG where it is small, else lossy WebP; grey, or the first three channels."""
    from PIL import Image

    found = []
    for pixels in images:
        shown = pixels[..., 0] if pixels.shape[-1] < 3 else pixels[..., :3]
        text = io.BytesIO()
        small = shown.size <= 256
        Image.fromarray(shown).save(text, "PNG" if small else "WEBP", **({} if small else {"quality": 80}))
        kind = "png" if small else "webp"
        found.append(f"data:image/{kind};base64,{base64.b64encode(text.getvalue()).decode()}")
    return found


def embedding_figure(points: Points, member: str, method: str) -> Figure:
    """A panel of all examples and one a super-class, coloured at a switch; points show their image on hover.

    Args:
        points: of one member.
        member: its name and epoch.
        method: what made the coordinates inside super-classes, such as t-SNE.
    """
    rows = _point_rows(points)
    panels = list(dict.fromkeys(str(row["panel"]) for row in rows))
    left_out = len(panels) - 1 - MOST_PANELS
    more = f" {left_out} more super-classes are in the CSV." if left_out > 0 else ""
    shown = f"{len(points.fine):,} training examples"
    return Figure(
        "embedding",
        "Where examples lie inside their super-class",
        f"{shown} of {member}. Panel of all: their first two principal axes; other panels: {method}. Axes have no unit "
        "and differ between panels. A cross is an example whose cluster stands for another class. Hover shows the "
        "image, "
        f"where the results hold images.{more}",
        _embedding_chart(rows, panels[: MOST_PANELS + 1], points.images),
        rows,
    )


def _point_rows(points: Points) -> list[Record]:
    rows = []
    planes = [(points.whole, [WHOLE] * len(points.fine)), (points.inside, list(points.coarse))]
    several = len(set(points.coarse)) > 1
    for plane, names in planes if several else planes[1:]:
        for i in np.flatnonzero(np.isfinite(plane).all(axis=1)).tolist():
            row = {"panel": names[i], "x": float(plane[i, 0]), "y": float(plane[i, 1]), "fine": points.fine[i]}
            row |= {"coarse": points.coarse[i], "cluster": points.cluster[i] or "none"}
            row["cluster is"] = "of its class" if points.right[i] else "of another class"
            rows.append(row | {"example": i})
    order = {name: place for place, name in enumerate([WHOLE, *dict.fromkeys(points.coarse)])}
    return sorted(rows, key=lambda row: order[row["panel"]])


def _embedding_chart(rows: Sequence[Record], panels: Sequence[str], images: Sequence[str]) -> Chart:
    import altair as alt

    pictures = source([{"example": place, IMAGE: uri} for place, uri in enumerate(images)])  # once for all panels
    drawn = [_cloud([row for row in rows if row["panel"] == name], name) for name in panels]
    if images:
        found = alt.LookupData(data=pictures, key="example", fields=[IMAGE])
        drawn = [chart.transform_lookup(lookup="example", from_=found) for chart in drawn]
        drawn = [chart.encode(tooltip=[*chart.encoding.tooltip, f"{IMAGE}:N"]) for chart in drawn]
    switch = alt.binding_radio(options=list(SWITCH), labels=list(SWITCH.values()), name="colour ")
    whole = alt.concat(*drawn, columns=3).resolve_scale(color="independent").resolve_legend(color="independent")
    return finish(whole.add_params(alt.param(name="coloured_by", value="fine", bind=switch)))


def _cloud(rows: Sequence[Record], title: str) -> Chart:
    import altair as alt

    many = len({row["fine"] for row in rows}) > MOST_ENTRIES
    legend = (
        None
        if many
        else alt.Legend(title=None, orient="bottom", columns=2, labelLimit=95, symbolOpacity=1, symbolStrokeWidth=0)
    )
    colours = (
        alt.Scale(scheme="tableau20") if len({row["fine"] for row in rows}) > 8 else alt.Scale(range=list(COLOURS))
    )
    shapes = alt.Scale(domain=["of its class", "of another class"], range=["circle", "cross"])
    axis = alt.Axis(labels=False, ticks=False, title=None, grid=False, domainOpacity=0.3)
    size = 1.0 if title != WHOLE else 1.15
    return (
        alt.Chart(source(rows), title=alt.Title(title, limit=PANEL), width=size * PANEL, height=size * PANEL)
        .transform_calculate(shade="datum[coloured_by]")
        .mark_point(filled=True, size=22, opacity=1, fillOpacity=0.75, strokeWidth=0, aria=False)
        .encode(
            x=alt.X("x:Q", axis=axis, scale=alt.Scale(zero=False)),
            y=alt.Y("y:Q", axis=axis, scale=alt.Scale(zero=False)),
            color=alt.Color("shade:N", scale=colours, legend=legend),
            shape=alt.Shape("cluster is:N", scale=shapes, legend=None),
            tooltip=["fine:N", "cluster:N", "coarse:N"],
        )
    )


def cluster_images(points: Points, names: Mapping[str, str]) -> list[ClusterImages]:
    """Some images of each cluster, in the order of super-classes; none where there are no images.

    Args:
        points: of one member, with images.
        names: the super-class of each cluster, by the cluster's name.
    """
    found = []
    for name, super_class in list(names.items())[:MOST_CLUSTERS] if points.images else ():
        own: Int[np.ndarray, _] = np.flatnonzero([cluster == name for cluster in points.cluster])
        right = [i for i in own if points.right[i]]
        wrong = [i for i in own if not points.right[i]]
        shown, astray = ([(points.images[i], points.fine[i]) for i in part[:SHOWN]] for part in (right, wrong))
        if len(own):
            found.append(ClusterImages(name, super_class, shown, astray, f"{len(right)} of {len(own)}"))
    return found
