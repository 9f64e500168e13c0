# SPDX-License-Identifier: Apache-2.0
"""The ordinary training that the coarse run is compared with: `coarse_cifar10` on all ten classes.

Commands: `ncjax data fetch cifar10`, then `ncjax run fine_cifar10`. Hardware: one accelerator.
Expected: not measured by ncjax yet; ResNet-18 trained so is known to reach about 95 % on the test set.
"""

import dataclasses

from ncjax.config import Config
from ncjax.configs.coarse_cifar10 import get_config as coarse_config


def get_config() -> Config:
    return dataclasses.replace(coarse_config(), name="fine_cifar10", labels=("fine",))
