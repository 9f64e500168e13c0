# SPDX-License-Identifier: Apache-2.0
"""A built-in kind of network: an NNX module that follows from the config."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from ncjax.config import ModelConfig
from ncjax.models.flax_networks import from_nnx
from ncjax.models.network import ImageShape, Network, Variables

Make = Callable[[ModelConfig, ImageShape, int, jnp.dtype, nnx.Rngs], nnx.Module]


@dataclass(frozen=True)
class Architecture:
    """A line of `NETWORKS`; called with a config and a type, it gives the network.

    Attributes:
        make: `(config, image_shape, classes, dtype, rngs)` -> a module with fresh float32 weights that computes in
            `dtype`. It is called as `module(images [b h w ch], train)` and returns named float32 tensors `[b ...]`: at
            least `logits` and `features` (the input of the final linear layer, which is `module.head.linear`), and its
            inner stages, averaged over positions. Raises `UserError` where the images do not suit the network.
        summary: what it is, in one line.
        spatial: as in `Network`.
    """

    make: Make
    summary: str
    spatial: bool = True

    def __call__(self, config: ModelConfig, dtype: jnp.dtype) -> Network:
        def factory(image_shape: ImageShape, num_classes: int, *, rngs: nnx.Rngs) -> nnx.Module:
            return self.make(config, image_shape, num_classes, dtype, rngs)

        network = from_nnx(factory, classifier=_classifier, name=config.name)
        return dataclasses.replace(network, width=config.width, spatial=self.spatial)


def _classifier(variables: Variables) -> tuple[Array, Array]:
    linear = variables.params["head"]["linear"]
    return linear["kernel"], linear["bias"]
