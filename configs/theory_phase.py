# SPDX-License-Identifier: Apache-2.0
"""The phase diagram: noise over the start's pre-activations x weight decay times time, eight seeds of each setting.

Command: `ncjax theory configs/theory_phase.py`. Expected numbers and wall-clock: docs/theory.md.
"""

from ncjax.theory.config import DescentConfig, MixtureConfig, NetworkConfig, TheoryConfig


def get_config() -> TheoryConfig:
    return TheoryConfig(
        name="theory_phase",
        seeds=8,
        prediction="leaky",
        mixture=MixtureConfig(dimension=(256,), noise=(0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)),
        network=NetworkConfig(init_scale=(1.0,)),
        descent=DescentConfig(
            steps=1000, lr=(0.1,), weight_decay=(0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08), restarts=1
        ),
    )
