# SPDX-License-Identifier: Apache-2.0
"""Networks as a user writes them, with dropout and BatchNorm, and a script that trains one."""

import dataclasses
import sys

from flax import linen, nnx

from ncjax.config import Config, EvaluateConfig, OptimConfig
from ncjax.models import from_nnx
from ncjax.pipeline import train
from tests.bars import bars

CONFIG = Config(
    labels=("mod:5",),
    seeds=4,
    optim=OptimConfig(lr=(0.05,), batch=16, epochs=3, schedule="cosine"),
    evaluate=EvaluateConfig(epochs=(0,), observe_epochs=2, restarts=2),
    chunk_steps=4,
)


class Net(nnx.Module):
    """Convolution, BatchNorm, two dropouts, and a name for an inner stage."""

    def __init__(self, image_shape, num_classes, *, rngs):
        self.conv = nnx.Conv(image_shape[2], 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.first, self.second = nnx.Dropout(0.3, rngs=rngs), nnx.Dropout(0.3, rngs=rngs)
        self.last = nnx.Linear(8, num_classes, rngs=rngs)

    def __call__(self, images, train):
        inner = nnx.relu(self.norm(self.conv(images), use_running_average=not train))
        x = self.first(inner, deterministic=not train).mean(axis=(1, 2))
        x = self.second(x, deterministic=not train)
        return {"logits": self.last(x), "features": x, "inner": inner}


class LinenNet(linen.Module):
    """The same in Linen, without the inner stage."""

    num_classes: int

    @linen.compact
    def __call__(self, images, train):
        x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(linen.Conv(8, (3, 3))(images))
        x = linen.Dropout(0.3, deterministic=not train)(linen.relu(x)).mean(axis=(1, 2))
        return linen.Dense(self.num_classes)(x), x


def last_layer(variables):
    """The classifier of `Net`."""
    return variables.params["last"]["kernel"], variables.params["last"]["bias"]


if __name__ == "__main__":
    often = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, epochs=12), checkpoint_minutes=1e-6)
    train(often, bars(), network=from_nnx(Net, classifier=last_layer), workdir=sys.argv[1])
