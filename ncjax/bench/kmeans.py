# SPDX-License-Identifier: Apache-2.0
"""Seconds of k-means to convergence: ncjax, scikit-learn, faiss and ott-jax on the same points in the same rounds.

python -m ncjax.bench.kmeans --workload features --rounds 5 --output result.json
"""

import argparse
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ncjax.bench.interleave import Peer, interleave
from ncjax.bench.result import machine
from ncjax.workdir import environment, write_json

RESTARTS = 10
SUPER_CLASSES = 5
CLUSTERS_OF_SUPER_CLASS = 2


def make_workload(name: str, data: str) -> tuple[list[np.ndarray], int]:
    """The problems of a workload, and k.

    features: 50,000 x 512, ten overlapping clusters, spread in 20 directions of falling strength, noise in all.
    blobs: 50,000 x 512, ten clusters whose noise is the same in all directions.
    noise: 50,000 x 512, no clusters at all: nothing for the principal axes to find.
    super-classes: five times 10,000 x 512 like features, k = 2.
    cifar10: the super-classes of the features in an npz file (`train`, `train_y`; label modulo 5), k = 2.
    """
    if name == "cifar10":
        with np.load(data) as stored:
            points, labels = stored["train"], stored["train_y"]
        groups = labels % SUPER_CLASSES
        return [points[groups == group] for group in range(SUPER_CLASSES)], CLUSTERS_OF_SUPER_CLASS
    if name == "super-classes":
        return [_features(10_000, 512, 2, seed) for seed in range(SUPER_CLASSES)], CLUSTERS_OF_SUPER_CLASS
    rng = np.random.default_rng(0)
    if name == "features":
        return [_features(50_000, 512, 10, 0)], 10
    noise = rng.standard_normal((50_000, 512), np.float32)
    if name == "blobs":
        noise += 0.3 * rng.standard_normal((10, 512), np.float32)[rng.integers(0, 10, 50_000)]
    return [noise], 10


def _features(n: int, d: int, k: int, seed: int, rank: int = 20) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = 0.5 * rng.normal(size=(k, d))
    axes = rng.normal(size=(rank, d)) * 0.8 ** np.arange(rank)[:, None]
    labels = rng.integers(0, k, n)
    return (centres[labels] + rng.normal(size=(n, rank)) @ axes + 0.05 * rng.normal(size=(n, d))).astype(np.float32)


def ncjax_timer(workload: str, data: str, report: str) -> Callable[[], float]:
    """All problems in one call; those of different sizes filled up with points of weight 0."""
    import jax
    import jax.numpy as jnp

    from ncjax.cluster import kmeans

    problems, k = make_workload(workload, data)
    size = max(map(len, problems))
    points = jnp.asarray(np.stack([np.pad(x, ((0, size - len(x)), (0, 0))) for x in problems]))
    weights = jnp.asarray(np.stack([np.arange(size) < len(x) for x in problems]), jnp.float32)
    keys = jax.random.split(jax.random.key(0), len(problems))

    def measure() -> float:
        started = time.perf_counter()
        found = jax.block_until_ready(kmeans(keys, points, k, weights=weights, restarts=RESTARTS))
        secs = time.perf_counter() - started
        labels = [np.asarray(found.labels[i])[: len(x)] for i, x in enumerate(problems)]
        _save(report, problems, labels, k, np.asarray(found.iterations).tolist())
        return secs

    return measure


def sklearn_timer(workload: str, data: str, report: str) -> Callable[[], float]:
    """Lloyd's algorithm, problem after problem."""
    from sklearn.cluster import KMeans

    problems, k = make_workload(workload, data)

    def measure() -> float:
        started = time.perf_counter()
        found = [KMeans(k, n_init=RESTARTS, algorithm="lloyd", random_state=0).fit(x) for x in problems]
        secs = time.perf_counter() - started
        _save(report, problems, [one.labels_ for one in found], k, [one.n_iter_ for one in found])
        return secs

    return measure


def faiss_timer(workload: str, data: str, report: str, iterations: int = 15) -> Callable[[], float]:
    """Faiss has no tolerance: a fixed number of steps, on all points (by default it would take 256 a cluster)."""
    import faiss

    problems, k = make_workload(workload, data)

    def solve(points: np.ndarray) -> np.ndarray:
        run = faiss.Kmeans(
            points.shape[1], k, niter=iterations, nredo=RESTARTS, seed=0, max_points_per_centroid=len(points)
        )
        run.train(points)
        return run.index.search(points, 1)[1][:, 0]

    def measure() -> float:
        started = time.perf_counter()
        labels = [solve(x) for x in problems]
        secs = time.perf_counter() - started
        _save(report, problems, labels, k, [iterations] * len(problems))
        return secs

    return measure


