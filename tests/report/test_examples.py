# SPDX-License-Identifier: Apache-2.0
"""Examples on the page: whose they are, their clusters, images and confusion; damaged files do no harm."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ncjax.evaluation.store import write_evaluation
from ncjax.examples import Clusters, Examples, Planes
from ncjax.report import write_report
from ncjax.report.examples import choose_shown, confusion_of
from ncjax.report.groups import group_rows
from ncjax.report.main_result import main_group
from ncjax.report.read import clusters_of, read_results, results_of
from ncjax.storage.result_files import cluster_file, examples_file
from tests.report.rows import make_evaluation, make_row, undrawn
from tests.report.test_page import lines_of, text_of

__all__ = ["undrawn"]
pytestmark = pytest.mark.usefixtures("undrawn")

NAMES = ("ant", "bee", "cat", "dog")
OWNER = (0, 1, 0, 1)
N = 40
LABELS = np.arange(N, dtype=np.int32) % 4
CLUSTER_OF = np.array([0, 2, 1, 3])  # of each class: numbered over super-classes


def planes(seed: int) -> Planes:
    rng = np.random.default_rng(seed)
    return Planes(*(rng.normal(size=(20, 2)).astype(np.float32) for _ in range(2)))


def make_full(**fields):
    """Two seeds in two views; of the first seed, in the view raw, one ant joined the cluster of cats."""
    rows = [make_row(seed=seed, super_class=OWNER, class_distances=((1.0,) * 4,) * 4) for seed in (0, 1)]
    train = np.stack([CLUSTER_OF[LABELS]] * 2).astype(np.int32)
    train[0, 0] = 1
    matching, of = np.array([[0, 2, 1, 3]] * 2, np.int32), np.array([[0, 0, 1, 1]] * 2, np.int32)
    raw = Clusters(train=train, test=train[:, ::-1].copy(), super_class=of, matching=matching)
    embedding = np.full((2, N, 2), np.nan, np.float32)
    tsne = Clusters(
        train=np.stack([CLUSTER_OF[LABELS]] * 2), test=None, super_class=of, matching=matching, embedding=embedding
    )
    examples = Examples(
        train_labels=LABELS,
        test_labels=LABELS[::-1].copy(),
        rows=np.arange(20, dtype=np.int32),
        thumbnails=np.full((20, 8, 8, 3), 200, np.uint8),
        epoch=20,
        planes={row.name: planes(seed) for seed, row in enumerate(rows)},
    )
    whole = make_evaluation(rows, class_names=NAMES, config={"evaluate": {"headline": "raw"}})
    return replace(whole, clusters={"raw": raw, "tsne": tsne}, **({"examples": examples} | fields))


@pytest.fixture
def full():
    return make_full()


def shown_of(results):
    return choose_shown(results, main_group(group_rows(results.evaluation.rows)), NAMES)


def test_the_first_seed_is_shown_in_the_view_of_the_headline(full) -> None:
    found = shown_of(results_of(full))
    assert found.member == "mod:5/lr=0.1/wd=0.0005/seed=0, epoch 20"
    assert (found.view, len(found.points.images)) == ("raw", 20)
    assert found.points.cluster[:3] == ["cluster 1: cat", "cluster 2: bee", "cluster 1: cat"]
    assert found.points.right[:3] == [False, True, True]
    assert found.points.coarse[:2] == ["ant + cat", "bee + dog"]
    assert found.clusters["cluster 0: ant"] == "ant + cat"
    np.testing.assert_array_equal(found.points.whole, full.examples.planes[full.rows[0].name].whole)


def test_confusion_is_that_of_the_whole_splits(full) -> None:
    results = results_of(full)
    rows = confusion_of(results, shown_of(results), NAMES, {"raw": "raw features", "tsne": "t-SNE"})
    wrong = [row for row in rows if row["true"] != row["recovered"]]
    where = [(row["view"], row["split"], row["true"], row["recovered"], row["count"]) for row in wrong]
    assert where == [("raw features", split, "ant", "cat", 1) for split in ("train", "test")]
    assert sum(row["count"] for row in rows if (row["view"], row["split"]) == ("t-SNE", "train")) == N


def test_a_work_directory_says_what_the_evaluation_in_memory_says(full, tmp_path: Path) -> None:
    write_evaluation(tmp_path, full)
    results = read_results(tmp_path)
    for row in results.evaluation.rows:
        own = clusters_of(results, row)
        place = next(i for i, one in enumerate(full.rows) if one.name == row.name)
        assert set(own) == {"raw", "tsne"}
        np.testing.assert_array_equal(own["raw"].train, full.clusters["raw"].train[place])
        assert own["tsne"].test is None
    assert shown_of(results).points.cluster == shown_of(results_of(full)).points.cluster


def test_t_sne_is_drawn_where_the_results_hold_it(full) -> None:
    assert shown_of(results_of(full)).method.startswith("the first two principal axes")
    embedding = np.random.default_rng(0).normal(size=(2, N, 2)).astype(np.float32)
    tsne = replace(full.clusters["tsne"], embedding=embedding)
    found = shown_of(results_of(replace(full, clusters={**full.clusters, "tsne": tsne})))
    assert found.method.startswith("t-SNE")
    np.testing.assert_array_equal(found.points.inside, embedding[0, :20])


def test_page_has_images_embedding_and_confusion(full, tmp_path: Path) -> None:
    write_evaluation(tmp_path, full)
    page = write_report(tmp_path).read_text()
    figures = re.findall(r'<figure id="figure-(\w+)"', page)
    assert {"embedding", "confusion"} <= set(figures)
    text = text_of(page)
    assert "cluster 1: cat" in text
    assert "5 of 6 chosen examples are of this class" in text
    assert "went wrong, with the true class: ant" in text
    image = re.search(r'<img src="data:image/png;base64,([^"]+)" alt="bee">', page)
    assert base64.b64decode(image[1]).startswith(b"\x89PNG")


@pytest.mark.parametrize("damage", ["missing", "no archive", "other rows", "no images", "object"])
def test_examples_that_cannot_be_read_are_missing_with_the_reason(full, tmp_path: Path, damage: str) -> None:
    write_evaluation(tmp_path, full)
    path, words = examples_file(tmp_path), "cannot be read"
    content = dict(np.load(path))
    if damage == "missing":
        path.unlink()
        words = "examples.npz is missing"
    elif damage == "no archive":
        path.write_bytes(b"no archive")
    elif damage == "other rows":
        np.savez(path, **(content | {"rows": content["rows"] + N}))
    elif damage == "no images":
        np.savez(path, **{name: array for name, array in content.items() if name != "thumbnails"})
        words = "the images could not be read"
    else:
        np.savez(path, **(content | {"rows": np.array([{}], object)}))
    page = write_report(tmp_path).read_text()
    assert words in text_of(page).split("What is missing")[-1]
    assert ("figure-embedding" in page) == (damage == "no images")
    assert "<img src" not in page


def test_clusters_that_are_gone_or_of_other_networks_are_not_drawn(full, tmp_path: Path) -> None:
    write_evaluation(tmp_path, full)
    path = cluster_file(tmp_path, 20)
    content = dict(np.load(path))
    for change in (
        {name: array[:1] for name, array in content.items()},
        {"raw_matching": content["raw_matching"] + 100},
    ):
        np.savez(path, **(content | change))
        page = write_report(tmp_path).read_text()
        assert "figure-embedding" in page
        assert len(lines_of(page, "main_table")) == 2
    path.unlink()
    assert "figure-confusion" not in write_report(tmp_path).read_text()


def test_features_from_files_have_the_same_page_without_images_and_epochs(full, tmp_path: Path) -> None:
    rows = [replace(full.rows[0], kind="features", name="a.npz", epoch=None, member=None, label_map=None)]
    one = {name: part for name, part in full.clusters.items() if name == "raw"}
    one = {name: replace(part, train=part.train[:1], test=part.test[:1], matching=part.matching[:1],
                         super_class=part.super_class[:1]) for name, part in one.items()}  # fmt: skip
    examples = replace(full.examples, thumbnails=None, epoch=None, planes={"a.npz": planes(0)})
    found = replace(full, rows=tuple(rows), clusters=one, examples=examples)
    page = write_report(found, tmp_path / "page.html").read_text()
    text = text_of(page)
    assert "figure-embedding" in page
    assert "figure-confusion" in page
    assert "example images the features came without images" in text
    bare = text_of(write_report(replace(found, examples=None), tmp_path / "bare.html").read_text())
    assert "the evaluation holds none" in bare
    assert "From the features of a.npz, clustering and a linear probe recover the fine classes at 80.0" in text
