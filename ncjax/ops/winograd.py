# SPDX-License-Identifier: Apache-2.0
"""3x3 convolutions of stride 1 by Winograd's F(2x2, 3x3): 4 products where 9 are usual (Lavin and Gray 2016).

Two outputs of a filter `g` of three taps are `A' ((G g) * (B' d))`, where `d` are the four inputs that they see and `*`
is the product of entries: 4 products instead of 6. In two dimensions a tile of 2x2 outputs sees 4x4 inputs, and with
channels the 16 products of entries are 16 matrix products over all tiles. Both gradients have the same form.
"""

import operator
from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float

BLOCK = 2**19  # values of an input that are transformed at a go, with the 16 products in a shared cache
A = np.array([[1, 0], [1, 1], [1, -1], [0, 1]])
B = np.array([[-1, 0, 0, 0], [0, 1, -1, -1], [1, 1, 1, 0], [0, 0, 0, 1]])
G = np.array([[-1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])

Grid = list[list[Array]]  # of equal arrays, by row and column of a tile


@jax.custom_vjp
def conv2d_winograd(x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "b h w o"]:
    """Cross-correlation of stride 1 with a border of one zero; height and width even; reverse mode only.

    Rounding is about twice that of the direct sum. Under `vmap` the members take turns.
    """
    return sequential_vmap(_correlate)(x, kernel)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv2d_winograd(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = saved
    by_input = sequential_vmap(_gradient_by_input)(cotangent, kernel)
    return by_input, sequential_vmap(_gradient_by_kernel)(x, cotangent)


conv2d_winograd.defvjp(_forward, _backward)


def correlate_winograd(x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "b h w o"]:
    """`conv2d_winograd` of all images at a go, with the gradients that JAX derives; for accelerators."""
    return _filtered_block(x, _transformed([list(row) for row in kernel], G.T), contracted=0)


def _correlate(x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "b h w o"]:
    return _filtered(x, _transformed([list(row) for row in kernel], G.T), contracted=0)


def _gradient_by_input(cotangent: Float[Array, "b h w o"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "b h w i"]:
    return _filtered(cotangent, _transformed([list(row) for row in kernel[::-1, ::-1]], G.T), contracted=1)


def _filtered(x: Float[Array, "b h w c"], weights: Grid, *, contracted: int) -> Float[Array, "b h w d"]:
    """Tiles of `x` times weights `[c d]`, or `[d c]` where axis 1 is the contracted one."""
    blocks = lax.map(lambda block: _filtered_block(block, weights, contracted=contracted), _blocks(x))
    return blocks.reshape(*x.shape[:3], -1)


def _filtered_block(x: Float[Array, "b h w c"], weights: Grid, *, contracted: int) -> Float[Array, "b h w d"]:
    images, height, width, _ = x.shape
    products = [
        [lax.dot_general(tiles, w, (((1,), (contracted,)), ((), ()))) for tiles, w in zip(*rows, strict=True)]
        for rows in zip(_input_tiles(x), weights, strict=True)
    ]
    outputs = _transformed(products, A)
    shape = (images, height // 2, width // 2, -1)
    rows = [jnp.stack([y.reshape(shape) for y in row], axis=3) for row in outputs]
    return jnp.stack(rows, axis=2).reshape(images, height, width, -1)


def _gradient_by_kernel(x: Float[Array, "b h w i"], cotangent: Float[Array, "b h w o"]) -> Float[Array, "3 3 i o"]:
    blocks = _blocks(x)

    def add(total: Grid, block: tuple[Array, Array]) -> tuple[Grid, None]:
        inputs, outputs = _input_tiles(block[0]), _transformed(_phases(block[1]), A.T)
        return [
            [t + v.T @ w for t, v, w in zip(*rows, strict=True)] for rows in zip(total, inputs, outputs, strict=True)
        ], None

    zero = jnp.zeros((x.shape[-1], cotangent.shape[-1]), x.dtype)
    total, _ = lax.scan(add, [[zero] * 4] * 4, (blocks, cotangent.reshape(*blocks.shape[:-1], -1)))
    return jnp.stack([jnp.stack(row) for row in _transformed(total, G)])


def _blocks(x: Float[Array, "b h w c"]) -> Float[Array, "n k h w c"]:
    """The fewest equal blocks of at most BLOCK values each, or of one image."""
    images, values = x.shape[0], x.size // x.shape[0]
    count = next(n for n in range(1, images + 1) if images % n == 0 and (images // n * values <= BLOCK or n == images))
    return x.reshape(count, -1, *x.shape[1:])


def _input_tiles(x: Float[Array, "b h w c"]) -> Grid:
    """`B' d B` of the 4x4 inputs of every tile, 4 x 4 arrays `[b h/2 w/2, c]`."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [[padded[:, u : u + height - 1 : 2, v : v + width - 1 : 2] for v in range(4)] for u in range(4)]
    return [[tiles.reshape(-1, x.shape[-1]) for tiles in row] for row in _transformed(shifted, B)]


def _phases(y: Float[Array, "b h w c"]) -> Grid:
    """The 2x2 outputs of every tile, 2 x 2 arrays `[b h/2 w/2, c]`."""
    return [[y[:, p::2, q::2].reshape(-1, y.shape[-1]) for q in range(2)] for p in range(2)]


def _transformed(grid: Grid, matrix: np.ndarray) -> Grid:
    """`matrix' grid matrix`."""
    rows = [[_combined(weights, column) for column in zip(*grid, strict=True)] for weights in matrix.T]
    return [[_combined(weights, row) for weights in matrix.T] for row in rows]


def _combined(weights: np.ndarray, arrays: Sequence[Array]) -> Array:
    """Their sum with these weights; no product with 0, 1 or -1."""
    return reduce(
        operator.add,
        (a if w == 1 else -a if w == -1 else w * a for w, a in zip(weights.tolist(), arrays, strict=True) if w),
    )
