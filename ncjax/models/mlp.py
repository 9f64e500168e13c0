# SPDX-License-Identifier: Apache-2.0
"""A multilayer perceptron."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ncjax.config import ModelConfig
from ncjax.models.architecture import Architecture
from ncjax.models.layers import Head
from ncjax.models.network import ImageShape, Outputs


class MLP(nnx.Module):
    """Flattened pixels, two hidden ReLU layers of `width` units, linear head. Features have `width` dimensions."""

    def __init__(self, width: int, inputs: int, classes: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.dtype = dtype
        initialise = jax.nn.initializers.he_normal()
        self.first = nnx.Linear(inputs, width, dtype=dtype, kernel_init=initialise, rngs=rngs)
        self.second = nnx.Linear(width, width, dtype=dtype, kernel_init=initialise, rngs=rngs)
        self.head = Head(width, classes, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w ch"], train: bool = False) -> Outputs:
        del train
        x = x.reshape(x.shape[0], -1).astype(self.dtype)
        first = jax.nn.relu(self.first(x))
        second = jax.nn.relu(self.second(first))
        return {"first": first.astype(jnp.float32), "second": second.astype(jnp.float32), **self.head(second)}


def _make(config: ModelConfig, image_shape: ImageShape, classes: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> MLP:
    return MLP(config.width, math.prod(image_shape), classes, dtype=dtype, rngs=rngs)


NETWORK = Architecture(_make, "two hidden layers of the same width, on the pixels", spatial=False)
