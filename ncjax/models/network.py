# SPDX-License-Identifier: Apache-2.0
"""What ncjax has to know of a network to train it."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ncjax.config import ModelConfig

ImageShape = tuple[int, int, int]  # height, width, channels
Outputs = dict[str, Float[Array, "b _"]]
Make = Callable[[ModelConfig, ImageShape, int, jnp.dtype, nnx.Rngs], nnx.Module]


class Network(NamedTuple):
    """A kind of network, with its name in `NETWORKS`.

    Attributes:
        make: `(config, image_shape, classes, dtype, rngs)` -> a module with fresh float32 weights that computes in
            `dtype`. It is called as `module(images [b h w ch], train)` and returns named float32 tensors `[b ...]`: at
            least `logits` and `features` (the input of the final linear layer), and its inner stages, averaged over
            positions. Raises `UserError` where the images do not suit the network.
        spatial: whether activations grow with the number of pixels, as those of convolutions do.
    """

    make: Make
    spatial: bool = True
