# SPDX-License-Identifier: Apache-2.0
"""Coarse CIFAR-10 on two CPU cores within an hour: the ResNet-18 layout at width 16.

Commands: `ncjax data fetch cifar10`, then `ncjax run coarse_cifar10_cpu`. Hardware: two CPU cores.
Expected: coarse test accuracy 87.0 %, true-label probe 86.2 %, CLP 79.7 to 82.5 % by view and 84.7 % with t-SNE on
CIFAR-10 as JPEG files (`--data.source image_folder --data.path FOLDER`), one seed; 73 minutes on busy cores
(docs/results.md). The trained controls are members of a second run:
`--labels fine shuffled:mod:5:0 --name controls_cifar10_cpu`.
"""

from ncjax.config import Config, DataConfig, EvaluateConfig, ModelConfig, OptimConfig


def get_config() -> Config:
    return Config(
        name="coarse_cifar10_cpu",
        labels=("mod:5",),
        data=DataConfig(source="cifar10", crop_padding=4, flip=True),
        model=ModelConfig(name="resnet18", width=16),
        optim=OptimConfig(lr=(0.2,), weight_decay=(5e-4,), schedule="one_cycle", batch=128, epochs=30),
        evaluate=EvaluateConfig(epochs=(0, 10, 20)),
        chunk_steps=78,
    )
