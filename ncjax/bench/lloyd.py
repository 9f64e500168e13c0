# SPDX-License-Identifier: Apache-2.0
"""Seconds of a fixed number of steps of Lloyd's algorithm with many centroids: ncjax and flash-kmeans."""

import importlib.util
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ncjax.bench.interleave import Peer, interleave
from ncjax.bench.kmeans import inertia_of_labels
from ncjax.bench.result import BenchResult, Pair, bench_result, row_of

OURS = "ncjax"
FLASH = {"flash-kmeans, float32": "float32", "flash-kmeans, float16": "float16"}
PRODUCT, UNIT = "product of two large matrices in float16", "TFLOP/s"


class Lloyd(NamedTuple):
    """What is solved: points from a normal distribution, and the first of them as centroids."""

    points: int
    dimensions: int
    centroids: int
    steps: int


LARGE = Lloyd(1_000_000, 128, 1000, 25)


def bench_lloyd(work: Lloyd, command: str, *, rounds: int) -> BenchResult:
    """Steps from the same centroids, none of which converges before; ours gives the labels of the last centroids too.

    Notes give the share of the device's rate in a large product that the distances of ours reach, `2 n d k` operations
    a step, and the inertia of the labels in float64.

    Args:
        work: what is solved.
        command: kept with the results.
        rounds: how often each is measured.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{i}.npy" for i, name in enumerate((OURS, *FLASH))}
        peers = {OURS: Peer(partial(our_timer, work, files[OURS]), ("jax", "ncjax.cluster"))}
        if importlib.util.find_spec("flash_kmeans"):
            for name, dtype in FLASH.items():
                peers[name] = Peer(partial(flash_timer, work, dtype, files[name]), ("torch", "flash_kmeans"))
        peers[PRODUCT] = Peer(partial(product_timer, 8192 if work == LARGE else 256), ("jax",))
        measured = interleave(peers, rounds=rounds)
        labels = {name: np.load(file) for name, file in files.items() if file.exists()}
    rows = [row_of(name, UNIT if name == PRODUCT else "s", found) for name, found in measured.items()]
    title = f"k-means, {work.points:,} x {work.dimensions}, k = {work.centroids}, {work.steps} steps"
    notes = [_inertias(work, labels)] if OURS in labels else []
    ours, rate = measured[OURS].values, measured[PRODUCT].values
    if ours and rate:
        notes.append(_share(work, float(np.median(ours)), float(np.median(rate))))
    notes += [f"flash-kmeans {version('flash-kmeans')}"] if len(peers) > 2 else ["flash-kmeans is not installed."]
    return bench_result(command, rows, [Pair(title, OURS, name) for name in FLASH if name in peers], notes)


def distance_flops(work: Lloyd) -> float:
    """Operations of all distances, in one product a step."""
    return 2.0 * work.points * work.dimensions * work.centroids * work.steps


def _share(work: Lloyd, secs: float, tflops: float) -> str:
    operations = distance_flops(work) / 1e12
    return (
        f"The distances of all steps are {operations:.3g} TFLOP in one product: {1e3 * operations / tflops:.3g} ms at "
        f"the {tflops:.3g} TFLOP/s of a large product in float16, {operations / tflops / secs:.3f} of ncjax's time."
    )


def _inertias(work: Lloyd, labels: dict[str, np.ndarray]) -> str:
    points = make_points(work)
    found = {name: inertia_of_labels(points, own, work.centroids) for name, own in labels.items()}
    return "Inertia over ours: " + ", ".join(f"{name} {one / found[OURS]:.5f}" for name, one in found.items()) + "."


def make_points(work: Lloyd) -> np.ndarray:
    """Points without clusters, where many distances are near each other."""
    return np.random.default_rng(0).standard_normal((work.points, work.dimensions), np.float32)


def our_timer(work: Lloyd, report: Path) -> Callable[[], float]:
    """`kmeans` from given centroids: the steps, the check of the points, and the labels."""
    import jax
    import jax.numpy as jnp

    from ncjax.cluster import kmeans

    points, key = jnp.asarray(make_points(work)), jax.random.key(0)
    start = points[None, : work.centroids]

    def measure() -> float:
        started = time.perf_counter()
        found = kmeans(key, points, work.centroids, init=start, max_iterations=work.steps, tol=0.0)
        labels = jax.block_until_ready(found.labels)
        secs = time.perf_counter() - started
        np.save(report, np.asarray(labels))
        return secs

    return measure


def flash_timer(work: Lloyd, dtype: str, report: Path) -> Callable[[], float]:
    """flash-kmeans from the same centroids, in one of its two precisions."""
    import torch
    from flash_kmeans import batch_kmeans_Euclid

    points = torch.from_numpy(make_points(work)).cuda().to(getattr(torch, dtype))[None]
    start = points[:, : work.centroids].clone()

    def measure() -> float:
        torch.cuda.synchronize()
        started = time.perf_counter()
        labels, *_ = batch_kmeans_Euclid(points, work.centroids, max_iters=work.steps, tol=-1.0, init_centroids=start)
        torch.cuda.synchronize()
        secs = time.perf_counter() - started
        np.save(report, labels[0].cpu().numpy().astype(np.int32))
        return secs

    return measure


def product_timer(size: int) -> Callable[[], float]:
    """TFLOP/s of a large product in float16 with sums in float32."""
    import jax
    import jax.numpy as jnp

    factor = jnp.ones((size, size), jnp.float16)
    product = jax.jit(partial(jnp.matmul, preferred_element_type=jnp.float32))

    def measure() -> float:
        jax.block_until_ready(product(factor, factor))
        started = time.perf_counter()
        for _ in range(10):
            found = product(factor, factor)
        jax.block_until_ready(found)
        return 10 * 2 * size**3 / (time.perf_counter() - started) / 1e12

    return measure
