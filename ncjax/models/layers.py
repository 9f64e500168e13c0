# SPDX-License-Identifier: Apache-2.0
"""Layers that the networks share."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ncjax.models.network import Outputs
from ncjax.ops.batch_norm import EPSILON, batch_norm
from ncjax.ops.conv import conv2d
from ncjax.ops.products import HIGHEST


class Conv(nnx.Module):
    """A convolution, initialised as He et al. 2015 (normal, fan out); a bias starts at zero."""

    def __init__(
        self, channels: int, filters: int, size: int, *, stride: int = 1, bias: bool = False, rngs: nnx.Rngs
    ) -> None:
        initialise = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        self.kernel = nnx.Param(initialise(rngs.params(), (size, size, channels, filters), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(filters)) if bias else None
        self.stride = stride

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b p q o"]:
        y = conv2d(x, self.kernel[...].astype(x.dtype), stride=self.stride)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)[None, None, None, :]


class BatchNorm(nnx.BatchNorm):
    """BatchNorm over all axes but the last, as PyTorch defines it: momentum 0.9, epsilon 1e-5, float32 statistics.

    A batch is normalised with its own variance; the running one moves towards `n / (n - 1)` times that, where `n` is
    the number of values of a channel in the batch. With `relu`, what is negative is 0.
    """

    def __init__(self, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        super().__init__(channels, momentum=0.9, epsilon=EPSILON, dtype=dtype, rngs=rngs)

    def __call__(  # type: ignore[override]
        self, x: Float[Array, "b h w i"], train: bool, relu: bool = False
    ) -> Float[Array, "b h w i"]:
        if not train:
            y = super().__call__(x, use_running_average=True)
            return jax.nn.relu(y) if relu else y
        assert self.scale is not None
        assert self.bias is not None
        count = x.size // x.shape[-1]
        fused = relu and jax.default_backend() != "cpu"  # on CPUs XLA fuses the two better itself
        y, mean, variance = batch_norm(x, self.scale[...], self.bias[...], fused)
        self.mean[...] = 0.9 * self.mean[...] + 0.1 * mean
        self.var[...] = 0.9 * self.var[...] + 0.1 * variance * (count / max(count - 1, 1))
        return jax.nn.relu(y) if relu and not fused else y


class ConvNorm(nnx.Module):
    """Convolution, then BatchNorm, then maybe ReLU."""

    def __init__(
        self,
        channels: int,
        filters: int,
        size: int,
        *,
        stride: int = 1,
        bias: bool = False,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv = Conv(channels, filters, size, stride=stride, bias=bias, rngs=rngs)
        self.norm = BatchNorm(filters, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"], train: bool, relu: bool = False) -> Float[Array, "b p q o"]:
        return self.norm(self.conv(x), train, relu)


class Head(nnx.Module):
    """The final linear layer, in float32 with exact products: its input is what ncjax calls features."""

    def __init__(self, features: int, classes: int, *, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(features, classes, precision=HIGHEST, rngs=rngs)

    def __call__(self, x: Float[Array, "b d"]) -> Outputs:
        features = x.astype(jnp.float32)
        return {"features": features, "logits": self.linear(features)}


def pooled(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Global average pooling, in float32: how an inner stage is named among the outputs."""
    return x.astype(jnp.float32).mean(axis=(1, 2))


def module_list(modules: list[Any]) -> Any:
    """A list of sub-modules; Flax before 0.12 knows plain lists, later ones `nnx.List`."""
    return nnx.List(modules) if hasattr(nnx, "List") else modules
