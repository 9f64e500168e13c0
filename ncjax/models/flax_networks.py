# SPDX-License-Identifier: Apache-2.0
"""Networks of Flax modules, NNX and Linen, with dropout, BatchNorm and other mutable state."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen, nnx, traverse_util
from jaxtyping import Array, PyTree

from ncjax.errors import UserError
from ncjax.models.network import FEATURES, LOGITS, ImageShape, Network, Variables

Path = tuple[Any, ...]


class _Stream(NamedTuple):
    """One array of the random streams of an NNX module."""

    path: Path
    shape: tuple[int, ...]
    is_key: bool  # else it counts the keys that were taken

    @classmethod
    def of(cls, path: Path, array: Array) -> "_Stream":
        return cls(path, array.shape, bool(jnp.issubdtype(array.dtype, jax.dtypes.prng_key)))


class _Graph(NamedTuple):
    """What of an NNX module is no array to be kept."""

    module: nnx.GraphDef[nnx.Module]
    streams: tuple[_Stream, ...]


def from_nnx(
    factory: Callable[..., Any],
    *,
    classifier: Callable[[Variables], tuple[Array, Array]] | None = None,
    name: str = "",
) -> Network:
    """A network of an NNX module.

    `nnx.Param` is trained; other variables, such as the statistics of `nnx.BatchNorm`, are kept as `batch_stats`.
    Random streams, such as that of `nnx.Dropout`, start from a key of the step in each forward pass; none is kept.

    Example:
        >>> class Net(nnx.Module):
        ...     def __init__(self, image_shape, num_classes, *, rngs):
        ...         height, width, channels = image_shape
        ...         self.first = nnx.Linear(height * width * channels, 32, rngs=rngs)
        ...         self.dropout = nnx.Dropout(0.2, rngs=rngs)
        ...         self.last = nnx.Linear(32, num_classes, rngs=rngs)
        ...
        ...     def __call__(self, images, train):
        ...         x = nnx.relu(self.first(images.reshape(len(images), -1)))
        ...         x = self.dropout(x, deterministic=not train)
        ...         return self.last(x), x
        >>> from_nnx(Net, classifier=lambda v: (v.params["last"]["kernel"], v.params["last"]["bias"])).name
        'Net'

    Args:
        factory: `factory(image_shape, num_classes, rngs=...)` returns a module called as `module(images, train=...)`
            that gives `(logits, features)` or a dictionary of named tensors with these two.
        classifier: as in `Network`.
        name: as in `Network`; empty: that of the factory.
    """

    def init(key: Array, image_shape: ImageShape, num_classes: int) -> Variables:
        model = factory(image_shape, num_classes, rngs=nnx.Rngs(jax.random.fold_in(key, 1), params=key))
        streams = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model, nnx.RngState)))
        graph = _Graph(nnx.graphdef(model), tuple(_Stream.of(path, array) for path, array in streams.items()))
        return Variables(nnx.to_pure_dict(nnx.state(model, nnx.Param)), _others(model), graph)

    def apply(variables: Variables, images: Array, *, train: bool, key: Array) -> tuple[Mapping[str, Array], Variables]:
        graph = variables.graph
        assert isinstance(graph, _Graph)
        streams = _start_streams(graph.streams, key)
        model = nnx.merge(graph.module, variables.params, streams, variables.batch_stats)
        outputs = _named(model(images, train=train), name)
        if not train:
            return outputs, variables
        return outputs, Variables(variables.params, _others(model), graph)

    name = name or getattr(factory, "__qualname__", type(factory).__name__)
    return Network(init=init, apply=apply, classifier=classifier, name=name)


def _others(model: nnx.Module) -> PyTree:
    """What is neither trained nor random, nor what a pass leaves for somebody to look at."""
    others = nnx.Not(nnx.Any(nnx.Param, nnx.RngState, nnx.Intermediate))
    return nnx.to_pure_dict(nnx.state(model, others))


def _start_streams(streams: tuple[_Stream, ...], key: Array) -> PyTree:
    """The random streams, each from a key of its own, with nothing taken from it yet."""

    def start(number: int, stream: _Stream) -> Array:
        if not stream.is_key:
            return jnp.zeros(stream.shape, jnp.uint32)
        own = jax.random.fold_in(key, number)
        return jax.random.split(own, stream.shape) if stream.shape else own

    return traverse_util.unflatten_dict({stream.path: start(i, stream) for i, stream in enumerate(streams)})


def from_linen(
    module: linen.Module,
    *,
    classifier: Callable[[Variables], tuple[Array, Array]] | None = None,
    name: str = "",
) -> Network:
    """A network of a Linen module; its collections other than `params` are kept as `batch_stats`.

    Example:
        `from_linen(Net(num_classes=5))`

    Args:
        module: called as `module(images, train=...)`; it gives `(logits, features)` or a dictionary of named tensors
            with these two. Every random stream, such as `dropout`, starts from a key of the step.
        classifier: as in `Network`.
        name: as in `Network`; empty: that of the module's class.
    """

    def init(key: Array, image_shape: ImageShape, num_classes: int) -> Variables:
        del num_classes
        found = module.init({"params": key}, jnp.zeros((1, *image_shape)), train=False)
        others = {kind: tree for kind, tree in found.items() if kind not in ("params", "intermediates")}
        return Variables(found.get("params", {}), others)

    def apply(variables: Variables, images: Array, *, train: bool, key: Array) -> tuple[Mapping[str, Array], Variables]:
        trees = {"params": variables.params, **variables.batch_stats}
        if not train:
            return _named(module.apply(trees, images, train=False, rngs={"params": key}), name), variables
        kinds = list(variables.batch_stats)
        outputs, changed = module.apply(trees, images, train=True, rngs={"params": key}, mutable=kinds)
        return _named(outputs, name), Variables(variables.params, {**variables.batch_stats, **changed})

    name = name or type(module).__name__
    return Network(init=init, apply=apply, classifier=classifier, name=name)


def _named(outputs: Any, name: str) -> Mapping[str, Array]:
    if isinstance(outputs, Mapping):
        return outputs
    if not isinstance(outputs, tuple | list) or len(outputs) != 2:
        raise UserError(
            f"network {name} returns {type(outputs).__name__}, but must return ({LOGITS}, {FEATURES}) or a dictionary "
            "of named tensors with these two"
        )
    return {LOGITS: outputs[0], FEATURES: outputs[1]}
