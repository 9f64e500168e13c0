# SPDX-License-Identifier: Apache-2.0
"""Typed results: their JSON form, joining, reconstructed labels and the long table."""

import json
import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncjax.errors import UserError
from ncjax.results import (
    SCHEMA,
    Clusters,
    Evaluation,
    Measurement,
    MetricInfo,
    Provenance,
    Row,
    SeparationFit,
    ViewInfo,
    join,
    stack_clusters,
)

numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=8)
counts = st.integers(min_value=0, max_value=2**40)


def optional(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


def tuples(strategy: st.SearchStrategy, size: int | None = None) -> st.SearchStrategy:
    return st.lists(strategy, min_size=size or 0, max_size=3 if size is None else size).map(tuple)


def named(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.dictionaries(texts, strategy, max_size=2)


def calls(kind: type, /, **fields: st.SearchStrategy) -> st.SearchStrategy:
    """Calls that make a dataclass, for `call`: type checks draw random names, which strategies must not."""
    return st.builds(partial, st.just(kind), **fields)


def call(content: object) -> object:
    match content:
        case partial():
            return content.func(**{name: call(value) for name, value in content.keywords.items()})
        case tuple():
            return tuple(map(call, content))
        case dict():
            return {name: call(value) for name, value in content.items()}
    return content


measurements = calls(
    Measurement,
    metric=texts,
    split=st.sampled_from(["train", "test"]),
    level=st.sampled_from(["coarse", "fine", "within", "all"]),
    value=optional(numbers),
    std=optional(numbers),
    view=optional(texts),
    index=optional(counts),
    reason=texts,
)
rows = calls(
    Row,
    name=texts,
    kind=texts,
    member=optional(counts),
    label_map=optional(texts),
    lr=optional(numbers),
    weight_decay=optional(numbers),
    seed=optional(counts),
    epoch=optional(counts),
    layer=texts,
    super_class=tuples(counts),
    measurements=tuples(measurements),
    class_distances=st.integers(0, 3).flatmap(lambda size: tuples(tuples(numbers, size), size)),
    left_out=tuples(texts),
    bootstrap=counts,
)
infos = calls(
    MetricInfo,
    label=texts,
    scope=st.sampled_from(["level", "within", "all", "accuracy", "probe", "clp"]),
    short=texts,
    low=optional(numbers),
    high=optional(numbers),
    better=st.sampled_from(["lower", "higher", ""]),
)
fits = calls(SeparationFit, name=texts, split=texts, level=texts, slope=numbers, intercept=numbers, r2=numbers)
scalars = st.none() | st.booleans() | counts | numbers | texts
provenances = calls(
    Provenance,
    name=texts,
    dataset=texts,
    class_names=tuples(texts),
    command=texts,
    config=named(scalars | st.lists(scalars, max_size=2) | named(scalars)),
    versions=named(texts),
    commit=optional(texts),
    device=texts,
    wall_secs=named(optional(numbers)),
)
evaluations = calls(
    Evaluation,
    rows=tuples(rows),
    metrics=named(infos),
    views=named(calls(ViewInfo, label=texts)),
    separation=tuples(fits),
    notes=tuples(texts),
    provenance=provenances,
)


@given(evaluations)
def test_json_and_back_is_the_same(content: partial) -> None:
    evaluation = call(content)
    assert isinstance(evaluation, Evaluation)
    text = evaluation.to_json()
    assert json.loads(text)["schema"] == SCHEMA
    assert text.endswith("}\n")
    assert Evaluation.from_json(text) == evaluation
    assert Evaluation.from_json(text.encode()) == evaluation
    assert Evaluation.from_json(text).to_json() == text


def measurement(value: float | None, metric: str = "nc1", **fields: object) -> Measurement:
    return Measurement(**({"metric": metric, "split": "test", "level": "fine", "value": value} | fields))


def make_evaluation() -> Evaluation:
    row = Row(
        name="mod:5/lr=0.1/wd=5e-4/seed=0",
        kind="trained",
        member=0,
        label_map="mod:5",
        lr=0.1,
        weight_decay=5e-4,
        seed=0,
        epoch=20,
        measurements=(
            measurement(0.5, std=0.25),
            measurement(0.75, "clp", view="raw"),
            measurement(1.0, "spectrum", index=0, split="train", level="coarse"),
            measurement(2.0, "spectrum", index=1, split="train", level="coarse"),
            measurement(None, "nc3", reason="no classifier"),
        ),
    )
    return Evaluation(
        rows=(row, replace(row, name="mod:5/lr=0.1/wd=5e-4/seed=1", member=1, seed=1, measurements=())),
        metrics={"nc1": MetricInfo(label="NC1", scope="level", low=0.0)},
        views={"raw": ViewInfo(label="raw features")},
    )


def test_a_whole_number_is_read_as_a_float() -> None:
    text = make_evaluation().to_json().replace('"value": 0.5', '"value": 1')
    value = Evaluation.from_json(text).rows[0].value("nc1")
    assert value == 1.0
    assert isinstance(value, float)


def test_clusters_are_no_part_of_the_json_form() -> None:
    evaluation = replace(make_evaluation(), clusters={"raw": make_clusters(2, 3)})
    assert "clusters" not in json.loads(evaluation.to_json())
    assert Evaluation.from_json(evaluation.to_json()) == evaluation  # which does not compare them


def test_numbers_that_are_not_finite_are_not_written() -> None:
    evaluation = make_evaluation()
    bad = replace(evaluation, rows=(replace(evaluation.rows[0], measurements=(measurement(math.nan),)),))
    with pytest.raises(ValueError, match="JSON"):
        bad.to_json()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"run": {}, "rows": []}', "here was written by an earlier version of ncjax: run `ncjax evaluate` again"),
        ('{"schema": 3, "rows": []}', "here was written by another version of ncjax"),
        ('{"schema": "2", "rows": []}', "here was written by another version of ncjax"),
        ('{"schema": null}', "here was written by another version of ncjax"),
        ("[1]", "here was written by another version of ncjax, or something else"),
        ("", "here is not valid JSON"),
        ("[" * 100_000, "here is not valid JSON"),
        ('{"schema": 2', "here is not valid JSON"),
    ],
)
def test_other_versions_and_other_files_are_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        Evaluation.from_json(text, "here")
    assert "run `ncjax evaluate` again" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("rows", 0, "name"), 3, "rows[0].name is 3, but must be text"),
        (("rows", 1, "epoch"), 1.5, "rows[1].epoch"),
        (("rows", 1, "epoch"), True, "rows[1].epoch"),
        (("rows", 0, "lr"), "0.1", "rows[0].lr"),
        (("rows", 0, "measurements", 1, "value"), "high", "rows[0].measurements[1].value"),
        (("rows", 0, "measurements", 1, "valu"), 1.0, "valu"),
        (("rows", 0, "measurements"), "text", "rows[0].measurements"),
        (
            ("rows", 0, "class_distances"),
            [[1.0, 2.0]],
            "class_distances of mod:5/",
        ),
        (("metrics", "nc1", "scope"), "everywhere", "scope"),
        (("metrics", "nc1", "better"), "bigger", "better"),
        (("views",), ["raw"], "views"),
        (("provenance", "versions"), None, "provenance.versions"),
        (("notes",), [None], "notes[0]"),
    ],
)
def test_bad_fields_are_named_in_one_line(path: tuple[str | int, ...], value: object, words: str) -> None:
    content = json.loads(make_evaluation().to_json())
    *outer, last = path
    part = content
    for name in outer:
        part = part[name]
    part[last] = value
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        Evaluation.from_json(json.dumps(content), "results/evaluation.json")
    assert str(caught.value).startswith("results/evaluation.json does not fit; run `ncjax evaluate` again: ")
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named() -> None:
    content = json.loads(make_evaluation().to_json())
    del content["rows"][1]["kind"]
    with pytest.raises(UserError, match=re.escape("rows[1].kind")):
        Evaluation.from_json(json.dumps(content))


