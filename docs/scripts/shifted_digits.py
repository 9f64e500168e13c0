# SPDX-License-Identifier: Apache-2.0
"""How act two of the demo was chosen: networks and trainings on shifted digits, on places that are not reported.

python docs/scripts/shifted_digits.py > docs/bench/demo/tuning.txt

Each run is trained and evaluated as the demo is, but for what is written here; the demo itself, and all that is said of
it, has seed 0 of the generator of places.
"""

import time
from typing import NamedTuple

from ncjax import Config, DataConfig, EvaluateConfig, ModelConfig, OptimConfig, train
from ncjax.data.digits import shifted_digits
from ncjax.pipeline import evaluate_run

VIEWS = ("normalised", "raw")


class Tried(NamedTuple):
    """A run; several rates, decays and label maps are members of it."""

    generator: int  # seed of the places
    lr: tuple[float, ...] = (0.2,)
    decay: tuple[float, ...] = (0.0,)
    labels: tuple[str, ...] = ("mod:5",)
    seeds: int = 1
    epochs: int = 8
    crop: int = 4  # padding of the random crop [pixels]
    controls: bool = False  # pixels and random initialisation too


SHUFFLED = ("mod:5", "shuffled:mod:5:0")
RUNS = (
    Tried(1, lr=(0.05, 0.1, 0.2), epochs=15, crop=2, controls=True),
    Tried(1, labels=("mod:5", "adjacent:5"), epochs=12),
    Tried(2, labels=SHUFFLED, seeds=2, controls=True),
    Tried(1, decay=(0.0, 5e-4), labels=SHUFFLED, epochs=6),
    Tried(2, decay=(2e-3, 5e-3), labels=SHUFFLED),
)


def measure(one: Tried) -> None:
    """Prints the scores of every member and control, in per cent but for the accuracy."""
    config = Config(
        name="tried",
        labels=one.labels,
        seeds=one.seeds,
        data=DataConfig(source="shifted_digits", crop_padding=one.crop),
        model=ModelConfig(name="cnn", width=32),
        optim=OptimConfig(lr=one.lr, weight_decay=one.decay, batch=64, epochs=one.epochs, schedule="one_cycle"),
        evaluate=EvaluateConfig(variants=VIEWS, observe_epochs=0, epochs=(0,) if one.controls else ()),
    )
    cpu, wall = time.process_time(), time.perf_counter()
    run = train(config, shifted_digits(one.generator))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"gen{one.generator} cnn w32 crop{one.crop} ep{one.epochs} b64 one_cycle sgd cpu {cpu:.0f}s wall {wall:.0f}s")
    for row in evaluate_run(run, bootstrap=0, controls=one.controls).rows:
        clusters = [row.value("cluster_accuracy", split="train", view=view) for view in VIEWS]
        clp = [row.value("clp", view=view) for view in VIEWS]
        scores = [
            f"{v}: cl {100 * (a or 0):.1f} clp {100 * (b or 0):.1f}"
            for v, a, b in zip(VIEWS, clusters, clp, strict=True)
        ]
        probe, accuracy = 100 * (row.value("probe") or 0), row.value("accuracy", level="coarse")
        print("   ", row.kind, row.name, *scores, f"probe {probe:.1f} acc {accuracy}", flush=True)


if __name__ == "__main__":
    for one in RUNS:
        measure(one)
