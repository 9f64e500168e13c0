# SPDX-License-Identifier: Apache-2.0
"""A network as two pure functions: what ncjax has to know of one to train it."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ncjax.errors import UserError

ImageShape = tuple[int, int, int]  # height, width, channels
Outputs = dict[str, Float[Array, "b _"]]
LOGITS, FEATURES = "logits", "features"


@partial(jax.tree_util.register_dataclass, data_fields=("params", "batch_stats"), meta_fields=("graph",))
@dataclass(frozen=True)
class Variables:
    """The arrays of one network.

    Attributes:
        params: a tree of what is trained.
        batch_stats: a tree of what a forward pass in training mode changes, such as the statistics of BatchNorm.
        graph: what is no array, such as the graph of an NNX module; the same for all members of a run.

    Example:
        >>> Variables({"kernel": jnp.zeros((4, 2))}).batch_stats
        {}
    """

    params: PyTree
    batch_stats: PyTree = field(default_factory=dict)
    graph: Hashable = None


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network as a pair of pure functions; `ncjax.from_nnx` and `ncjax.from_linen` make one of a Flax module.

    Example:
        >>> def init(key, image_shape, num_classes):
        ...     size = image_shape[0] * image_shape[1] * image_shape[2]
        ...     return Variables({"kernel": jax.random.normal(key, (size, num_classes)) / size**0.5})
        >>> def apply(variables, images, *, train, key):
        ...     features = images.reshape(len(images), -1)
        ...     return {"logits": features @ variables.params["kernel"], "features": features}, variables
        >>> linear = Network(init=init, apply=apply, name="linear")

    Attributes:
        init: `(key, image_shape, num_classes) -> variables` with fresh weights; an image is height, width, channels.
        apply: `(variables, images [b h w ch], *, train, key) -> (outputs, variables)`. Images are normalized float32.
            Outputs are named tensors of `b` rows: at least `logits` `[b num_classes]` and `features` (the input of the
            final linear layer), and any others that are to be evaluated as layers. `key` is for dropout and the like
            when `train` is true, a function of the member's seed and the step. The variables are those after the pass:
            only `batch_stats` may have changed.
        classifier: `variables -> (weights [d c], bias [c])` of the final linear layer, which NC3 and NC4 need; None:
            these are left out.
        name: for config.json and messages.
        width: channels of the first stage, from which the size of an activation is estimated; None: not known.
        spatial: whether activations grow with the number of pixels, as those of convolutions do.
    """

    init: Callable[[Array, ImageShape, int], Variables]
    apply: Callable[..., tuple[Mapping[str, Array], Variables]]
    classifier: Callable[[Variables], tuple[Array, Array]] | None = None
    name: str = "network"
    width: int | None = None
    spatial: bool = True


def check_outputs(outputs: Mapping[str, Any], examples: int, classes: int, name: str) -> Outputs:
    """Outputs of a network as float32 tensors `[b d]`, where they are what a network has to return.

    Raises:
        UserError: they are not named tensors with logits of `classes` columns and features, each of `examples` rows.
    """
    if not isinstance(outputs, Mapping) or not {LOGITS, FEATURES} <= set(outputs):
        found = ", ".join(map(str, outputs)) if isinstance(outputs, Mapping) else type(outputs).__name__
        raise UserError(f"network {name} returns {found}, but must return named tensors with {LOGITS} and {FEATURES}")
    for tensor, array in outputs.items():
        shape = jnp.shape(array)
        if not shape or shape[0] != examples:
            raise UserError(f"network {name}: {tensor} is {list(shape)}, but must have a row for each of the images")
    shape = jnp.shape(outputs[LOGITS])
    if shape != (examples, classes):
        raise UserError(f"network {name}: {LOGITS} are {list(shape)}, but must be [images, {classes}]")
    flat = {tensor: x if x.ndim == 2 else x.reshape(examples, -1) for tensor, x in outputs.items()}
    return {tensor: x.astype(jnp.float32) for tensor, x in flat.items()}
