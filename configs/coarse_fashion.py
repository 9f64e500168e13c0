# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST with five coarse labels, and both trained controls (fine labels, shuffled labels): three members.

Commands: `ncjax data fetch fashion_mnist`, then `ncjax run coarse_fashion`; or `--data.path FOLDER` with the folder of
its four IDX files, gzipped or not. Hardware: two CPU cores. Expected: coarse test accuracy 93.2 %, true-label probe
93.2 %, CLP 88.2 to 92.6 % by view; trained on the fine labels 93.0 %; one seed (docs/results.md).
"""

from ncjax.config import Config, DataConfig, EvaluateConfig, ModelConfig, OptimConfig


def get_config() -> Config:
    return Config(
        name="coarse_fashion",
        labels=("mod:5", "fine", "shuffled:mod:5:0"),
        data=DataConfig(source="fashion_mnist", crop_padding=2, flip=True),
        model=ModelConfig(name="resnet18", width=8),
        optim=OptimConfig(lr=(0.2,), weight_decay=(5e-4,), schedule="one_cycle", batch=128, epochs=15),
        evaluate=EvaluateConfig(epochs=(0, 5, 10)),
        chunk_steps=78,
    )
