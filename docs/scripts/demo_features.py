# SPDX-License-Identifier: Apache-2.0
"""Makes the file of features that `ncjax demo` evaluates: `python docs/scripts/demo_features.py FEATURES.npz`.

It takes 5,000 + 5,000 rows of the last-layer features of a network that was trained on coarse labels (`train [n d]`,
`train_y [n]`, `test`, `test_y`) at random, keeps their principal axes, and writes them to
ncjax/data/coarse_cifar10_features.npz, with where they come from and with the controls that the demo shows beside them:
pixels and random initialisation as `ncjax run configs/coarse_cifar10_cpu.py` measured them (docs/results.md).
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ncjax import Evaluation

ROWS, AXES = 5000, 24
ROOT = Path(__file__).parents[2]
TARGET = ROOT / "ncjax" / "data" / "coarse_cifar10_features.npz"
CONTROLS = ROOT / "docs" / "logs" / "coarse_cifar10_cpu" / "results" / "evaluation.json"
VIEW = "normalised"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PROVENANCE = {
    "network": "ResNet-18 of width 64 with the CIFAR stem, input of its last layer, in eval mode",
    "labels": "class mod 5, five coarse labels",
    "command": "ncjax train configs/coarse_cifar10.py --optim.dtype bfloat16 --optim.batch 512 --optim.lr 0.2 "
    "--chunk-steps 97 --evaluate.epochs 0",
    "training": "200 epochs, SGD with Nesterov momentum 0.9, weight decay 5e-4, step schedule, crop and flip; n = 1",
    "hardware": "one NVIDIA H200; Python 3.12, JAX 0.11.2, Flax 0.12.10",
    "pictures": "CIFAR-10 as 32x32 JPEG of quality 75",
    "coarse_test_accuracy": 0.911,
    "fine_label_network": {
        "command": "ncjax train configs/fine_cifar10.py, with the same options, on the same pictures",
        "test_accuracy": 0.911,
    },
}


def read_controls() -> dict[str, Any]:
    """Clusters, CLP and probe of pixels and of a network at random initialisation, and how they were measured."""
    found = Evaluation.from_json(CONTROLS.read_text())
    scores = {}
    for row in found.rows:
        if row.kind in ("raw_pixels", "random_init"):
            scores[row.kind] = {
                "clusters": row.value("cluster_accuracy", split="train", view=VIEW),
                "clp": row.value("clp", view=VIEW),
                "probe": row.value("probe"),
            }
    return {
        "command": found.provenance.command,
        "network": "ResNet-18's layout at width 16",
        "pictures": "all of CIFAR-10 as 32x32 JPEG of quality 75; n = 1",
        "device": found.provenance.device,
        "log": str(CONTROLS.relative_to(ROOT)),
        "scores": scores,
    }


def write_features(source: Path) -> None:
    """Writes the file; an array named `provenance` holds JSON."""
    with np.load(source, allow_pickle=False) as content:
        whole = {name: content[name] for name in ("train", "train_y", "test", "test_y")}
    rng, rows = np.random.default_rng(0), {}
    for split in ("train", "test"):
        rows[split] = np.sort(rng.permutation(len(whole[f"{split}_y"]))[:ROWS])
    train, test = _on_principal_axes(*(whole[split][rows[split]].astype(np.float64) for split in ("train", "test")))
    made = {
        "source": f"{source.name}, SHA-256 {hashlib.sha256(source.read_bytes()).hexdigest()}",
        "kept": f"{ROWS} + {ROWS} rows at random on {AXES} principal axes of the kept training rows, as float16",
        "script": f"python docs/scripts/demo_features.py {source.name}",
    }
    np.savez_compressed(
        TARGET,
        train_features=train.astype(np.float16),
        train_labels=whole["train_y"][rows["train"]].astype(np.int8),
        test_features=test.astype(np.float16),
        test_labels=whole["test_y"][rows["test"]].astype(np.int8),
        class_names=np.array(CLASSES),
        provenance=np.array(json.dumps({**PROVENANCE, **made, "controls": read_controls()})),
    )
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


def _on_principal_axes(
    train: Float[np.ndarray, "n d"], test: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "m p"]]:
    """Both splits on the first principal axes of the training rows, about their mean."""
    mean = train.mean(axis=0)
    axes = np.linalg.svd(train - mean, full_matrices=False)[2][:AXES].T
    return (train - mean) @ axes, (test - mean) @ axes


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    write_features(parser.parse_args().source)
