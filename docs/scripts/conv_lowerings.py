# SPDX-License-Identifier: Apache-2.0
"""Prints the table of convolutions in docs/performance.md: python docs/scripts/conv_lowerings.py.

Milliseconds of one layer for one member, forward and backward, inside a loop, as in a training step: a 3x3 convolution,
BatchNorm and ReLU, batch 128, alone and with eight members under `vmap`; the best of five, or of those of
ten seconds.
"""

import time
from collections.abc import Callable
from functools import partial

import jax
from jax import lax

from ncjax.ops.conv import conv2d_canonical, conv2d_patches, conv2d_xla
from ncjax.ops.winograd import conv2d_winograd
from ncjax.ops.xla import compiler_options

Convolve = Callable[[jax.Array, jax.Array], jax.Array]
LAYERS, STEPS = 2, 2
SHAPES = ((8, 16), (32, 16), (16, 32), (8, 64), (4, 128), (32, 32), (32, 64))


def norm_relu(x: jax.Array) -> jax.Array:
    """BatchNorm without scale and shift, then ReLU."""
    mean = x.mean((0, 1, 2))
    variance = (x * x).mean((0, 1, 2)) - mean * mean
    return jax.nn.relu((x - mean) * lax.rsqrt(variance + 1e-5))


def milliseconds(convolve: Convolve, size: int, channels: int, members: int, options: dict[str, str | bool]) -> float:
    """Of one layer, for one member."""
    x = jax.random.normal(jax.random.key(0), (members, 128, size, size, channels))
    kernels = 0.1 * jax.random.normal(jax.random.key(1), (members, LAYERS, 3, 3, channels, channels))

    def loss(kernels: jax.Array, x: jax.Array) -> jax.Array:
        for layer in range(LAYERS):
            x = norm_relu(convolve(x, kernels[layer]))
        return (x * x).mean()

    def step(kernels: jax.Array, _: None) -> tuple[jax.Array, None]:
        return kernels - 1e-3 * jax.vmap(jax.grad(loss))(kernels, x), None

    run = jax.jit(lambda kernels: lax.scan(step, kernels, None, length=STEPS)[0], compiler_options=options)
    jax.block_until_ready(run(kernels))
    secs: list[float] = []
    while len(secs) < 5 and sum(secs) < 10:
        started = time.perf_counter()
        jax.block_until_ready(run(kernels))
        secs.append(time.perf_counter() - started)
    return 1000 * min(secs) / (STEPS * LAYERS * members)


def row(size: int, channels: int) -> str:
    """One line of the table."""
    gflop, options = 6 * 128 * size**2 * 9 * channels**2 / 1e9, compiler_options()
    canonical = partial(conv2d_canonical, stride=1)
    cells = [f"{milliseconds(conv2d_xla, size, channels, 1, {}):.1f}"]
    for convolve, chosen in (
        (conv2d_patches, options),
        (canonical, {}),
        (canonical, options),
        (conv2d_winograd, options),
    ):
        cells += [f"{milliseconds(convolve, size, channels, members, chosen):.1f}" for members in (1, 8)]
    return " | ".join([f"| {size} x {channels}", f"{gflop:.2f}", *cells]) + " |"


def main() -> None:
    """Print the table."""
    names = ["JAX's gradients", "patches", "patches, 8", "canonical, YNNPACK", "canonical, YNNPACK, 8", "canonical"]
    names += ["canonical, 8", "Winograd"]
    print("| size x channels | GFLOP | " + " | ".join([*names, "Winograd, 8"]) + " |")
    print("| --- " * (len(names) + 3) + "|")
    for size, channels in SHAPES:
        print(row(size, channels), flush=True)


if __name__ == "__main__":
    main()
