# SPDX-License-Identifier: Apache-2.0
"""Weights of one network between our arrays and a PyTorch `state_dict`, lossless both ways."""

from itertools import zip_longest
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

from ncjax.config import ModelConfig
from ncjax.errors import UserError
from ncjax.models import find_network
from ncjax.torch_port.networks import find_twin
from ncjax.torch_port.twin import ImageShape, StateDict

LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "var": "running_var"}
LISTED = 8  # misfits that a message names


def to_state_dict(config: ModelConfig, image_shape: ImageShape, params: PyTree, batch_stats: PyTree) -> StateDict:
    """The float32 `state_dict` of the twin (`networks.make_network`) with these weights.

    Kernels go from `[kh kw i o]` to `[o i kh kw]`, linear ones from `[i o]` to `[o i]`; the first layer of an MLP also
    from pixels in the order `h w ch` to `ch h w`.

    Args:
        config: the network.
        image_shape: height, width and channels of its images.
        params: of one member (no axis `s`), as in `MemberState.params`.
        batch_stats: of the same member.
    """
    twin = find_twin(config.name)
    names = twin.layer_names(config)
    flat = traverse_util.flatten_dict(params) | traverse_util.flatten_dict(batch_stats)
    state = {}
    for (*layer, leaf), array in flat.items():
        name, value = names[tuple(layer)], np.asarray(array, np.float32)
        if name == twin.flattened and leaf == "kernel":
            value = value.reshape(*image_shape, -1).transpose(2, 0, 1, 3).reshape(value.shape)
        state[f"{name}.{LEAVES[leaf]}"] = _swap_kernel(value, to_torch=True)
    return state


def from_state_dict(
    config: ModelConfig, image_shape: ImageShape, classes: int, state: StateDict
) -> tuple[PyTree, PyTree]:
    """Parameters and batch statistics of one member from the `state_dict` of the twin; the inverse of `to_state_dict`.

    Raises:
        UserError: tensors are missing, left over or of another shape; they are named with their shapes.
    """
    twin = find_twin(config.name)
    names = twin.layer_names(config)
    height, width, channels = image_shape
    expected = _zeros(config, image_shape, classes)
    _check_fit(config, to_state_dict(config, image_shape, *expected), state)

    def array(path: tuple[Any, ...]) -> jax.Array:
        *layer, leaf = path
        name = names[tuple(layer)]
        value = _swap_kernel(state[f"{name}.{LEAVES[leaf]}"], to_torch=False)
        if name == twin.flattened and leaf == "kernel":
            value = value.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(value.shape)
        return jnp.asarray(value)

    params, batch_stats = (
        traverse_util.unflatten_dict({path: array(path) for path in traverse_util.flatten_dict(tree)})
        for tree in expected
    )
    return params, batch_stats


def _zeros(config: ModelConfig, image_shape: ImageShape, classes: int) -> tuple[PyTree, PyTree]:
    """Parameters and statistics of the right shapes."""
    shapes = jax.eval_shape(lambda: find_network(config).init(jax.random.key(0), image_shape, classes))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    return zeros.params, zeros.batch_stats


def _swap_kernel(value: np.ndarray, *, to_torch: bool) -> np.ndarray:
    """A copy in the other framework's order of axes."""
    if value.ndim == 4:
        value = value.transpose((3, 2, 0, 1) if to_torch else (2, 3, 1, 0))
    return np.array(value.T if value.ndim == 2 else value, order="C")


def _check_fit(config: ModelConfig, expected: StateDict, state: StateDict) -> None:
    missing = [f"{name} {_shape(expected[name])} is missing" for name in expected if name not in state]
    foreign = [f"{name} {_shape(state[name])} has no place" for name in state if name not in expected]
    differing = [
        f"{name} is {_shape(state[name])}, but must be {_shape(expected[name])}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    misfits = [line for lines in zip_longest(missing, foreign, differing) for line in lines if line is not None]
    if misfits:
        more = f"; and {len(misfits) - LISTED} more" if len(misfits) > LISTED else ""
        raise UserError(
            f"these weights are not those of a {config.name} of width {config.width} "
            f"({len(misfits)} tensors do not fit): {'; '.join(misfits[:LISTED])}{more}"
        )


def _shape(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape)) or "scalar"
