# SPDX-License-Identifier: Apache-2.0
"""Seconds of a whole evaluation: ncjax, and what of it scikit-learn can do."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from ncjax.bench.interleave import Measured, Peer, interleave
from ncjax.bench.kmeans import load_features, make_features
from ncjax.bench.result import BenchResult, Pair, bench_result, row_of
from ncjax.errors import UserError
from ncjax.storage.atomic import write_json

OURS, SKLEARN = "ncjax, all measures", "scikit-learn, clusters and probes alone"
EXAMPLES, TESTED, FEATURES, CLASSES = 50_000, 10_000, 512, 10
VIEWS = ("raw", "normalised", "residual_pca")
L2, RESTARTS = 1e-4, 10
Split = tuple[Float32[np.ndarray, "_ d"], Int32[np.ndarray, "_"]]


def bench_evaluation(data: Path | None, bootstrap: int, command: str, *, rounds: int) -> BenchResult:
    """Evaluates one network: clusters of three views, CLP, all probes, all measures of collapse.

    The other side has the same clusters and probes, and no measure of collapse. Setup holds the first evaluation with
    all compilation. Notes give what both find.

    Args:
        data: npz file with `train`, `train_y`, `test` and `test_y` of an even number of classes; None: 50,000 + 10,000
            x 512 made features of ten classes. Super-classes are labels modulo half their number.
        bootstrap: resamples of the measures of collapse.
        command: kept with the results.
        rounds: how often each is measured.

    Raises:
        UserError: the file is not of such features.
    """
    (points, labels), _ = make_splits(data)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{i}.json" for i, name in enumerate((OURS, SKLEARN))}
        peers = {
            OURS: Peer(partial(ncjax_timer, data, bootstrap, files[OURS]), ("jax", "sklearn")),
            SKLEARN: Peer(partial(sklearn_timer, data, files[SKLEARN]), ("jax", "sklearn")),
        }
        measured = interleave(peers, rounds=rounds)
        found = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    rows = [row_of(name, "s", one) for name, one in measured.items()]
    title = f"evaluation: {points.shape[0]:,} x {points.shape[1]}, {labels.max() + 1} classes, {bootstrap} resamples"
    pairs = [Pair(title, OURS, SKLEARN)] if measured[SKLEARN].values else []
    return bench_result(command, rows, pairs, list(_notes(measured, found)))


def make_splits(data: Path | None) -> tuple[Split, Split]:
    """Training and test features with their labels."""
    if data is None:
        points, labels = make_features(EXAMPLES + TESTED, FEATURES, CLASSES, 0)
        whole = points, labels.astype(np.int32)
        return tuple(x[:EXAMPLES] for x in whole), tuple(x[EXAMPLES:] for x in whole)  # type: ignore[return-value]
    train, test = (load_features(data, split) for split in ("train", "test"))
    classes = int(train[1].max()) + 1
    if classes % 2:
        raise UserError(f"{data} has {classes} classes, but labels modulo half their number need an even one")
    return tuple((x.astype(np.float32), y.astype(np.int32)) for x, y in (train, test))  # type: ignore[return-value]


def ncjax_timer(data: Path | None, bootstrap: int, report: Path) -> Callable[[], float]:
    """Everything that `ncjax.evaluate` measures by default."""
    from ncjax.evaluation.evaluator import evaluate
    from ncjax.features.feature_set import FeatureSet

    train, test = make_splits(data)
    features, half = FeatureSet.from_arrays(*train, *test), (int(train[1].max()) + 1) // 2

    def run() -> dict[str, float | None]:
        (row,) = evaluate(features, label_map=f"mod:{half}", views=VIEWS, bootstrap=bootstrap, restarts=RESTARTS).rows
        return {"probe": row.value("probe"), **{view: row.value("clp", view=view) for view in VIEWS}}

    return partial(_timed, run, report)


def sklearn_timer(data: Path | None, report: Path) -> Callable[[], float]:
    """k-means of each super-class and view, logistic regressions of the labels and of the clusters, other probes."""
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    (x, y), (z, w) = make_splits(data)

    def run() -> dict[str, float]:
        scaler = StandardScaler().fit(x)
        standardised, tested = scaler.transform(x), scaler.transform(z)
        model, found = LogisticRegression(C=1 / (L2 * len(x)), max_iter=1000), {}
        found["probe"] = float((model.fit(standardised, y).predict(tested) == w).mean())
        for view in VIEWS:
            clusters = _sklearn_clusters(view, x, y)
            found[view] = _matched(model.fit(standardised, clusters).predict(tested), clusters, y, w)
        RidgeClassifier().fit(standardised, y).predict(tested)
        KNeighborsClassifier(20).fit(x, y).predict(z)
        return found

    return partial(_timed, run, report)


def _sklearn_clusters(view: str, points: np.ndarray, labels: np.ndarray) -> Int32[np.ndarray, "n"]:
    """Two clusters in each super-class."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize

    half, found = (labels.max() + 1) // 2, np.empty(len(labels), np.int32)
    for group in range(half):
        own = points[labels % half == group]
        embedded: Any = {
            "raw": lambda own: own,
            "normalised": lambda own: normalize(own - own.mean(axis=0)),
            "residual_pca": lambda own: PCA(8, whiten=True, svd_solver="covariance_eigh").fit_transform(own),
        }[view](own)
        found[labels % half == group] = group + half * KMeans(2, n_init=RESTARTS, random_state=0).fit_predict(embedded)
    return found


def _matched(predicted: np.ndarray, clusters: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Test accuracy where each cluster stands for a class, by the training labels."""
    from ncjax.cluster import match_clusters

    half = (train.max() + 1) // 2
    allowed = np.arange(2 * half)[:, None] % half == np.arange(2 * half)[None, :] % half
    return float((match_clusters(clusters, train, allowed)[predicted] == test).mean())


def _timed(run: Callable[[], Mapping[str, float | None]], report: Path) -> float:
    started = time.perf_counter()
    found = run()
    secs = time.perf_counter() - started
    write_json(report, dict(found))
    return secs


def _notes(measured: Mapping[str, Measured], found: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    for name, values in found.items():
        yield f"{name}: " + ", ".join(
            f"{'CLP ' if what in VIEWS else ''}{what} {100 * (value or 0):.1f} %" for what, value in values.items()
        )
    if measured[OURS].values:
        yield f"{OURS}: {measured[OURS].setup_secs:.1f} s until the first evaluation has ended, compilation included."
