# SPDX-License-Identifier: Apache-2.0
"""A shallow network, its losses and its descent.

`f(x) = gain * m^-p * A^T phi(W^T x)`: with one output the rows of `A` alternate between +1 and -1, with one output for
each label they are the vertices of a simplex, `A_jk = 1` where `k = j mod c`, else `-1 / (c - 1)`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from ncjax.theory.config import DescentConfig, NetworkConfig, Settings

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda h: jnp.maximum(h, 0.0),
    "leaky_relu": lambda h: jnp.maximum(h, 0.1 * h),
    "gelu": lambda h: jax.nn.gelu(h, approximate=False),
    "erf": jax.scipy.special.erf,
    "linear": lambda h: h,
}
POWERS = {"mean": 1.0, "sqrt": 0.5}


class ShallowNetwork(NamedTuple):
    """The weights."""

    first: Float[Array, "d m"]
    deeper: tuple[Float[Array, "m m"], ...]
    output: Float[Array, "m o"]


def label_code(labels: int, loss: str) -> Float[Array, "c o"]:
    """The output that stands for each label: +1 and -1, or the vertices of a simplex."""
    if loss == "logistic":
        return jnp.array([[1.0], [-1.0]])
    return (labels * jnp.eye(labels) - 1) / (labels - 1)


def init_network(
    key: Key[Array, ""], config: NetworkConfig, code: Float[Array, "c o"], d: int, m: int, settings: Settings
) -> ShallowNetwork:
    """First layer `N(0, init_scale^2)`, deeper ones `N(0, 2 / m)` (He et al. 2015), output: the code of each unit."""
    labels = code.shape[0]
    first = jax.random.normal(key, (d, m // labels if config.symmetric else m))
    first = jnp.repeat(first, labels, axis=1) if config.symmetric else first
    keys = jax.random.split(jax.random.fold_in(key, 1), config.depth)[1:]
    deeper = tuple((2 / m) ** 0.5 * jax.random.normal(k, (m, m)) for k in keys)
    return ShallowNetwork(settings.init_scale * first, deeper, code[jnp.arange(m) % labels])


def hidden(network: ShallowNetwork, config: NetworkConfig, inputs: Float[Array, "n d"]) -> Float[Array, "n m"]:
    """The last hidden layer: the representation that is studied."""
    phi = ACTIVATIONS[config.activation]
    found = phi(inputs @ network.first)
    for weights in network.deeper:
        found = phi(found @ weights)
    return found


def outputs(
    network: ShallowNetwork, config: NetworkConfig, settings: Settings, features: Float[Array, "n m"]
) -> Float[Array, "n o"]:
    """`gain * m^-p * features A`; with one output a sum along rows, which XLA fuses with the activation."""
    scale = settings.gain * features.shape[1] ** -POWERS[config.scaling]
    if network.output.shape[1] == 1:
        return scale * (features * network.output[:, 0][None, :]).sum(axis=1)[:, None]
    return scale * (features @ network.output)


def mean_loss(
    name: str, code: Float[Array, "c o"], found: Float[Array, "n o"], label: Int32[Array, "n"]
) -> Float[Array, ""]:
    """logistic: `log(1 + exp(-y f))`; cross_entropy: `-log softmax(f)_y`; squared: `|f - code_y|^2 / 2`."""
    if name == "logistic":
        return jax.nn.softplus(-code[label] * found).mean()
    if name == "squared":
        return ((found - code[label]) ** 2).sum(axis=1).mean() / 2
    return -jnp.take_along_axis(jax.nn.log_softmax(found), label[:, None], axis=1).mean()


def accuracy(code: Float[Array, "c o"], found: Float[Array, "n o"], label: Int32[Array, "n"]) -> Float[Array, ""]:
    """Share of examples whose output is closest to the code of their label."""
    return ((found @ code.T).argmax(axis=1) == label).mean()


def descend(
    network: ShallowNetwork,
    config: NetworkConfig,
    descent: DescentConfig,
    settings: Settings,
    code: Float[Array, "c o"],
    inputs: Float[Array, "n d"],
    label: Int32[Array, "n"],
) -> ShallowNetwork:
    """One step of (stochastic) gradient descent; `lr` is its time, for every width, scaling and gain.

    The gradient by a weight of the first or last layer has a factor `gain * m^-p`, and `m` of them move the output, so
    the speed `m^(2p - 1) / gain^2` leaves the output a rate of order 1; there are `m` times as many deeper weights.
    """

    def loss(network: ShallowNetwork) -> Array:
        found = outputs(network, config, settings, hidden(network, config, inputs))
        return mean_loss(descent.loss, code, found, label)

    gradient, m = jax.grad(loss)(network), network.first.shape[1]
    speed = settings.lr * m ** (2 * POWERS[config.scaling] - 1) / settings.gain**2
    keep = 1 - settings.lr * settings.weight_decay
    first = keep * network.first - speed * gradient.first
    if config.trained == "first":
        return network._replace(first=first)
    deeper = tuple(keep * w - speed / m * g for w, g in zip(network.deeper, gradient.deeper, strict=True))
    return ShallowNetwork(first, deeper, keep * network.output - speed * gradient.output)
