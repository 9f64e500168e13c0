# SPDX-License-Identifier: Apache-2.0
"""Seconds of linear probes to convergence: ncjax and scikit-learn on the same features and labels."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int32

from ncjax.bench.interleave import Measured, Peer, interleave, mean_secs
from ncjax.bench.kmeans import load_features, make_features
from ncjax.bench.result import BenchResult, Pair, bench_result, row_of

OURS, SKLEARN, PRODUCTS = "ncjax", "scikit-learn", "JAX, the products of one pass"
SHAPE, CLASSES, L2 = (50_000, 512), 10, 1e-4
REDRAWN = 0.1  # of the labels of made features, and of each labelling but the first
MEASURED_SECS = 1.0


def bench_probe(data: Path | None, labellings: int, command: str, *, rounds: int) -> BenchResult:
    """Fits logistic regressions of all labellings, of standardised features and with the same penalty.

    Notes give the loss of each, in float64, above the least of all; passes over the examples, and which share of the
    time the products of as many passes take alone.

    Args:
        data: npz file with `train` and `train_y`; None: 50,000 x 512 made features of ten classes.
        labellings: of the same examples: the labels, then others of which one in ten is drawn anew.
        command: kept with the results.
        rounds: how often each is measured, for a second or more.

    Raises:
        UserError: the file is not of features.
    """
    points, labels = make_problem(data, labellings)
    makers = {OURS: ncjax_timer, SKLEARN: sklearn_timer}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{i}.npz" for i, name in enumerate(makers)}
        peers = {
            name: Peer(partial(make, data, labellings, files[name]), ("jax", "sklearn"))
            for name, make in makers.items()
        }
        peers[PRODUCTS] = Peer(partial(products_timer, data, labellings), ("jax",))
        measured = interleave(peers, rounds=rounds)
        found = {name: dict(np.load(file, allow_pickle=False)) for name, file in files.items() if file.exists()}
    rows = [row_of(name, "s", one) for name, one in measured.items()]
    shape = f"{points.shape[0]:,} x {points.shape[1]}, {labels.max() + 1} classes"
    title = f"linear probe: {shape}, {labellings} labelling{'s' * (labellings > 1)}"
    pairs = [Pair(title, OURS, SKLEARN)] if measured[SKLEARN].values else []
    return bench_result(command, rows, pairs, [*_losses(points, labels, found), *_share(measured, found)])


def make_problem(data: Path | None, labellings: int) -> tuple[Float32[np.ndarray, "n d"], Int32[np.ndarray, "p n"]]:
    """Standardised features, and their labellings."""
    from sklearn.preprocessing import StandardScaler

    points, labels = make_features(*SHAPE, CLASSES, 0) if data is None else load_features(data)
    standardised = StandardScaler().fit_transform(points.astype(np.float64))
    kept, rng = 0 if data is None else 1, np.random.default_rng(1)
    drawn = [_redrawn(labels, rng) for _ in range(labellings - kept)]
    return standardised.astype(np.float32), np.stack([labels] * kept + drawn).astype(np.int32)


def _redrawn(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    others = rng.integers(0, labels.max() + 1, len(labels))
    return np.where(rng.random(len(labels)) < REDRAWN, others, labels)


def ncjax_timer(data: Path | None, labellings: int, report: Path) -> Callable[[], float]:
    """All labellings in one call."""
    import jax.numpy as jnp

    from ncjax.evaluation.linear_probe import fit_linear_probe

    points, labels = map(jnp.asarray, make_problem(data, labellings))
    classes = int(labels.max()) + 1

    def fit() -> dict[str, np.ndarray]:
        found = fit_linear_probe(points, labels, classes, l2=L2)
        bias = found.bias - (found.origin @ found.weights)
        return {"weights": np.asarray(found.weights), "bias": np.asarray(bias), "passes": np.asarray(found.iterations)}

    return partial(_timed, fit, report)


def sklearn_timer(data: Path | None, labellings: int, report: Path) -> Callable[[], float]:
    """Labelling after labelling, with L-BFGS in float32."""
    from sklearn.linear_model import LogisticRegression

    points, labels = make_problem(data, labellings)

    def fit() -> dict[str, np.ndarray]:
        model = LogisticRegression(C=1 / (L2 * len(points)), max_iter=1000)
        found = [model.fit(points, one) and (model.coef_.T.copy(), model.intercept_.copy()) for one in labels]
        weights, bias = zip(*found, strict=True)
        return {"weights": np.stack(weights), "bias": np.stack(bias)}

    return partial(_timed, fit, report)


def products_timer(data: Path | None, labellings: int) -> Callable[[], float]:
    """`X W` and `X^T R` for all classes of all labellings."""
    import jax
    import jax.numpy as jnp

    from ncjax.ops.products import matmul

    points, labels = make_problem(data, labellings)
    columns = labellings * (int(labels.max()) + 1)
    x, turned = jnp.asarray(points), jnp.asarray(points.T.copy())
    weights = jnp.ones((points.shape[1], columns))
    both = jax.jit(lambda w: matmul(turned, matmul(x, w)))
    return lambda: mean_secs(lambda: both(weights).block_until_ready(), MEASURED_SECS)[0]


def _timed(fit: Callable[[], dict[str, np.ndarray]], report: Path) -> float:
    """Seconds; what was found is saved."""
    secs, found = mean_secs(fit, MEASURED_SECS)
    np.savez(report, **found)  # type: ignore[arg-type]
    return secs


def _losses(points: np.ndarray, labels: np.ndarray, found: dict[str, dict[str, np.ndarray]]) -> list[str]:
    losses = {
        name: [_loss(points, *one) for one in zip(labels, w["weights"], w["bias"], strict=True)]
        for name, w in found.items()
    }
    least = np.min(list(losses.values()), axis=0)
    return [f"{name}: loss up to {np.max(values - least):.1e} nats above the least." for name, values in losses.items()]


def _loss(points: np.ndarray, labels: np.ndarray, weights: Float[np.ndarray, "d c"], bias: np.ndarray) -> float:
    """In float64."""
    from scipy.special import log_softmax

    weights = weights.astype(np.float64)
    own = log_softmax(points.astype(np.float64) @ weights + bias, axis=1)[np.arange(len(labels)), labels]
    return float(L2 / 2 * (weights**2).sum() - own.mean())


def _share(measured: dict[str, Measured], found: dict[str, dict[str, np.ndarray]]) -> list[str]:
    if OURS not in found or not measured[PRODUCTS].values:
        return []
    passes, secs = int(found[OURS]["passes"].max()), np.median(measured[OURS].values)
    share = passes * np.median(measured[PRODUCTS].values) / secs
    return [f"ncjax: {passes} passes; their products alone would take {100 * share:.0f} % of its time."]