def test_find_and_value_tell_measurements_apart() -> None:
    row = make_evaluation().rows[0]
    assert row.value("nc1") == 0.5
    assert row.value("nc1", split="train") is None
    assert row.value("clp") is None
    assert row.value("clp", view="raw") == 0.75
    assert [row.value("spectrum", split="train", level="coarse", index=index) for index in range(3)] == [1.0, 2.0, None]
    found = row.find("nc3")
    assert found is not None
    assert (found.value, found.reason) == (None, "no classifier")
    assert row.find("nc9") is None


def make_clusters(count: int, clusters: int, *, test: bool = True, embedding: bool = False, n: int = 4) -> Clusters:
    rng = np.random.default_rng(count)
    return Clusters(
        train=rng.integers(0, clusters, (count, n)),
        test=rng.integers(0, clusters, (count, 3)) if test else None,
        super_class=np.tile(np.arange(clusters), (count, 1)),
        matching=np.stack([rng.permutation(clusters) for _ in range(count)]),
        embedding=rng.normal(size=(count, n, 2)) if embedding else None,
    )


def test_recovered_labels_are_those_of_the_matched_classes() -> None:
    clusters = Clusters(
        train=np.array([[0, 2, 1, -1], [1, 1, 0, 0]]),
        test=np.array([[2, -1], [0, 1]]),
        super_class=np.array([[0, 0, 1], [0, 0, 1]]),
        matching=np.array([[5, 6, 7], [9, 8, -1]]),
    )
    np.testing.assert_array_equal(clusters.recovered_train, [[5, 7, 6, -1], [8, 8, 9, 9]])
    np.testing.assert_array_equal(clusters.recovered_test, [[7, -1], [9, 8]])
    assert replace(clusters, test=None).recovered_test is None


