# SPDX-License-Identifier: Apache-2.0
"""The sections of a run's page in their order: figures and tables under a title."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ncjax.report import comparison, tables
from ncjax.report.distances import distance_maps
from ncjax.report.example_figures import MOST_CLUSTERS, cluster_images, embedding_figure
from ncjax.report.examples import Shown, choose_shown, confusion_of
from ncjax.report.figure import Figure
from ncjax.report.groups import KINDS, Group, Quantity, group_rows, labels_of, last_epochs, super_names, views_of
from ncjax.report.heat_maps import confusion_figure, distance_figure, sweep_figure
from ncjax.report.main_result import CEILING, COARSE_TEST, FEATURES, clp, control_groups, main_group
from ncjax.report.number_formats import number, percent
from ncjax.report.read import Results
from ncjax.report.run_figures import (
    accuracy_figure,
    clp_over_epochs,
    collapse_over_epochs,
    observed_collapse,
    spread_of,
    training_curves,
)
from ncjax.report.section import Section
from ncjax.report.tables import Compared

MANY_GROUPS = 24  # lines of the figure of accuracies


@dataclass(frozen=True)
class Content:
    """The networks of some results, as the sections of a page need them."""

    results: Results

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Settings at every epoch."""
        return group_rows(self.results.evaluation.rows)

    @cached_property
    def shown(self) -> tuple[Group, ...]:
        """Settings at their last epoch."""
        return last_epochs(self.groups)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Of `shown`."""
        return labels_of(self.shown)

    @cached_property
    def views(self) -> dict[str, str]:
        """Labels of the views that were evaluated, by name; that of the headline comes first."""
        found = views_of(self.shown, self.results.evaluation.views)
        first = self.results.headline
        return {first: found[first], **found} if first in found else found

    @cached_property
    def main(self) -> Group | None:
        """The setting of the headline."""
        return main_group(self.shown)

    @cached_property
    def history(self) -> tuple[Group, ...]:
        """The epochs of the setting of the headline; random initialisation is its epoch 0."""
        if self.main is None:
            return ()
        own = [group for group in self.groups if group.setting == self.main.setting]
        where = self.main.setting.super_class, self.main.layer
        start = [
            g for g in self.groups if g.kind == "random_init" and (g.setting.super_class, g.setting.layer) == where
        ]
        whole = own if any(group.epoch == 0 for group in own) else start[:1] + own
        return tuple(sorted(whole, key=lambda group: group.epoch or 0))

    @cached_property
    def chosen(self) -> Shown | None:
        """The member whose examples are shown."""
        return choose_shown(self.results, self.main, self.class_names)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Of the fine classes; numbers where names are not known."""
        evaluation = self.results.evaluation
        counts = [len(row.super_class) or len(row.class_distances) for row in evaluation.rows]
        names = evaluation.provenance.class_names
        return names or tuple(f"class {number}" for number in range(max(counts, default=0)))


def run_sections(content: Content) -> tuple[Section, ...]:
    """The sections that have something to show."""
    parts = (_main, _over_epochs, _distances, _examples, _clusters, _collapse, _grid, _comparison, _training)
    return tuple(section for part in parts for section in part(content))


def figures_of_content(content: Content) -> tuple[Figure, ...]:
    """The figures of all sections."""
    return tuple(figure for section in run_sections(content) for figure in section.figures)


def _main(content: Content) -> Iterator[Section]:
    figures: tuple[Figure, ...] = ()
    if len(content.shown) <= MANY_GROUPS and content.views:
        figures = (accuracy_figure(content.shown, _long_labels(content), content.views),)
    table = tables.main_table(content.shown, content.labels, content.views, content.main)
    yield Section("main", "Main table", figures=figures, tables=(table,))


def _long_labels(content: Content) -> list[str]:
    """What the networks are, in a word or two, different from each other; names of members are too long here."""
    short = labels_of(content.shown, members=False)
    kinds = [KINDS.get(group.kind, group.kind) for group in content.shown]
    joined = [label if label == kind else f"{kind}: {label}" for kind, label in zip(kinds, short, strict=True)]
    return [
        label if joined.count(label) == 1 else f"{label} ({content.labels[place]})"
        for place, label in enumerate(joined)
    ]


def _over_epochs(content: Content) -> Iterator[Section]:
    if content.main is None:
        return
    pixels = next((g for g in control_groups(content.main, content.shown) if g.kind == "raw_pixels"), None)
    of_pixels = {view: pixels.mean(clp(view)) for view in content.views} if pixels else {}
    found = (
        clp_over_epochs(content.history, content.views, of_pixels),
        collapse_over_epochs(content.history, content.results.evaluation.metrics),
    )
    figures = tuple(figure for figure in found if figure)
    if figures:
        yield Section("over_epochs", "Over training", figures=figures)


