# SPDX-License-Identifier: Apache-2.0
"""What `ncjax evaluate FILE` prints."""

from dataclasses import replace

from ncjax.report import evaluation_summary
from ncjax.report.groups import Quantity
from ncjax.results import MetricInfo, Row, SeparationFit
from tests.report.rows import clp, make_evaluation, measure

NC1 = {
    Quantity("nc1", "train", "coarse"): 0.1,
    Quantity("nc1", "train", "fine"): 0.2,
    Quantity("nc1", "test", "coarse"): 0.3,
    Quantity("nc1", "test", "fine"): None,
}


def features(values, stds=None, **fields) -> Row:
    return Row(**({"name": "a.npz", "kind": "features", "measurements": measure(values, stds)} | fields))


def test_levels_stand_side_by_side_with_their_spread() -> None:
    row = features(NC1, {Quantity("nc1", "train", "coarse"): 0.0123}, bootstrap=20)
    title, levels = evaluation_summary(make_evaluation([row])).split("\n\n")
    assert title == "± over 20 resamples of the examples"
    assert levels.splitlines()[0] == "| measure | coarse, train | fine, train | coarse, test | fine, test |"
    assert levels.splitlines()[2] == "| NC1, tr(S_W S_B^+) / K | 0.100 ± 0.012 | 0.200 | 0.300 | – |"
    assert "| NC3: classifier and means | – | – | – | – |" in levels


def test_spectra_are_shown_up_to_ten_numbers() -> None:
    values = {Quantity("cosine_spectrum", "train", "fine", index=i): float(i) for i in range(12)}
    values |= {Quantity("explained_by_super_class", "train", "within", index=i): 0.25 * (i + 1) for i in range(2)}
    text = evaluation_summary(make_evaluation([features(values)]))
    assert "| cosine spectrum | 0.0 1.00 2.00 3.00 4.00 5.00 6.00 7.00 8.00 9.00 ... |" in text
    assert "| the same, by super-class | 0.250 0.500 |" in text


def test_rank_of_all_examples_has_lines_of_its_own() -> None:
    values = {**NC1, Quantity("effective_rank", "train", "all"): 7.0, Quantity("effective_rank", "test", "all"): 8.0}
    lines = evaluation_summary(make_evaluation([features(values)])).splitlines()
    assert "| effective rank of all, train | 7.00 |  |  |  |" in lines
    assert "| effective rank of all, test | 8.00 |  |  |  |" in lines


def test_accuracies_of_probes_and_views_are_per_cent() -> None:
    values = {Quantity("probe"): 0.8444, Quantity("probe", "train"): 0.99, clp("raw"): 0.7, clp("tsne"): 0.75}
    values |= {Quantity("probe_gradient_norm"): 1e-9}  # evidence, no accuracy
    text = evaluation_summary(make_evaluation([features(values)]))
    expected = ["| test accuracy on fine labels | % |", "| --- | --- |", "| logistic probe | 84.4 |"]
    assert text.splitlines() == [*expected, "| CLP: raw features | 70.0 |", "| CLP: t-SNE | 75.0 |"]


def test_metrics_of_clusters_stand_by_view() -> None:
    values = {
        Quantity("cluster_accuracy", "test", view="raw"): 0.6,
        Quantity("cluster_accuracy", "train", view="raw"): 0.5,
        Quantity("cluster_accuracy", "train", view="tsne"): 0.75,
        Quantity("cluster_ari", "train", view="raw"): 0.25,
    }
    assert evaluation_summary(make_evaluation([features(values)])).splitlines() == [
        "| clusters inside super-classes | raw features | t-SNE |",
        "| --- | --- | --- |",
        "| accuracy of the clusters, train | 0.500 | 0.750 |",
        "| accuracy of the clusters, test | 0.600 | – |",
        "| ARI, train | 0.250 | – |",
    ]


def test_accuracy_on_the_labels_of_training() -> None:
    values = {Quantity("accuracy", split, "coarse"): value for split, value in (("train", 0.99), ("test", 0.9))}
    text = evaluation_summary(make_evaluation([features(values)]))
    assert "| accuracy on the labels of training, train | 99.0 |" in text
    assert "| accuracy on the labels of training, test | 90.0 |" in text


def test_what_is_left_out_and_notes_are_listed() -> None:
    evaluation = make_evaluation([features(NC1, left_out=("test: there is no test split", "b"))], notes=["a note"])
    assert evaluation_summary(evaluation).endswith("Left out:\n\n- test: there is no test split\n- b\n\na note")


def test_several_rows_have_titles_and_the_law_of_separation() -> None:
    rows = [features(NC1, name="a.npz"), features(NC1, name="b.npz", bootstrap=5)]
    fits = (SeparationFit(name="net", split="train", level="fine", slope=-0.5, intercept=1.0, r2=0.875),)
    text = evaluation_summary(replace(make_evaluation(rows), separation=fits))
    assert text.startswith("a.npz\n\n| measure")
    assert "\n\nb.npz: ± over 5 resamples of the examples\n\n" in text
    assert text.splitlines()[-3:] == [
        "| law of separation | slope of log D a layer | R2 |",
        "| --- | --- | --- |",
        "| fine_train | -0.500 | 0.875 |",
    ]
    several = (*fits, replace(fits[0], name="other"))
    assert "| other: fine_train | -0.500 | 0.875 |" in evaluation_summary(
        replace(make_evaluation(rows), separation=several)
    )


def test_epochs_and_layers_are_in_the_titles_where_rows_differ_in_them() -> None:
    rows = [features(NC1, epoch=epoch, layer=layer) for epoch, layer in ((1, "block_1"), (2, "features"))]
    text = evaluation_summary(make_evaluation(rows))
    assert text.startswith("a.npz, epoch 1, layer block_1\n\n")
    assert "\n\na.npz, epoch 2, layer features\n\n" in text


def test_a_new_metric_is_shown_without_a_change_here() -> None:
    evaluation = make_evaluation([features({Quantity("mine", "train", "within"): 0.5})])
    added = {**evaluation.metrics, "mine": MetricInfo(label="my metric", scope="within")}
    assert "| my metric | 0.500 |" in evaluation_summary(replace(evaluation, metrics=added)).splitlines()