def test_rows_without_clusters_have_minus_one_where_others_have_labels() -> None:
    one, other = make_clusters(2, 3, embedding=True), make_clusters(1, 5, test=False)
    stacked = stack_clusters([(one, 2), (None, 1), (other, 1)])
    assert stacked.train.shape == (4, 4)
    np.testing.assert_array_equal(stacked.train[:2], one.train)
    np.testing.assert_array_equal(stacked.train[3:], other.train)
    assert (stacked.train[2] == -1).all()
    assert (stacked.recovered_train[2] == -1).all()
    np.testing.assert_array_equal(stacked.recovered_train[3:], other.recovered_train)
    assert stacked.test is not None
    np.testing.assert_array_equal(stacked.test[:2], one.test)
    assert (stacked.test[2:] == -1).all()
    assert stacked.matching.shape == stacked.super_class.shape == (4, 5)
    assert (stacked.super_class[:2, 3:] == -1).all()
    assert stacked.embedding is not None
    np.testing.assert_array_equal(stacked.embedding[:2], one.embedding)
    assert np.isnan(stacked.embedding[2:]).all()


def test_no_test_labels_and_no_embedding_stay_none() -> None:
    stacked = stack_clusters([(make_clusters(1, 2, test=False), 1), (None, 1)])
    assert stacked.test is None
    assert stacked.embedding is None


@pytest.mark.parametrize("test", [True, False])
def test_labels_of_other_examples_cannot_be_joined(test: bool) -> None:
    with pytest.raises(UserError, match="of different examples"):
        stack_clusters([(make_clusters(1, 2), 1), (make_clusters(1, 2, test=test, n=5), 1)])


def test_join_keeps_the_order_of_rows_metrics_and_clusters() -> None:
    one = replace(make_evaluation(), clusters={"raw": make_clusters(2, 3)}, notes=("a", "b"))
    two = replace(
        make_evaluation(),
        rows=make_evaluation().rows[:1],
        metrics={"cdnv": MetricInfo(label="CDNV", scope="level")},
        clusters={"tsne": make_clusters(1, 3)},
        notes=("b", "c"),
        provenance=Provenance(name="second"),
        separation=(SeparationFit(name="x", split="train", level="fine", slope=-1.0, intercept=0.0, r2=1.0),),
    )
    joined = join([one, two])
    assert joined.rows == one.rows + two.rows
    assert list(joined.metrics) == ["nc1", "cdnv"]
    assert joined.notes == ("a", "b", "c")
    assert joined.provenance.name == "second"
    assert joined.separation == two.separation
    assert list(joined.clusters) == ["raw", "tsne"]
    assert {len(clusters.train) for clusters in joined.clusters.values()} == {3}
    assert (joined.clusters["raw"].train[2] == -1).all()
    assert (joined.clusters["tsne"].train[:2] == -1).all()
    np.testing.assert_array_equal(joined.clusters["tsne"].train[2:], two.clusters["tsne"].train)


def test_joining_one_is_that_one() -> None:
    evaluation = make_evaluation()
    assert join([evaluation]) == evaluation


def test_long_form_has_a_line_for_every_measurement() -> None:
    table = make_evaluation().to_pandas()
    run = ["member", "label_map", "lr", "weight_decay", "seed", "epoch", "layer", "kind"]
    own = ["split", "level", "view", "metric", "index", "value", "std", "reason"]
    assert list(table.columns) == [*run, *own]
    assert len(table) == 5
    assert set(table["member"]) == {"mod:5/lr=0.1/wd=5e-4/seed=0"}
    assert (table["lr"] == 0.1).all()
    assert (table["epoch"] == 20).all()
    line = table[(table["metric"] == "spectrum") & (table["index"] == 1)].iloc[0]
    assert (line["split"], line["level"], line["value"]) == ("train", "coarse", 2.0)
    clp = table[table["metric"] == "clp"].iloc[0]
    assert (clp["view"], clp["value"]) == ("raw", 0.75)
    undefined = table[table["metric"] == "nc3"].iloc[0]
    assert math.isnan(undefined["value"])
    assert undefined["reason"] == "no classifier"


def test_long_form_of_nothing_has_its_columns() -> None:
    table = Evaluation(rows=()).to_pandas()
    assert len(table) == 0
    assert {"member", "metric", "value"} <= set(table.columns)
