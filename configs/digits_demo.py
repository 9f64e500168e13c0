# SPDX-License-Identifier: Apache-2.0
"""The demo: scikit-learn's 1,797 digits, ten classes merged into five, with both trained controls.

Command: `ncjax demo` (the same as `ncjax run configs/digits_demo.py`). Hardware: two CPU cores, about a minute.
Expected: see docs/results.md. Raw pixels of digits already cluster well, so this shows that the pipeline works, not
that the effect is surprising; `coarse_cifar10` is the experiment where pixels do not.
"""

from ncjax.config import Config, DataConfig, ModelConfig, OptimConfig


def get_config() -> Config:
    return Config(
        name="digits_demo",
        labels=("mod:5", "fine", "shuffled:mod:5:0"),
        seeds=2,
        data=DataConfig(source="digits"),
        model=ModelConfig(name="cnn", width=16),
        optim=OptimConfig(lr=(0.05,), weight_decay=(5e-4,), batch=64, epochs=40, schedule="one_cycle"),
    )
