# SPDX-License-Identifier: Apache-2.0
"""One small network of every architecture, with weights that are nowhere zero or one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ncjax.config import ModelConfig
from ncjax.models import make_model

CLASSES = 5
ARCHITECTURES = {
    "resnet18": (ModelConfig(name="resnet18", width=4), (12, 10, 3)),
    "resnet34": (ModelConfig(name="resnet34", width=2), (8, 8, 1)),
    "resnet50": (ModelConfig(name="resnet50", width=2), (9, 8, 3)),
    "imagenet stem": (ModelConfig(name="resnet18", width=4, stem="imagenet"), (45, 38, 3)),
    "vgg11": (ModelConfig(name="vgg11", width=4), (14, 11, 1)),
    "vgg16": (ModelConfig(name="vgg16", width=2), (32, 32, 3)),
    "densenet": (ModelConfig(name="densenet", width=3, dense_blocks=(2, 3, 1)), (13, 12, 3)),
    "cnn": (ModelConfig(name="cnn", width=4), (9, 8, 2)),
    "mlp": (ModelConfig(name="mlp", width=11), (5, 4, 3)),
}


def arrays_of(model, kind):
    """The variables of one kind, as nested dicts."""
    return nnx.to_pure_dict(nnx.state(model, kind))


SLOW = ("resnet34", "vgg16")  # the same code as resnet18 and vgg11 in other numbers


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in ARCHITECTURES])
def architecture(request):
    """A config and the shape of its images."""
    return ARCHITECTURES[request.param]


@pytest.fixture
def weights():
    """Random parameters and batch statistics of a network of `CLASSES` classes."""

    def make(config, image_shape, seed=0):
        rng = np.random.default_rng(seed)
        model = nnx.eval_shape(
            lambda: make_model(config, image_shape, CLASSES, jnp.dtype("float32"), nnx.Rngs(params=0))
        )

        def draw(path, shape):
            if path[-1].key == "kernel":
                return rng.normal(0, np.sqrt(2 / np.prod(shape.shape[:-1])), shape.shape).astype(np.float32)
            low = 0.5 if path[-1].key in ("scale", "var") else -0.2
            return rng.uniform(low, low + 1, shape.shape).astype(np.float32)

        return tuple(
            jax.tree.map(jnp.asarray, jax.tree.map_with_path(draw, arrays_of(model, kind)))
            for kind in (nnx.Param, nnx.BatchStat)
        )

    return make
