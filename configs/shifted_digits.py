# SPDX-License-Identifier: Apache-2.0
"""Act two of the demo: digits at random places of larger pictures, ten classes merged into five, with all controls.

Command: `ncjax demo`, or `ncjax run configs/shifted_digits.py` for this alone. Hardware: two CPU cores, about a minute.
Expected: docs/demo.md. Unlike centred digits, pixels and a network at random initialisation cluster near chance here.
"""

from ncjax.config import Config, DataConfig, EvaluateConfig, ModelConfig, OptimConfig


def get_config() -> Config:
    return Config(
        name="shifted_digits",
        labels=("mod:5", "fine", "shuffled:mod:5:0"),
        seeds=2,
        data=DataConfig(source="shifted_digits", crop_padding=4),
        model=ModelConfig(name="cnn", width=32),
        optim=OptimConfig(lr=(0.2,), weight_decay=(2e-3,), batch=64, epochs=8, schedule="one_cycle"),
        evaluate=EvaluateConfig(variants=("normalised",)),  # `--evaluate.variants raw normalised` adds the plain one
    )
