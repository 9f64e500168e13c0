# SPDX-License-Identifier: Apache-2.0
"""Seconds of k-means to convergence: ncjax, scikit-learn, faiss and ott-jax on the same points."""

import importlib.util
import tempfile
from collections.abc import Callable, Collection
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ncjax.bench.interleave import Peer, interleave, mean_secs
from ncjax.bench.result import BenchResult, Pair, bench_result, row_of
from ncjax.errors import UserError

Workload = Literal["features", "super-classes", "cifar10", "blobs", "noise"]
OURS = "ncjax"
RESTARTS = 10
MEASURED_SECS = 1.0
SUPER_CLASSES = 5
CLUSTERS_OF_SUPER_CLASS = 2


def bench_kmeans(
    workload: Workload, data: Path | None, command: str, *, rounds: int, only: Collection[str] = ()
) -> BenchResult:
    """Measures every peer that is installed; each solves all problems of the workload, with ten restarts each.

    Notes give each peer's inertia, summed in float64 from its labels, over ours, and the share of labels that are ours
    after the best renaming.

    Args:
        workload: as `make_problems` has it.
        data: file of the workload cifar10.
        command: kept with the results.
        rounds: how often each is measured, for a second or more.
        only: names of peers to measure; empty: all.

    Raises:
        UserError: the workload needs a file, or the file is not of features.
    """
    problems, k = make_problems(workload, data)
    timers = {
        OURS: (ncjax_timer, "jax", "ncjax"),
        "scikit-learn Lloyd": (sklearn_timer, "sklearn", "scikit-learn"),
        "faiss": (faiss_timer, "faiss", "faiss-cpu"),
        "ott-jax": (ott_timer, "ott", "ott-jax"),
        "flash-kmeans": (flash_timer, "flash_kmeans", "flash-kmeans"),
    }
    timers = {name: found for name, found in timers.items() if name in (only or timers)}
    installed = {name: found for name, found in timers.items() if importlib.util.find_spec(found[1])}
    with tempfile.TemporaryDirectory() as folder:
        labels = {name: Path(folder) / f"{name}.npy" for name in installed}
        measured = interleave(
            {
                name: Peer(partial(timer, workload, data, labels[name]), (module,))
                for name, (timer, module, _) in installed.items()
            },
            rounds=rounds,
        )
        found = {name: np.load(path) for name, path in labels.items() if measured[name].values}
    rows = [row_of(name, "s", one) for name, one in measured.items()]
    notes = [f"{name} {version(timers[name][2])}: {_quality(problems, k, found[name], found[OURS])}" for name in found]
    notes += [f"{name} is not installed." for name in timers if name not in installed]
    title = f"k-means, {workload}: {len(problems)} x {len(problems[0]):,} x {problems[0].shape[1]}, k = {k}"
    return bench_result(command, rows, [Pair(title, OURS, name) for name in found if name != OURS], notes)


def make_problems(workload: Workload, data: Path | None) -> tuple[list[np.ndarray], int]:
    """Returns the problems of a workload, and k.

    features: 50,000 x 512, ten overlapping clusters, elongated in 20 directions of decreasing variance, noise in all.
    blobs: 50,000 x 512, ten clusters whose noise is the same in all directions.
    noise: 50,000 x 512, no clusters at all: nothing for the principal axes to find.
    super-classes: five times 10,000 x 512 like features, k = 2.
    cifar10: the super-classes of the features in an npz file (`train`, `train_y`; label modulo 5), k = 2.
    """
    if workload == "cifar10":
        points, labels = load_features(data)
        groups = labels % SUPER_CLASSES
        return [points[groups == group] for group in range(SUPER_CLASSES)], CLUSTERS_OF_SUPER_CLASS
    if workload == "super-classes":
        return [make_features(10_000, 512, 2, seed)[0] for seed in range(SUPER_CLASSES)], CLUSTERS_OF_SUPER_CLASS
    rng = np.random.default_rng(0)
    if workload == "features":
        return [make_features(50_000, 512, 10, 0)[0]], 10
    noise = rng.standard_normal((50_000, 512), np.float32)
    if workload == "blobs":
        noise += 0.3 * rng.standard_normal((10, 512), np.float32)[rng.integers(0, 10, 50_000)]
    return [noise], 10


