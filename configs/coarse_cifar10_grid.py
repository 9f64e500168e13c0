# SPDX-License-Identifier: Apache-2.0
"""The grid of the paper, learning rate {1e-1, 1e-2, 1e-3} x weight decay {5e-3, 5e-4, 5e-5}, five seeds: 45 members.

Commands: `ncjax data fetch cifar10`, then `ncjax run coarse_cifar10_grid --mesh.member 9`. Hardware: as many
accelerators as the mesh has places; the members are spread over the member axis. Expected: not measured by ncjax yet.
"""

import dataclasses

from ncjax.config import Config, EvaluateConfig
from ncjax.configs.coarse_cifar10 import get_config as coarse_config


def get_config() -> Config:
    coarse = coarse_config()
    return dataclasses.replace(
        coarse,
        name="coarse_cifar10_grid",
        seeds=5,
        optim=dataclasses.replace(coarse.optim, lr=(1e-1, 1e-2, 1e-3), weight_decay=(5e-3, 5e-4, 5e-5)),
        evaluate=EvaluateConfig(epochs=()),
    )
