# SPDX-License-Identifier: Apache-2.0
"""The one convolution of ncjax, and the choice of how it is lowered.

XLA's own convolution is fast on accelerators. On CPUs its gradients are many times slower inside `scan` than outside,
and under `vmap` over kernels it becomes a grouped one, slower still; so there it is written with matrix products.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def conv2d(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"], *, stride: int = 1
) -> Float[Array, "b p q o"]:
    """Cross-correlation with `k // 2` zeros on every side, as PyTorch's `padding=k // 2` (odd kernels).

    `y[b, p, q, o] = sum_{u, v, i} kernel[u, v, i, o] * x[b, stride * p + u - kh // 2, stride * q + v - kw // 2, i]`

    Args:
        x: images or feature maps.
        kernel: weights, of the type of `x`.
        stride: step between two outputs, in pixels, along both axes.
    """
    if jax.default_backend() == "cpu":
        return conv2d_rows(x, kernel) if stride == 1 else conv2d_patches(x, kernel, stride=stride)
    return conv2d_xla(x, kernel, stride=stride)


def conv2d_xla(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"], *, stride: int = 1
) -> Float[Array, "b p q o"]:
    """`conv2d` as XLA's convolution."""
    pad_h, pad_w = kernel.shape[0] // 2, kernel.shape[1] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((pad_h, pad_h), (pad_w, pad_w)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


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


def conv2d_rows(x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"]) -> Float[Array, "b h w o"]:
    """`conv2d` of stride 1 as one matrix product `[b h w, kw i] x [kw i, kh o]`, then a sum of `kh` shifted rows.

    It moves `kw` copies of the input and `kh` of the output where patches move `kh * kw` of the input, and the product
    is `kh` times wider: on narrow networks both matter.
    """
    (batch, height, width, _), (kh, kw, channels, filters) = x.shape, kernel.shape
    padded = jnp.pad(x, ((0, 0), (0, 0), (kw // 2, kw // 2), (0, 0)))
    patches = jnp.concatenate([padded[:, :, v : v + width] for v in range(kw)], axis=-1)
    weights = kernel.transpose(1, 2, 0, 3).reshape(kw * channels, kh * filters)
    products = (patches.reshape(-1, kw * channels) @ weights).reshape(batch, height, width, kh, filters)
    products = jnp.pad(products, ((0, 0), (kh // 2, kh // 2), (0, 0), (0, 0), (0, 0)))
    return sum((products[:, u : u + height, :, u] for u in range(1, kh)), start=products[:, :height, :, 0])
