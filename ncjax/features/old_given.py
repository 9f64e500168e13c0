# SPDX-License-Identifier: Apache-2.0
"""Features that a user brings: checked, measured, with a reason for everything that is left out."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.evaluation.clp import Clusters, FeatureArrays, cluster_super_classes, score_clusters
from ncjax.collapse.measure import BLOCK_BYTES, Classifier, Labelled
from ncjax.evaluation.linear_probe import fit_probe, probe_predict
from ncjax.evaluation.simple_probes import few_shot, nearest_neighbours, ridge_probe
from ncjax.evaluation.old_table import collapse_table
from ncjax.evaluation.uncertainty import bootstrap as bootstrap_deviations
from ncjax.config import Variant
from ncjax.errors import UserError
from ncjax.data.label_maps import parse_label_maps

NEIGHBOURS, SHOTS = 20, 5
PROBE_BYTES = 2**32  # of training features that probes hold in memory


def evaluate_arrays(
    train: Any,
    train_labels: Any,
    test: Any = None,
    test_labels: Any = None,
    *,
    label_map: str | Sequence[int] | None = None,
    weights: Any = None,
    bias: Any = None,
    variants: tuple[Variant, ...] = ("raw", "normalised", "residual_pca"),
    bootstrap: int = 0,
) -> dict[str, Any]:
    """Everything that ncjax measures, of NumPy or PyTorch arrays of any float type; computed in float32.

    Args:
        train: features `[n d]`; `numpy.memmap` and the like are read a block at a time.
        train_labels: fine labels `[n]`, whole numbers from 0.
        test: features `[m d]`; none: what needs them is left out.
        test_labels: fine labels `[m]`.
        label_map: a spec such as `mod:5` or `file:map.json`, or the coarse label of each fine class; none: what needs
            coarse labels is left out.
        weights: of a linear classifier of the coarse or of the fine classes, `[classes d]`, as in `torch.nn.Linear`.
        bias: of that classifier, `[classes]`; none: 0.
        variants: views for CLP.
        bootstrap: resamples for the standard deviations of the measures of collapse; 0: none.

    Returns:
        Plain content: `collapse[split][part][measure]`, `collapse_std` of the same form, `probes`, `clp`,
        `class_distances` `[f f]` and `left_out`, lines that say what is missing and why.

    Raises:
        UserError: arrays do not fit each other, or a label is out of range; rows with NaN are left out instead.
    """
    data, notes = _labelled("train", train, train_labels)
    held, more = _labelled("test", test, test_labels) if test is not None else (None, [])
    if held is not None and held.rows.shape[1] != data.rows.shape[1]:
        raise UserError(f"train has {data.rows.shape[1]} features and test {held.rows.shape[1]}; give the same layer")
    super_class = _super_class(label_map, data, held)
    classifier = _classifier(weights, bias, data.rows.shape[1])
    with ThreadPoolExecutor(1) as pool:  # probes are compiled, which takes longest, beside the rest
        probing = pool.submit(_probes, data, held, super_class, variants)
        table = collapse_table(data, held, super_class, classifier)
        spread = bootstrap_deviations(data, held, super_class, classifier, bootstrap) if bootstrap else None
        probes, clp, without = probing.result()
    return {
        "shapes": {"train": list(data.rows.shape), "test": list(held.rows.shape) if held else None},
        "super_class": list(super_class),
        "collapse": table.values,
        "collapse_std": spread,
        "bootstrap": bootstrap,
        "probes": probes,
        "clp": clp,
        "class_distances": table.class_distances.astype(float).tolist(),
        "left_out": [*notes, *more, *table.left_out, *without],
    }


def to_numpy(array: Any) -> np.ndarray:
    """A NumPy array of a PyTorch tensor or of anything like an array; bfloat16 stays, or becomes float32."""
    if hasattr(array, "detach"):  # a tensor, without importing PyTorch
        array = array.detach().cpu()
        array = array.float() if str(array.dtype) == "torch.bfloat16" else array
        return np.asarray(array.numpy())
    array = array if isinstance(array, np.ndarray) else np.asarray(array)
    return array.view(jnp.bfloat16) if array.dtype == np.dtype("V2") else array  # as np.save writes bfloat16


def _labelled(name: str, features: Any, labels: Any) -> tuple[Labelled, list[str]]:
    rows = to_numpy(features)
    if rows.ndim != 2 or 0 in rows.shape:
        raise UserError(f"{name} features are {list(rows.shape)}, but must be [examples, features], none of them 0")
    if rows.dtype != np.dtype(jnp.bfloat16) and rows.dtype.kind not in "fiu":
        raise UserError(f"{name} features are of type {rows.dtype}, but must be numbers, such as float32")
    if labels is None:
        raise UserError(f"{name} features have no labels; give the fine label of each example")
    fine = _labels(name, to_numpy(labels), len(rows))
    finite = _finite_rows(rows)
    bad = np.flatnonzero(~finite).tolist()
    if len(bad) == len(rows):
        raise UserError(f"every row of the {name} features holds NaN or infinite numbers; was the training diverging?")
    if not bad:
        return Labelled(rows, fine), []
    shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    note = f"{name}: {len(bad)} of {len(rows)} rows, which hold NaN or infinite numbers (rows {shown})"
    return Labelled(rows, fine, finite.astype(np.float32)), [note]


def _labels(name: str, labels: np.ndarray, count: int) -> np.ndarray:
    if labels.ndim != 1:
        raise UserError(f"{name} labels are {list(labels.shape)}, but must be [examples]: one whole number each")
    if len(labels) != count:
        raise UserError(f"{name} has {count} rows of features and {len(labels)} labels; give one label a row")
    if labels.dtype.kind not in "iuf" or not (labels == np.floor(labels)).all():
        raise UserError(f"{name} labels are of type {labels.dtype}, but must be whole numbers 0, 1, ...")
    if labels.min() < 0:
        raise UserError(f"{name} label {labels.min()} of row {labels.argmin()} is out of range; labels start at 0")
    return labels.astype(np.int32)


def _finite_rows(rows: np.ndarray) -> np.ndarray:
    size = max(1, BLOCK_BYTES // (4 * rows.shape[1]))
    parts = [np.asarray(rows[first : first + size], np.float32) for first in range(0, len(rows), size)]
    return np.concatenate([np.isfinite(part).all(axis=1) for part in parts])


def _super_class(spec: str | Sequence[int] | None, train: Labelled, test: Labelled | None) -> tuple[int, ...]:
    largest = {"train": train.fine.max(), **({"test": test.fine.max()} if test else {})}
    classes = int(max(largest.values())) + 1
    if classes < 2:
        raise UserError("all labels are 0, but collapse is measured between two classes or more")
    if spec is None:
        return tuple(range(classes))
    if isinstance(spec, str):
        (found,) = parse_label_maps((spec,), tuple(map(str, range(classes))))
        if found.super_class is None:
            raise UserError(f"label map {spec} does not merge classes; use one such as mod:5 or file:map.json")
        return found.super_class
    given = tuple(int(label) for label in spec)
    for name, label in largest.items():
        if label >= len(given):
            raise UserError(f"{name} label {label} is out of range: the label map has {len(given)} classes, from 0")
    if sorted(set(given)) != list(range(max(given) + 1)):
        raise UserError(f"label map {list(given)} must give coarse labels 0, 1, ... with none left out")
    return given


def _classifier(weights: Any, bias: Any, features: int) -> Classifier | None:
    if weights is None:
        return None
    array = np.asarray(to_numpy(weights), np.float32)
    if array.ndim != 2 or array.shape[1] != features:
        raise UserError(f"classifier weights are {list(array.shape)}, but must be [classes, {features}]")
    offset = np.zeros(len(array), np.float32) if bias is None else np.asarray(to_numpy(bias), np.float32)
    if offset.shape != (len(array),):
        raise UserError(f"classifier bias is {list(offset.shape)}, but must be [{len(array)}], as its weights have it")
    if not (np.isfinite(array).all() and np.isfinite(offset).all()):
        raise UserError("classifier weights or bias hold NaN or infinite numbers; was the training diverging?")
    return Classifier(jnp.asarray(array), jnp.asarray(offset))


def _probes(
    train: Labelled, test: Labelled | None, super_class: tuple[int, ...], variants: tuple[Variant, ...]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Test accuracies of probes on the fine labels, CLP, and lines that say what is missing."""
    if test is None:
        return {}, {}, ["probes and clp: there is no test split"]
    if 4 * np.prod(train.rows.shape) > PROBE_BYTES:
        return {}, {}, [f"probes and clp: the training features are larger than {PROBE_BYTES // 2**30} GiB"]
    (x, y), (z, w) = ((np.asarray(s.rows, np.float32)[s.counts > 0], s.fine[s.counts > 0]) for s in (train, test))
    arrays = FeatureArrays(train=x, train_fine=y, test=z, test_fine=w)
    found, left_out = _clusters(arrays, super_class, variants)
    labels = np.stack([y, *(clusters.train for clusters in found.values())])
    logistic = fit_probe(jnp.asarray(x), jnp.asarray(labels), len(super_class))
    held, *predicted = np.asarray(probe_predict(logistic, jnp.asarray(z)))
    clp: dict[str, Any] = {
        view: asdict(score_clusters(arrays, clusters, by, super_class))
        for (view, clusters), by in zip(found.items(), predicted, strict=True)
    }
    seen = np.asarray(probe_predict(logistic, jnp.asarray(x)))[0]
    probes = {
        "logistic_train": float((seen == y).mean()),
        "logistic_test": float((held == w).mean()),
        "logistic_converged": bool(logistic.converged[0]),
        **simple_probes(arrays, len(super_class)),
    }
    return probes, clp, left_out


