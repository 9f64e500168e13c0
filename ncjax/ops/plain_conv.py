# SPDX-License-Identifier: Apache-2.0
"""Convolutions of one network as XLA has them, and as one product of matrices."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def conv2d_xla(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"], *, stride: int = 1
) -> Float[Array, "b p q o"]:
    """`conv2d` as XLA's convolution, with the gradients that JAX derives."""
    pad_h, pad_w = kernel.shape[0] // 2, kernel.shape[1] // 2
    return convolve(x, kernel, ((pad_h, pad_h), (pad_w, pad_w)), strides=(stride, stride))


def conv2d_pointwise(
    x: Float[Array, "b h w i"], kernel: Float[Array, "1 1 i o"], *, stride: int = 1
) -> Float[Array, "b p q o"]:
    """`conv2d` of a 1x1 kernel as one matrix product over the pixels that the stride leaves."""
    return x[:, ::stride, ::stride] @ kernel[0, 0]


def conv2d_patches(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"], *, stride: int = 1
) -> Float[Array, "b p q o"]:
    """`conv2d` as one matrix product of patches `[b p q, kh kw i]` and kernel `[kh kw i, o]`."""
    kh, kw, channels, filters = kernel.shape
    rows, columns = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    padded = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    span_h, span_w = stride * (rows - 1) + 1, stride * (columns - 1) + 1
    shifted = [padded[:, u : u + span_h : stride, v : v + span_w : stride] for u in range(kh) for v in range(kw)]
    patches = jnp.concatenate(shifted, axis=-1).reshape(-1, kh * kw * channels)
    return (patches @ kernel.reshape(-1, filters)).reshape(x.shape[0], rows, columns, filters)


def convolve(
    x: Array,
    kernel: Array,
    padding: Sequence[tuple[int, int]],
    *,
    strides: tuple[int, int] = (1, 1),
    lhs_dilation: tuple[int, int] | None = None,
    rhs_dilation: tuple[int, int] | None = None,
) -> Array:
    """A convolution in canonical form: image, row, column, channel."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, lhs_dilation, rhs_dilation, numbers)
