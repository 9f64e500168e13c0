# SPDX-License-Identifier: Apache-2.0
"""Makes the file of features that `ncjax demo` evaluates, and measures the controls that it shows beside them.

python docs/scripts/demo_features.py controls docs/bench/demo/controls.json --cifar10 FOLDER
python docs/scripts/demo_features.py features FEATURES.npz docs/bench/demo/controls.json

The first evaluates pixels and ResNet-18s at random initialisation on 5,000 + 5,000 pictures of CIFAR-10 in FOLDER
(binary or pickled, as distributed). The second takes 5,000 + 5,000 rows of the last-layer features of a network
that was trained on coarse labels (`train [n d]`, `train_y [n]`, `test`, `test_y`) at random, keeps their principal
axes, and writes them with where they come from and with the controls to ncjax/data/coarse_cifar10_features.npz.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ncjax import Config, DataConfig, Evaluation, FeatureSet, ModelConfig, OptimConfig, evaluate
from ncjax.data import load_dataset
from ncjax.distributed.environment import environment
from ncjax.features.extraction import extract
from ncjax.features.run import prepare_run
from ncjax.training.state import init_state

ROWS, AXES, SEEDS = 5000, 24, 2
TARGET = Path(__file__).parents[2] / "ncjax" / "data" / "coarse_cifar10_features.npz"
VIEW, LABEL_MAP = "normalised", "mod:5"
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


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    controls = verbs.add_parser("controls")
    controls.add_argument("output", type=Path)
    controls.add_argument("--cifar10", type=Path, required=True)
    features = verbs.add_parser("features")
    features.add_argument("source", type=Path)
    features.add_argument("controls", type=Path)
    given = parser.parse_args()
    if given.verb == "controls":
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(measure_controls(given.cifar10), indent=1) + "\n")
    else:
        write_features(given.source, json.loads(given.controls.read_text()))


def measure_controls(folder: Path) -> dict[str, Any]:
    """Clusters, CLP and probe of pixels, and of networks at random initialisation."""
    data = DataConfig(source="cifar10", path=str(folder), train_examples=ROWS, test_examples=ROWS)
    dataset = load_dataset(data)
    pixels = [split.images[:].reshape(ROWS, -1).astype(np.float32) / 255 for split in (dataset.train, dataset.test)]
    found = {
        "raw pixels": [_scores(FeatureSet.from_arrays(pixels[0], dataset.train.labels, pixels[1], dataset.test.labels))]
    }
    config = Config(labels=(LABEL_MAP,), seeds=SEEDS, data=data, model=ModelConfig(), optim=OptimConfig(batch=100))
    prepared = prepare_run(config, dataset)
    features = extract(prepared, init_state(prepared.spec, prepared.ensemble), dataset)
    found["random initialisation"] = [_scores(features.select([member])) for member in range(SEEDS)]
    now = environment()
    return {
        "command": "python docs/scripts/demo_features.py controls docs/bench/demo/controls.json --cifar10 FOLDER",
        "pictures": f"CIFAR-10 (98 images JPEG): {ROWS} + {ROWS} of it at random",
        "view": VIEW,
        "device": now.device,
        "versions": dict(now.versions),
        "scores": found,
    }


def _scores(features: FeatureSet) -> dict[str, float | None]:
    found: Evaluation = evaluate(features, label_map=LABEL_MAP, views=(VIEW,), metrics=("nc1",), bootstrap=0)
    (row,) = found.rows
    return {
        "clusters": row.value("cluster_accuracy", split="train", view=VIEW),
        "clp": row.value("clp", view=VIEW),
        "probe": row.value("probe"),
    }


def write_features(source: Path, controls: dict[str, Any]) -> None:
    """Writes the file; an array named `provenance` holds JSON."""
    with np.load(source, allow_pickle=False) as content:
        whole = {name: content[name] for name in ("train", "train_y", "test", "test_y")}
    rng, rows = np.random.default_rng(0), {}
    for split in ("train", "test"):
        rows[split] = np.sort(rng.permutation(len(whole[f"{split}_y"]))[:ROWS])
    train, test = _on_principal_axes(*(whole[split][rows[split]].astype(np.float64) for split in ("train", "test")))
    made = {
        "source": f"{source.name}, SHA-256 {hashlib.sha256(source.read_bytes()).hexdigest()}",
        "kept": f"{ROWS} + {ROWS} rows at random, {AXES} principal axes of the kept training rows, float16",
        "script": "python docs/scripts/demo_features.py features FEATURES.npz docs/bench/demo/controls.json",
    }
    np.savez_compressed(
        TARGET,
        train_features=train.astype(np.float16),
        train_labels=whole["train_y"][rows["train"]].astype(np.int8),
        test_features=test.astype(np.float16),
        test_labels=whole["test_y"][rows["test"]].astype(np.int8),
        class_names=np.array(CLASSES),
        provenance=np.array(json.dumps({**PROVENANCE, **made, "controls": controls})),
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
    main()
