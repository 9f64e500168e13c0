# SPDX-License-Identifier: Apache-2.0
"""The one convolution of ncjax, and the choice of how it is lowered.

On accelerators XLA's own convolution and its gradients are used as they are; several members at once have the
lowerings of ncjax/ops/member_conv.py. On CPUs XLA has a fast kernel too, but
only convolutions in canonical form (image, row, column, channel) reach it, and inside a loop, where a training step
lives, XLA does not bring the gradients into that form: they are 30 to 90 times slower. Here they are written in it.
3x3 convolutions of many channels take Winograd's form instead (ncjax/ops/winograd.py).
Under `vmap` over kernels XLA has a grouped convolution, slower still; here the members take turns, but for small ones.
docs/performance.md has the measurements.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap, sequential_vmap
from jaxtyping import Array, Float, Int

from ncjax.ops.member_conv import conv2d_accelerator
from ncjax.ops.plain_conv import conv2d_patches, conv2d_pointwise, conv2d_xla, convolve
from ncjax.ops.winograd import conv2d_winograd

BLOCK = 2**17  # values of an input that are transposed at a go: 0.5 MiB in float32, which stays in a core's cache
SMALL = 2**18  # values of an input; a strided convolution of fewer is faster as a matrix product
NARROW = 16  # channels; of at most as many, the gradient by the kernel is faster as one product of shifted arrays
WIDE = 32  # channels of input and output, from which a 3x3 convolution is faster in Winograd's form


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
    if jax.default_backend() != "cpu":
        return conv2d_accelerator(x, kernel, stride)
    if kernel.shape[:2] == (1, 1):
        return conv2d_pointwise(x, kernel, stride=stride)
    if stride > 1 and x.size <= SMALL:
        return conv2d_patches(x, kernel, stride=stride)
    if _for_winograd(x, kernel, stride):
        return conv2d_winograd(x, kernel)
    return conv2d_canonical(x, kernel, stride)


def _for_winograd(x: Array, kernel: Array, stride: int) -> bool:
    """Whether the transformed products are faster, by docs/performance.md, and exact enough."""
    fits = stride == 1 and kernel.shape[:2] == (3, 3) and x.shape[1] % 2 == x.shape[2] % 2 == 0
    return fits and x.dtype == jnp.float32 and min(kernel.shape[2:]) >= WIDE


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d_canonical(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"], stride: int
) -> Float[Array, "b p q o"]:
    """`conv2d` as convolutions in canonical form alone, forward and backward; reverse mode only.

    With respect to `x` the gradient is the convolution of the cotangent, spread by the stride, with the kernel turned
    by 180 degrees. With respect to the kernel it is the convolution of the input with the cotangent, where images and
    channels change places, `[i h w b] * [p q b o] -> [i kh kw o]`; blocks of images are summed, for a transposed input
    that has to go through memory costs more than the convolution.
    """
    return _of_members(partial(conv2d_xla, stride=stride), partial(conv2d_patches, stride=stride), x, kernel)(x, kernel)


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return conv2d_canonical(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = saved
    by_input = sequential_vmap(partial(_gradient_by_input, x.shape[1:3], stride))(cotangent, kernel)
    alone = partial(_gradient_by_kernel, kernel.shape[:2], stride)
    by_kernel = _of_members(alone, partial(_gradient_of_patches, kernel.shape, stride), x, kernel)(x, cotangent)
    return by_input, by_kernel


conv2d_canonical.defvjp(_forward, _backward)


def _gradient_by_input(
    size: tuple[int, ...], stride: int, cotangent: Float[Array, "b p q o"], kernel: Float[Array, "kh kw i o"]
) -> Float[Array, "b h w i"]:
    padding = [
        (extent - 1 - extent // 2, pixels - 1 - stride * (outputs - 1) + extent // 2)
        for extent, pixels, outputs in zip(kernel.shape[:2], size, cotangent.shape[1:3], strict=True)
    ]
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    return convolve(cotangent, turned, padding, lhs_dilation=(stride, stride))


def _gradient_by_kernel(
    extents: tuple[int, ...], stride: int, x: Float[Array, "b h w i"], cotangent: Float[Array, "b p q o"]
) -> Float[Array, "kh kw i o"]:
    padding = [
        (extent // 2, extent - 1 - extent // 2 + stride * (outputs - 1) + 1 - pixels)
        for extent, pixels, outputs in zip(extents, x.shape[1:3], cotangent.shape[1:3], strict=True)
    ]

    def gradient(x: Array, cotangent: Array) -> Array:
        if stride == 1 and max(x.shape[-1], cotangent.shape[-1]) <= NARROW:
            return _shifted_product(extents, x, cotangent)
        images, cotangents = x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3)
        return convolve(images, cotangents, padding, rhs_dilation=(stride, stride)).transpose(1, 2, 0, 3)

    count = _block_count(x.shape[0], x.size // x.shape[0])
    if count == 1:
        return gradient(x, cotangent)

    def add(block: Int[Array, ""], total: Array) -> Array:
        return total + gradient(_block(x, block, count), _block(cotangent, block, count))

    zero = jnp.zeros((*extents, x.shape[-1], cotangent.shape[-1]), jnp.float32)
    return lax.fori_loop(0, count, add, zero).astype(x.dtype)


def _block(x: Float[Array, "b h w c"], block: Int[Array, ""], count: int) -> Float[Array, "k h w c"]:
    size = x.shape[0] // count
    return lax.dynamic_slice_in_dim(x, block * size, size)


def _shifted_product(
    extents: tuple[int, ...], x: Float[Array, "b h w i"], cotangent: Float[Array, "b h w o"]
) -> Float[Array, "kh kw i o"]:
    """The gradient by the kernel at stride 1 as one product: the input shifted by columns, the cotangent by rows."""
    kh, kw = extents
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (0, 0), (kw // 2, kw // 2), (0, 0)))
    cotangent = jnp.pad(cotangent, ((0, 0), (kh // 2, kh // 2), (0, 0), (0, 0)))
    columns = jnp.concatenate([x[:, :, v : v + width] for v in range(kw)], axis=-1)
    rows = jnp.concatenate([cotangent[:, u : u + height] for u in reversed(range(kh))], axis=-1)
    product = columns.reshape(-1, columns.shape[-1]).T @ rows.reshape(-1, rows.shape[-1])
    return product.reshape(kw, -1, kh, cotangent.shape[-1]).transpose(2, 0, 1, 3)


def _gradient_of_patches(
    shape: tuple[int, ...], stride: int, x: Float[Array, "b h w i"], cotangent: Float[Array, "b p q o"]
) -> Float[Array, "kh kw i o"]:
    kernel = jax.ShapeDtypeStruct(shape, x.dtype)
    return jax.linear_transpose(lambda kernel: conv2d_patches(x, kernel, stride=stride), kernel)(cotangent)[0]


def _of_members(
    alone: Callable[[Array, Array], Array], as_patches: Callable[[Array, Array], Array], x: Array, kernel: Array
) -> Callable[[Array, Array], Array]:
    """`alone`, and what `vmap` over members makes of it.

    Members take turns, but for the first layer of small images: a product of patches, which are no more there than the
    outputs, is for all of them at once.
    """
    kh, kw, channels, filters = kernel.shape
    if x.size > SMALL or kh * kw * channels > filters:
        return sequential_vmap(alone)
    function = custom_vmap(alone)

    @function.def_vmap
    def _(_: int, batched: list[bool], *inputs: Array) -> tuple[Array, bool]:
        return jax.vmap(as_patches, in_axes=tuple(0 if one else None for one in batched))(*inputs), True

    return function


def _block_count(images: int, values: int) -> int:
    """Into how many equal blocks `images` of `values` values each are cut: the fewest of at most BLOCK values."""
    return next(n for n in range(1, images + 1) if (images % n == 0 and (images // n) * values <= BLOCK) or n == images)
