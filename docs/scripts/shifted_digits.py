# SPDX-License-Identifier: Apache-2.0
"""How act two of the demo was chosen: other networks and trainings on shifted digits, on places that are not reported.

python docs/scripts/shifted_digits.py docs/bench/demo/tuning.json --generator-seeds 1 2

Each setting is trained with two seeds on coarse labels (class mod 5) for each seed of the generator, and evaluated as
the demo is; the demo itself, and everything that is said of it, has the generator's seed 0.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ncjax import Config, DataConfig, EvaluateConfig, ModelConfig, OptimConfig, train
from ncjax.data.digits import shifted_digits
from ncjax.distributed.environment import environment
from ncjax.pipeline import evaluate_run

VIEW = EvaluateConfig.headline


class Setting(NamedTuple):
    """What differs between two of those tried."""

    model: str = "cnn"
    width: int = 32
    crop: int = 2  # padding of the random crop [pixels]
    epochs: int = 15
    batch: int = 64
    lr: float = 0.05
    decay: float = 0.0


SETTINGS = (
    Setting(),
    Setting(decay=5e-4),
    Setting(decay=2e-3),
    Setting(crop=0),
    Setting(epochs=30),
    Setting(width=16),
    Setting(lr=0.1),
    Setting(lr=0.02),
    Setting(batch=128, lr=0.1),
)


def measure(setting: Setting, generator: int) -> dict[str, Any]:
    """Clusters, CLP, probe and accuracies of one setting."""
    config = Config(
        name="tuning",
        labels=("mod:5",),
        seeds=2,
        data=DataConfig(source="shifted_digits", crop_padding=setting.crop),
        model=ModelConfig(name=setting.model, width=setting.width),
        optim=OptimConfig(
            lr=(setting.lr,),
            weight_decay=(setting.decay,),
            batch=setting.batch,
            epochs=setting.epochs,
            schedule="one_cycle",
        ),
        evaluate=EvaluateConfig(variants=(VIEW,)),
    )
    started = time.perf_counter()
    run = train(config, shifted_digits(generator))
    secs = time.perf_counter() - started
    found = evaluate_run(run, bootstrap=0)
    scores: dict[str, Any] = {}
    for row in found.rows:
        number = {
            "clusters": row.value("cluster_accuracy", split="train", view=VIEW),
            "clp": row.value("clp", view=VIEW),
            "probe": row.value("probe"),
            "coarse_test": row.value("accuracy", level="coarse"),
        }
        scores.setdefault(row.kind, []).append({name: x if x is None else round(x, 4) for name, x in number.items()})
    return {**setting._asdict(), "generator_seed": generator, "train_secs": round(secs, 1), "scores": scores}


def run_all(output: Path, generators: Sequence[int], settings: Sequence[Setting] = SETTINGS) -> None:
    """Measures every setting, and writes after each."""
    now = environment()
    content: dict[str, Any] = {
        "command": f"python docs/scripts/shifted_digits.py {output} --generator-seeds {' '.join(map(str, generators))}",
        "device": now.device,
        "versions": dict(now.versions),
        "view": VIEW,
        "settings": [],
    }
    for setting in settings:
        for generator in generators:
            found = measure(setting, generator)
            content["settings"].append(found)
            clusters = {kind: [one["clusters"] for one in ones] for kind, ones in found["scores"].items()}
            print(f"{setting} generator {generator}: {found['train_secs']} s, clusters {clusters}", flush=True)
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--generator-seeds", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    run_all(given.output, given.generator_seeds)
