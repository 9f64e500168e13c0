# SPDX-License-Identifier: Apache-2.0
"""The lazy limit: a large factor on the output, so that weights and distances hardly move while the loss falls.

Command: `ncjax theory configs/theory_lazy.py`. Expected numbers and wall-clock: docs/theory.md.
"""

from ncjax.theory.config import DescentConfig, MixtureConfig, NetworkConfig, TheoryConfig


def get_config() -> TheoryConfig:
    return TheoryConfig(
        name="theory_lazy",
        seeds=32,
        prediction="lazy",
        mixture=MixtureConfig(dimension=(16,), train=(4,), test=4),
        network=NetworkConfig(width=(8192,), scaling="sqrt", symmetric=True, init_scale=(1.0,), gain=(0.1, 1.0, 10.0)),
        descent=DescentConfig(steps=2000, lr=(0.05,)),
    )