def ott_timer(workload: str, data: str, report: str) -> Callable[[], float]:
    """ott-jax, compiled, problem after problem."""
    import jax
    import jax.numpy as jnp
    from ott.tools import k_means

    problems, k = make_workload(workload, data)
    points = [jnp.asarray(x) for x in problems]
    solve = jax.jit(lambda x: k_means.k_means(x, k, n_init=RESTARTS, tol=1e-4, rng=jax.random.key(0)))

    def measure() -> float:
        started = time.perf_counter()
        found = jax.block_until_ready([solve(x) for x in points])
        secs = time.perf_counter() - started
        _save(report, problems, [np.asarray(one.assignment) for one in found], k, [int(f.iteration) for f in found])
        return secs

    return measure


def _save(report: str, problems: list[np.ndarray], labels: list[np.ndarray], k: int, iterations: list[int]) -> None:
    """Labels, and the inertia in float64 of the labels' own means: the same judge for all."""
    inertia = [_inertia(x, y, k) for x, y in zip(problems, labels, strict=True)]
    np.savez(report, labels=np.concatenate(labels), inertia=np.array(inertia), iterations=np.array(iterations))


def _inertia(points: np.ndarray, labels: np.ndarray, k: int) -> float:
    groups = [points[labels == j].astype(np.float64) for j in range(k)]
    return float(sum(((group - group.mean(axis=0)) ** 2).sum() for group in groups if len(group)))


def bench_kmeans(workload: str, data: str, folder: Path, *, rounds: int) -> dict[str, Any]:
    """Seconds, inertia and labels of every peer that is installed."""
    timers = {
        "ncjax": (ncjax_timer, "jax"),
        "scikit-learn Lloyd": (sklearn_timer, "sklearn"),
        "faiss-cpu": (faiss_timer, "faiss"),
        "ott-jax": (ott_timer, "ott"),
    }
    reports = {name: str(folder / f"{i}.npz") for i, name in enumerate(timers)}
    peers = {
        name: Peer(partial(timer, workload, data, reports[name]), (module,))
        for name, (timer, module) in timers.items()
        if importlib.util.find_spec(module)
    }
    measured = interleave(peers, rounds=rounds)
    rows = {name: _row(found.values, found, reports[name]) for name, found in measured.items()}
    missing = sorted(set(timers) - set(peers))
    return {
        "workload": workload,
        "rounds": rounds,
        "peers": rows,
        "not installed": missing,
        "machine": machine(),
        **environment(),
    }


def _row(values: tuple[float, ...], found: Any, report: str) -> dict[str, Any]:
    if not values:
        return {"error": found.error}
    with np.load(report) as stored:
        inertia, iterations = stored["inertia"].tolist(), stored["iterations"].tolist()
    median = statistics.median(values)
    return {
        "median_secs": median,
        "secs": list(values),
        "first_call_more_secs": found.setup_secs - median,  # data, compilation
        "peak_mib": found.peak_bytes / 2**20,
        "inertia": inertia,
        "iterations": iterations,
    }


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    ours = result["peers"]["ncjax"]
    lines = [
        "| peer | median s (min to max) | peer / ncjax | inertia / ncjax's | more on the first call, s | peak MiB |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, row in result["peers"].items():
        if "error" in row:
            lines.append(f"| {name} | {row['error']} | | | | |")
            continue
        quality = sum(row["inertia"]) / sum(ours["inertia"])
        secs = f"{row['median_secs']:.3f} ({min(row['secs']):.3f} to {max(row['secs']):.3f})"
        times = f"{row['median_secs'] / ours['median_secs']:.1f}"
        more = f"{row['first_call_more_secs']:.1f}"
        lines.append(f"| {name} | {secs} | {times} | {quality:.5f} | {more} | {row['peak_mib']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, print and write."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="features")
    parser.add_argument("--data", default="coarse_cifar10_features.npz")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = bench_kmeans(options.workload, options.data, Path(folder), rounds=options.rounds)
    write_json(options.output, result)
    print(table(result))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
