# SPDX-License-Identifier: Apache-2.0
"""Seconds of all collapse metrics at both levels, compared with one product `X^T X` of the same features."""

from collections.abc import Callable
from functools import partial

import numpy as np

from ncjax.bench.interleave import Peer, interleave, mean_secs
from ncjax.bench.kmeans import make_problems
from ncjax.bench.result import BenchResult, Pair, bench_result, row_of

OURS, PRODUCT, NUMPY = "ncjax, all measures", "JAX, X^T X", "NumPy, X^T X"
CLASSES, SUPER_CLASSES = 10, 5
MEASURED_SECS = 2.0


def bench_collapse(command: str, *, rounds: int) -> BenchResult:
    """The full table of one split of 50,000 x 512, ten fine and five coarse classes, with a classifier.

    Args:
        command: kept with the results.
        rounds: how often each is measured, for two seconds or more.
    """
    peers = {OURS: ncjax_timer, PRODUCT: jax_product_timer, NUMPY: numpy_product_timer}
    measured = interleave({name: Peer(timer, ("jax", "sklearn")) for name, timer in peers.items()}, rounds=rounds)
    rows = [row_of(name, "s", one) for name, one in measured.items()]
    title = "collapse at both levels: 50,000 x 512, 10 fine and 5 coarse classes"
    notes = [
        "One product X^T X is 26.2 GFLOP over 102 MB; the measures need one, two readings, and 3 x 512 eigenvalues."
    ]
    return bench_result(command, rows, [Pair(title, OURS, name) for name in (PRODUCT, NUMPY)], notes)


def points_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """The workload `features` of the k-means benchmark, with random labels of ten classes."""
    (points,), _ = make_problems("features", None)
    return points, np.random.default_rng(1).integers(0, CLASSES, len(points)).astype(np.int32)


def ncjax_timer() -> Callable[[], float]:
    """All collapse metrics of one split, with a classifier, as `ncjax evaluate FILE` computes them."""
    import jax.numpy as jnp

    from ncjax.collapse.measure import measure
    from ncjax.collapse.reading import Classifier, Labelled

    points, labels = points_and_labels()
    weights = np.random.default_rng(2).normal(size=(SUPER_CLASSES, points.shape[1])).astype(np.float32)
    classifier = Classifier(jnp.asarray(weights), jnp.zeros(SUPER_CLASSES))
    super_class = tuple(label % SUPER_CLASSES for label in range(CLASSES))
    return partial(_timed, lambda: measure(Labelled(points, labels), None, super_class, classifier=classifier))


def jax_product_timer() -> Callable[[], float]:
    """One compiled product of matrices."""
    import jax
    import jax.numpy as jnp

    points = jnp.asarray(points_and_labels()[0])
    product = jax.jit(lambda x: jnp.matmul(x.T, x, precision=jax.lax.Precision.HIGHEST))
    return partial(_timed, lambda: product(points).block_until_ready())


def numpy_product_timer() -> Callable[[], float]:
    """The same by NumPy's BLAS, which computes half of the symmetric result."""
    points, _ = points_and_labels()
    return partial(_timed, lambda: points.T @ points)


def _timed(call: Callable[[], object]) -> float:
    return mean_secs(call, MEASURED_SECS)[0]
