# SPDX-License-Identifier: Apache-2.0
"""What a device computes, beside float64 on the host: a training step, k-means, a linear probe, collapse."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ncjax.bench.kmeans import inertia_of_labels, make_features
from ncjax.bench.limited import run_limited
from ncjax.bench.result import BenchResult, bench_result, bench_row
from ncjax.config import Config, ModelConfig, OptimConfig
from ncjax.errors import UserError

HOST_SECS = 120.0  # for the step in float64
L2 = 1e-3
CLASSES = 10


class Check(NamedTuple):
    """One number beside what it should be."""

    name: str
    error: float
    tolerance: float


def bench_correctness(command: str, *, toy: bool) -> BenchResult:
    """Compares what this machine's device computes with float64 on the host; notes name what is off.

    Args:
        command: kept with the results.
        toy: smaller problems, for tests.
    """
    checks = [*product_checks(), *kmeans_checks(toy), *probe_checks(toy), *collapse_checks(), *step_checks(toy)]
    off = [check for check in checks if not check.error <= check.tolerance]
    notes = [f"{len(checks) - len(off)} of {len(checks)} values agree with float64 on the host."]
    notes += [f"OFF: {check.name}: {check.error:.2g}, more than {check.tolerance:.2g}" for check in off]
    return bench_result(command, [bench_row(check.name, "error", (check.error,)) for check in checks], [], notes)


def product_checks() -> Iterator[Check]:
    """A product in full precision."""
    import jax
    import jax.numpy as jnp

    from ncjax.ops.products import matmul

    a, b = np.random.default_rng(0).normal(size=(2, 256, 256)).astype(np.float32)
    found = jax.jit(matmul)(jnp.asarray(a), jnp.asarray(b))
    yield Check("product: relative to its norm", _relative(found, a.astype(np.float64) @ b), 1e-6)


def kmeans_checks(toy: bool) -> Iterator[Check]:
    """Few clusters by the default search, and many by Lloyd's algorithm from given centroids."""
    import jax

    from ncjax.cluster import kmeans

    n = 3_000 if toy else 50_000
    points, _ = make_features(n, 64, CLASSES, 0)
    yield from _of_clusters("k-means", points, kmeans(jax.random.key(0), points, CLASSES, restarts=4))
    many = 100 if toy else 1000
    start = points[None, :many]
    found = kmeans(jax.random.key(0), points, many, init=start, max_iterations=10, tol=0.0)
    yield from _of_clusters(f"k-means, k = {many}", points, found)


def _of_clusters(name: str, points: np.ndarray, found: Any) -> Iterator[Check]:
    """The inertia, that each point has the nearest centroid, and, where it has converged, that centroids are means."""
    wide, labels = points.astype(np.float64), np.asarray(found.labels)
    centroids = np.asarray(found.centroids, np.float64)
    scores = (centroids**2).sum(axis=1) - 2 * wide @ centroids.T
    own = scores[np.arange(len(points)), labels]
    lengths = (wide**2).sum(axis=1)
    inertia = float((own + lengths).sum())
    excess = (own - scores.min(axis=1)) / (lengths + (centroids**2).sum(axis=1).max())
    yield Check(f"{name}: inertia", abs(float(found.inertia) / inertia - 1), 1e-5)
    yield Check(f"{name}: farther than the nearest centroid by", float(excess.max()), 1e-6)
    if not bool(found.converged):
        return
    means = inertia_of_labels(points, labels, len(centroids))
    yield Check(f"{name}: inertia above that of the means", inertia / means - 1, 1e-3)


def probe_checks(toy: bool) -> Iterator[Check]:
    """The loss of a linear probe above the least one, which scikit-learn finds in float64."""
    import jax.numpy as jnp
    from sklearn.linear_model import LogisticRegression

    from ncjax.evaluation.linear_probe import fit_linear_probe

    n = 1_000 if toy else 10_000
    points, labels = make_features(n, 32, CLASSES, 1)
    probe = fit_linear_probe(jnp.asarray(points), jnp.asarray(labels, jnp.int32), CLASSES, l2=L2)
    spread, origin = points.astype(np.float64).std(axis=0), points.astype(np.float64).mean(axis=0)
    rows = (points - origin) / spread
    best = LogisticRegression(C=1 / (n * L2), tol=1e-8, max_iter=5_000).fit(rows, labels)
    weights, bias = (np.asarray(x, np.float64) for x in (probe.weights, probe.bias))
    bias = bias + (origin - np.asarray(probe.origin, np.float64)) @ weights
    ours = _probe_loss(rows, labels, weights * spread[:, None], bias)
    theirs = _probe_loss(rows, labels, best.coef_.T, best.intercept_)
    yield Check("linear probe: nats above the least loss", max(0.0, ours - theirs), 2e-5)
    yield Check("linear probe: its own loss", abs(float(probe.loss) - ours), 1e-5)