def _distances(content: Content) -> Iterator[Section]:
    owner = content.main.setting.super_class if content.main else ()
    maps = distance_maps(content.groups, content.main, content.results.examples)
    named = [one for one in maps if len(one.matrix) == len(content.class_names)]
    figure = distance_figure(named, content.class_names, owner, super_names(content.class_names, owner))
    table = tables.distance_table(content.shown, content.labels, content.main)
    yield Section("class_distances", "Distances between classes", figures=(figure,) if figure else (), tables=(table,))


def _examples(content: Content) -> Iterator[Section]:
    shown = content.chosen
    if shown is None:
        return
    figures = (embedding_figure(shown.points, shown.member, shown.method),)
    view = content.views.get(shown.view, shown.view)
    yield Section(
        "examples",
        "Examples inside super-classes",
        f"Clusters are those of the view {view}, of {shown.member}."
        + (f" Images are of the first {MOST_CLUSTERS} clusters." if len(shown.clusters) > MOST_CLUSTERS else ""),
        figures=figures,
        clusters=tuple(cluster_images(shown.points, shown.clusters)),
    )


def _clusters(content: Content) -> Iterator[Section]:
    if not content.views:
        return
    labels = {name: info.label for name, info in content.results.evaluation.views.items()}
    rows = confusion_of(content.results, content.chosen, content.class_names, labels)
    member, view = (content.chosen.member, content.chosen.view) if content.chosen else ("", "")
    figure = confusion_figure(rows, content.class_names, member, labels.get(view, view))
    table = tables.cluster_table(content.shown, content.labels, content.views, content.main)
    title = "Clusters against the fine classes"
    yield Section("clusters_and_classes", title, figures=(figure,) if figure else (), tables=(table,))


def _collapse(content: Content) -> Iterator[Section]:
    metrics = content.results.evaluation.metrics
    found = {
        level: tables.collapse_table(level, content.shown, content.labels, metrics, content.main)
        for level in ("coarse", "fine", "within")
    }
    levels = tuple(found[level] for level in ("coarse", "fine") if found[level].lines)
    if levels:
        yield Section("collapse", "Collapse", tables=levels)
    if found["within"].lines:
        yield Section("inside", "Fine classes inside super-classes", tables=(found["within"],))


def _grid(content: Content) -> Iterator[Section]:
    view = content.results.headline
    compared = [Compared("coarse test, %", COARSE_TEST, "higher", percent)]
    compared.append(Compared("true-label probe, %", CEILING, "higher", percent))
    if view in content.views:
        compared.append(Compared(f"CLP, {content.views[view]}, %", clp(view), "higher", percent))
    compared.append(Compared("NC1 coarse", Quantity("nc1", "train", "coarse"), "lower", number))
    compared.append(Compared("NC1 fine", Quantity("nc1", "train", "fine"), "", number))
    explained = Quantity("explained_variance", "train", "within")
    compared.append(Compared("residual explained, %", explained, "", percent))
    table = tables.grid_table(content.shown, compared, content.main)
    if table is None:
        return
    figure = sweep_figure(_sweep_rows(content.shown, compared), {one.title: one.better for one in compared})
    yield Section("sweep_and_ablations", "Settings side by side", figures=(figure,) if figure else (), tables=(table,))


def _sweep_rows(groups: Sequence[Group], compared: Sequence[Compared]) -> list[Mapping[str, object]]:
    return [
        {"quantity": one.title, "label map": group.label_map, "lr": group.setting.lr, "wd": group.setting.weight_decay}
        | dict(spread_of(group, one.quantity, 100.0 if one.title.endswith("%") else 1.0))
        for one in compared
        for group in groups
        if group.kind == "trained" and group.layer == FEATURES
    ]


def _comparison(content: Content) -> Iterator[Section]:
    found = content.results.comparison
    if found is None:
        return
    texts = comparison.comparison_tables(found, content.results.evaluation.views)
    lead = (
        "The same members trained by both, from the same weights, on the same batches, and measured by one evaluator. "
    )
    lead += (
        "PyTorch trains one member after the other; its batches lie ready in memory, while ncjax makes its own inside "
    )
    lead += "the measured step. "
    yield Section(
        "pytorch",
        "Side by side with PyTorch",
        lead + " ".join(found.left_out),
        figures=(comparison.speed_figure(found),),
        tables=tuple(comparison.as_table(text, f"pytorch_{place}") for place, text in enumerate(texts)),
    )


def _training(content: Content) -> Iterator[Section]:
    found = training_curves(content.results.metrics), observed_collapse(content.results.metrics)
    figures = tuple(figure for figure in found if figure)
    if figures:
        yield Section("training", "Training curves", figures=figures)
