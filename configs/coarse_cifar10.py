# SPDX-License-Identifier: Apache-2.0
"""The main experiment: ResNet-18 on CIFAR-10 with five coarse labels, coarse = fine mod 5, to convergence.

Commands: `ncjax data fetch cifar10`, then `ncjax run coarse_cifar10`; or `--data.path FOLDER` with the folder of its
files, or with TFDS `--data.source tfds --data.tfds-name cifar10`. Hardware: one accelerator; `--mesh.data N` spreads
the batch over N.
Expected: Yang, Steinhardt and Hu (ICML 2023) report 93 % test accuracy for labels reconstructed from such a network.
This full run has not been measured by ncjax yet; `coarse_cifar10_cpu` has (docs/results.md).
"""

from ncjax.config import Config, DataConfig, EvaluateConfig, ModelConfig, OptimConfig


def get_config() -> Config:
    return Config(
        name="coarse_cifar10",
        labels=("mod:5",),
        data=DataConfig(source="cifar10", crop_padding=4, flip=True),
        model=ModelConfig(name="resnet18", width=64),
        optim=OptimConfig(
            lr=(0.1,), weight_decay=(5e-4,), momentum=0.9, nesterov=True, schedule="step", batch=128, epochs=200
        ),
        evaluate=EvaluateConfig(epochs=(0, 50, 100, 150)),
        chunk_steps=130,
    )