def _probe_loss(
    rows: Float[np.ndarray, "n d"], labels: Int[np.ndarray, "n"], weights: Float[np.ndarray, "d c"], bias: np.ndarray
) -> float:
    scores = rows @ weights + bias
    top = scores.max(axis=1)
    sums = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top
    return float((sums - scores[np.arange(len(rows)), labels]).mean() + L2 / 2 * (weights**2).sum())


def collapse_checks() -> Iterator[Check]:
    """NC1 and CDNV by their formulas."""
    import jax.numpy as jnp

    from ncjax.collapse import cdnv, class_statistics, nc1

    points, labels = make_features(3_000, 32, CLASSES, 2)
    statistics = class_statistics(jnp.asarray(points), jnp.asarray(labels, jnp.int32), CLASSES)
    groups = [points[labels == c].astype(np.float64) for c in range(CLASSES)]
    means = np.stack([group.mean(axis=0) for group in groups])
    within = sum((group - mean).T @ (group - mean) for group, mean in zip(groups, means, strict=True)) / len(points)
    apart = means - means.mean(axis=0)
    between = np.linalg.pinv(apart.T @ apart / CLASSES, rcond=1e-10)
    yield Check("NC1", abs(float(nc1(statistics).nc1) / (np.trace(within @ between) / CLASSES) - 1), 1e-3)
    variances = np.array([((group - mean) ** 2).sum(axis=1).mean() for group, mean in zip(groups, means, strict=True)])
    squares = ((means[:, None] - means[None]) ** 2).sum(axis=2)
    pairs = ~np.eye(CLASSES, dtype=bool)
    wanted = ((variances[:, None] + variances[None]) / 2)[pairs] / squares[pairs]
    yield Check("CDNV", abs(float(cdnv(statistics)) / wanted.mean() - 1), 1e-4)


def step_checks(toy: bool) -> Iterator[Check]:
    """A step of the optimizer from random weights; its reference is a process on the host.

    Raises:
        UserError: the host does not give one.
    """
    loss, update = step_values(toy)
    reference = run_limited(partial(step_values, toy, double=True), HOST_SECS, {"JAX_PLATFORMS": "cpu"})
    if reference.value is None:
        raise UserError(f"a training step in float64 on the host: {reference.error}")
    yield Check("training step: loss", abs(loss / reference.value[0] - 1), 1e-3)
    yield Check("training step: change of the weights", _relative(update, reference.value[1]), 2e-2)


def step_values(toy: bool, *, double: bool = False) -> tuple[float, Float[np.ndarray, "p"]]:
    """The loss of the first batch, and the change of all weights in the step."""
    import contextlib

    import jax

    from ncjax.ops.precision import double_precision
    from ncjax.training.batch import make_batch
    from ncjax.training.loop import prepare
    from ncjax.training.members import example_order
    from ncjax.training.state import init_state
    from ncjax.training.step import train_step

    run = prepare(_step_config(toy), _random_pictures(8 if toy else 32))
    with double_precision() if double else contextlib.nullcontext():
        spec = _in_double(run.spec) if double else run.spec
        state = init_state(run.spec, run.ensemble)
        state = jax.tree.map(lambda x: x.astype("float64") if x.dtype == "float32" else x, state) if double else state
        order = example_order(run.ensemble.seed, state.step // spec.steps_per_epoch, run.images.train.shape[0])
        batch = make_batch(spec, run.images, run.ensemble, order, state.step)
        after, metrics = jax.jit(train_step, static_argnums=0)(spec, state, batch, run.ensemble)
        leaves = (jax.tree.leaves(one.members.params) for one in (state, after))
        changes = [np.asarray(b, np.float64) - np.asarray(a, np.float64) for a, b in zip(*leaves, strict=True)]
        return float(np.asarray(metrics.loss)[0]), np.concatenate([change.reshape(-1) for change in changes])


def _step_config(toy: bool) -> Config:
    return Config(
        labels=("mod:5",),
        model=ModelConfig(name="cnn", width=4) if toy else ModelConfig(name="resnet18", width=16),
        optim=OptimConfig(batch=32, epochs=1, schedule="constant"),
    )


def _random_pictures(size: int) -> Any:
    from ncjax.data import Dataset

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (128, size, size, 3), np.uint8)
    labels = np.arange(128) % CLASSES
    return Dataset.from_arrays(images, labels, images[:20], labels[:20])


def _in_double(spec: Any) -> Any:
    """The same, with a network that computes in float64."""
    import jax
    import jax.numpy as jnp

    from ncjax.models import NETWORKS

    network = NETWORKS[spec.config.model.name](spec.config.model, jnp.dtype("float64"))
    graph = jax.eval_shape(lambda: network.init(jax.random.key(0), spec.image_shape, spec.classes)).graph
    functions = dataclasses.replace(spec.functions, network=network)
    return dataclasses.replace(spec, functions=functions, graph=graph)


def _relative(found: Any, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))