def load_features(data: Path | None, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of an npz file, such as `train` and `train_y`.

    Raises:
        UserError: it is not such a file.
    """
    if data is None:
        raise UserError("this benchmark needs --data FILE, an npz file with train [n d] and train_y [n]")
    try:
        with np.load(data, allow_pickle=False) as stored:
            return stored[split], stored[f"{split}_y"]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{data} is not an npz file with {split} [n d] and {split}_y [n] ({error})") from error


def make_features(n: int, d: int, k: int, seed: int, rank: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Points and labels of overlapping clusters that are elongated in some directions of decreasing variance."""
    rng = np.random.default_rng(seed)
    centres = 0.5 * rng.normal(size=(k, d))
    axes = rng.normal(size=(rank, d)) * 0.8 ** np.arange(rank)[:, None]
    labels = rng.integers(0, k, n)
    points = centres[labels] + rng.normal(size=(n, rank)) @ axes + 0.05 * rng.normal(size=(n, d))
    return points.astype(np.float32), labels


def ncjax_timer(workload: Workload, data: Path | None, report: Path) -> Callable[[], float]:
    """All problems in one call; smaller ones are padded with points of weight 0."""
    import jax
    import jax.numpy as jnp

    from ncjax.cluster import kmeans

    problems, k = make_problems(workload, data)
    size = max(map(len, problems))
    points = jnp.asarray(np.stack([np.pad(x, ((0, size - len(x)), (0, 0))) for x in problems]))
    weights = jnp.asarray(np.stack([np.arange(size) < len(x) for x in problems]), jnp.float32)
    keys = jax.random.split(jax.random.key(0), len(problems))

    def solve() -> list[np.ndarray]:
        labels = np.asarray(kmeans(keys, points, k, weights=weights, restarts=RESTARTS).labels)
        return [labels[i][: len(x)] for i, x in enumerate(problems)]

    return partial(_timed, solve, report)


def sklearn_timer(workload: Workload, data: Path | None, report: Path) -> Callable[[], float]:
    """Lloyd's algorithm, problem after problem."""
    from sklearn.cluster import KMeans

    problems, k = make_problems(workload, data)

    def solve() -> list[np.ndarray]:
        return [KMeans(k, n_init=RESTARTS, algorithm="lloyd", random_state=0).fit(x).labels_ for x in problems]

    return partial(_timed, solve, report)


def faiss_timer(workload: Workload, data: Path | None, report: Path, iterations: int = 15) -> Callable[[], float]:
    """Faiss has no tolerance: a fixed number of steps, on all points (by default it would take 256 a cluster)."""
    import faiss

    problems, k = make_problems(workload, data)

    def labels(points: np.ndarray) -> np.ndarray:
        run = faiss.Kmeans(
            points.shape[1], k, niter=iterations, nredo=RESTARTS, seed=0, max_points_per_centroid=len(points)
        )
        run.train(points)
        return run.index.search(points, 1)[1][:, 0]

    return partial(_timed, lambda: [labels(x) for x in problems], report)


def ott_timer(workload: Workload, data: Path | None, report: Path) -> Callable[[], float]:
    """ott-jax, compiled, problem after problem."""
    import jax
    import jax.numpy as jnp
    from ott.tools import k_means

    problems, k = make_problems(workload, data)
    points = [jnp.asarray(x) for x in problems]
    labels = jax.jit(lambda x: k_means.k_means(x, k, n_init=RESTARTS, tol=1e-4, rng=jax.random.key(0)).assignment)

    return partial(_timed, lambda: list(map(np.asarray, [labels(x) for x in points])), report)


def flash_timer(workload: Workload, data: Path | None, report: Path) -> Callable[[], float]:
    """flash-kmeans on a GPU: the restarts are a batch, from points drawn at random; the best of them is kept."""
    import torch

    problems, k = make_problems(workload, data)
    points = [torch.from_numpy(x).cuda() for x in problems]

    def labels(x: "torch.Tensor") -> np.ndarray:
        from flash_kmeans import batch_kmeans_Euclid

        variance = float(x.var(dim=0).mean())
        batch = x[None].expand(RESTARTS, *x.shape).contiguous()
        found, centroids, *_ = batch_kmeans_Euclid(batch, k, max_iters=300, tol=(1e-4 * variance) ** 0.5)
        inertia = torch.stack([((x - c[y.long()]) ** 2).sum() for y, c in zip(found, centroids, strict=True)])
        best: np.ndarray = found[int(inertia.argmin())].cpu().numpy()
        return best

    return partial(_timed, lambda: [labels(x) for x in points], report)


def _timed(solve: Callable[[], list[np.ndarray]], report: Path) -> float:
    """Seconds; the labels are saved."""
    secs, labels = mean_secs(solve, MEASURED_SECS)
    np.save(report, np.concatenate(labels).astype(np.int32))
    return secs


def _quality(problems: list[np.ndarray], k: int, labels: np.ndarray, ours: np.ndarray) -> str:
    from ncjax.cluster.matching import score_against_classes

    ends = np.cumsum([len(x) for x in problems])[:-1]
    parts = list(zip(problems, np.split(labels, ends), np.split(ours, ends), strict=True))
    ratio = sum(inertia_of_labels(x, y, k) for x, y, _ in parts) / sum(inertia_of_labels(x, y, k) for x, _, y in parts)
    same = sum(score_against_classes(y, z).accuracy * len(y) for _, y, z in parts) / len(ours)
    return f"inertia {ratio:.5f} of ours, {100 * same:.2f} % of the labels as ours."


def inertia_of_labels(points: Float[np.ndarray, "n d"], labels: Int[np.ndarray, "n"], k: int) -> float:
    """In float64, to the means of the labels: the same criterion for all."""
    groups = [points[labels == j].astype(np.float64) for j in range(k)]
    return float(sum(((group - group.mean(axis=0)) ** 2).sum() for group in groups if len(group)))
