# SPDX-License-Identifier: Apache-2.0
"""Coarse and fine labels of CIFAR-10, three seeds each, on two CPU cores in 142 minutes: ResNet-18 at width 16.

Command: `ncjax reproduce coarse_cifar10 --scale cores --data FOLDER`, or alone `ncjax run cifar10_two_cores --data.path
FOLDER`, where FOLDER holds cifar-10-batches-py or cifar-10-batches-bin. Hardware: two CPU cores. Expected:
docs/results.md, "CIFAR-10, all pictures, three seeds, two CPU cores". The seven epochs of one-cycle are what two hours
of training hold at the 334 images/s of docs/bench/other/train_resnet18_16_intel.json; the rest are features and
evaluation. `--optim.epochs 200` takes two days.
"""

from ncjax.config import Config, DataConfig, EvaluateConfig, ModelConfig, OptimConfig


def get_config() -> Config:
    return Config(
        name="cifar10_two_cores",
        labels=("mod:5", "fine"),
        seeds=3,
        data=DataConfig(source="cifar10", path="data/cifar-10-batches-py", crop_padding=4, flip=True),
        model=ModelConfig(name="resnet18", width=16),
        optim=OptimConfig(lr=(0.2,), weight_decay=(5e-4,), schedule="one_cycle", batch=128, epochs=7),
        evaluate=EvaluateConfig(epochs=(0,), observe_epochs=1),
        chunk_steps=30,
    )
