# SPDX-License-Identifier: Apache-2.0
"""Frozen gates: no noise, orthonormal means, small start; the cosine in a label goes from 1/pi to 1/2 and stays.

Command: `ncjax theory configs/theory_frozen.py`. Expected numbers and wall-clock: docs/theory.md.
"""

from ncjax.theory.config import DescentConfig, MixtureConfig, NetworkConfig, TheoryConfig


def get_config() -> TheoryConfig:
    return TheoryConfig(
        name="theory_frozen",
        seeds=32,
        prediction="frozen",
        mixture=MixtureConfig(dimension=(16,), train=(4,), test=4),
        network=NetworkConfig(width=(8192,), init_scale=(0.1,)),
        descent=DescentConfig(steps=2000, lr=(0.05,), weight_decay=(0.0, 0.05), records=24),
    )
