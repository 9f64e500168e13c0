# SPDX-License-Identifier: Apache-2.0
"""An evaluation of features larger than the memory it is given: `python docs/scripts/larger_than_memory.py [N] [GIB]`.

Makes a folder of N Gaussian points (1,000,000 by default) in 512 dimensions, float16, of 100 classes in 20
super-classes, with 10,000 test points; evaluates it with GIB of memory (2 by default). Prints the peak of resident
memory, the passes over the file, and the time, beside that of plain passes: each reads and converts every block and
does both products of the probe at the same number of columns.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ncjax.collapse.reading import Labelled, blocks
from ncjax.evaluation.evaluator import DEFAULT_VIEWS, evaluate
from ncjax.features.feature_set import FeatureSet
from ncjax.ops.products import matmul
from ncjax.storage.npy_rows import NpyRows

D, CLASSES, SUPER_CLASSES, TEST = 512, 100, 20, 10_000
APART = 5.0  # deviations between two classes, about
BLOCK, PLAIN_PASSES = 2**15, 3


def main() -> None:
    """Make, evaluate, compare."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    budget = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), n)
        features = FeatureSet.open(folder)
        (rows,) = features.train.layers["features"]
        assert isinstance(rows, NpyRows)
        before, started = peak_gib(), time.perf_counter()
        label_map = tuple(label % SUPER_CLASSES for label in range(CLASSES))
        found = evaluate(features, label_map=label_map, memory_gib=budget, on_event=lambda event: log(event, started))
        secs, passes = time.perf_counter() - started, rows.passes
        plain = [plain_pass(rows, features.train.labels) for _ in range(PLAIN_PASSES)]
    (row,) = found.rows
    shown = {"n": n, "d": D, "dtype": "float16", "file_gib": round(2 * n * D / 2**30, 3), "budget_gib": budget}
    shown |= {"peak_gib": round(peak_gib(), 2), "peak_before_gib": round(before, 2), "passes": round(passes, 2)}
    shown |= {"secs": round(secs, 1), "plain_pass_secs": [round(one, 2) for one in plain]}
    shown |= {"ratio": round(secs / (passes * float(np.median(plain))), 2), "left_out": row.left_out}
    values = {f"{m.metric} {m.split} {m.view or m.level}": m.value for m in row.measurements if m.metric in VALUES}
    print(json.dumps({**shown, "values": values, "jax": jax.__version__, "runs": 1}, indent=1))


VALUES = ("probe", "probe_converged", "ridge_probe", "knn_probe", "few_shot", "clp", "cluster_accuracy")


def write(folder: Path, n: int) -> None:
    """The four files; classes of a super-class differ less than super-classes do."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((SUPER_CLASSES, D), np.float32)[np.arange(CLASSES) % SUPER_CLASSES]
    centres = (2 * centres + rng.standard_normal((CLASSES, D), np.float32)) * APART / np.sqrt(2 * D)
    for split, count in (("train", n), ("test", TEST)):
        labels = rng.integers(0, CLASSES, count).astype(np.int32)
        np.save(folder / f"{split}_labels.npy", labels)
        points = np.lib.format.open_memmap(folder / f"{split}_features.npy", "w+", np.float16, (count, D))
        for first in range(0, count, BLOCK):
            part = labels[first : first + BLOCK]
            points[first : first + BLOCK] = centres[part] + rng.standard_normal((len(part), D), np.float32)
        points.flush()


def log(event: object, started: float) -> None:
    """Progress, on stderr."""
    print(f"{time.perf_counter() - started:.1f} s: {event}, peak {peak_gib():.2f} GiB", file=sys.stderr)


def peak_gib() -> float:
    """Resident memory at its peak, pages of files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def plain_pass(rows: NpyRows, labels: np.ndarray) -> float:
    """Seconds of reading and converting every block, and of two products with as many columns as the probe has."""
    columns = CLASSES * (1 + len(DEFAULT_VIEWS))
    weights, sums = jnp.ones((D, columns)), jnp.zeros((D, columns))
    started = time.perf_counter()
    for block in blocks(Labelled(rows, labels)):
        sums = both_products(block.features, weights, sums)
    sums.block_until_ready()
    return time.perf_counter() - started


@jax.jit
def both_products(
    block: Float[Array, "b d"], weights: Float[Array, "d c"], sums: Float[Array, "d c"]
) -> Float[Array, "d c"]:
    """`X^T (X W)`, added to what there is."""
    return sums + matmul(block.T, matmul(block, weights))


if __name__ == "__main__":
    main()