def _clusters(
    features: FeatureArrays, super_class: tuple[int, ...], variants: tuple[Variant, ...]
) -> tuple[dict[Variant, Clusters], list[str]]:
    """Clusters of each view, or none and a line that says why."""
    if not variants:
        return {}, []
    if max(super_class) + 1 == len(super_class):
        return {}, ["clp: no label map that merges classes"]
    try:
        key = jax.random.key(0)
        return {view: cluster_super_classes(key, features, super_class, view) for view in variants}, []
    except UserError as error:
        return {}, [f"clp: {error}"]


def simple_probes(features: FeatureArrays, classes: int) -> dict[str, Any]:
    """Test accuracies in [0, 1] of the probes on fine labels that need no iterations."""
    x, y, z, w = map(jnp.asarray, (features.train, features.train_fine, features.test, features.test_fine))
    episodes = few_shot(jax.random.key(0), x, y, z, w, classes, shots=SHOTS)
    neighbours = min(NEIGHBOURS, len(y))
    return {
        "ridge_test": float((ridge_probe(x, y, classes).predict(z) == w).mean()),
        "knn_test": float((nearest_neighbours(x, y, z, classes, neighbours) == w).mean()),
        "knn_neighbours": neighbours,
        "few_shot_test": float(episodes.mean()),
        "few_shot_std": float(episodes.std()),
        "few_shot_shots": SHOTS,
    }
