# SPDX-License-Identifier: Apache-2.0
"""Compiles the lowerings of convolutions of 4 members for a TPU v5e: operations and bytes against the least.

    PYTHONPATH=LIBTPU python docs/scripts/lowering_counts.py

No device is needed; libtpu is in a folder of its own, as docs/scripts/tpu_plan.py says. Forward and backward pass. The
least operations are those of the sums themselves, the least bytes those of images, kernels, outputs and their
gradients, each read or written once for each of the three sums that needs it. XLA counts what stands in a loop once:
so `sequential` is left out, and there are as many members as `side_by_side` takes at once at 16 channels.
"""

import os
import time

from ncjax.ops.member_conv import LOWERINGS, ConvCase

MEMBERS, BATCH = 4, 128
SHAPES = ((32, 16), (4, 128))  # side and channels of the 3x3 convolutions of a ResNet-18 of width 16


def main() -> None:
    """Print a table."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    from ncjax.ops.member_conv import fits

    print("| side x channels | lowering | compiled in | operations | bytes |\n| --- | --- | --- | --- | --- |")
    for side, channels in SHAPES:
        case = ConvCase(MEMBERS, BATCH, side, side, channels, channels, 3, 3, 1, "bfloat16", "bfloat16")
        for lowering in LOWERINGS:
            if fits(case, lowering) and lowering != "sequential":
                print(line(case, lowering), flush=True)


def line(case: ConvCase, lowering: str) -> str:
    """One line of the table."""
    import jax
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    from ncjax.ops.member_conv import conv2d_accelerator, use_lowerings

    where = SingleDeviceSharding(topologies.get_topology_desc("v5e:2x2", "tpu").devices[0])
    x = jax.ShapeDtypeStruct(
        (case.members, case.batch, case.height, case.width, case.channels), case.dtype, sharding=where
    )
    kernel = jax.ShapeDtypeStruct((case.members, 3, 3, case.channels, case.filters), case.dtype, sharding=where)

    def both(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        y, pullback = jax.vjp(
            lambda x, k: jax.vmap(lambda x, k: conv2d_accelerator(x, k, case.stride))(x, k), x, kernel
        )
        return y, pullback(cotangent)

    started = time.perf_counter()
    with use_lowerings({str(case): lowering}), jax.default_matmul_precision(case.precision):
        cost = jax.jit(both).lower(x, kernel, x).compile().cost_analysis() or {}
    secs = time.perf_counter() - started
    least = 2 * (3 * x.size + 3 * x.size + 3 * kernel.size)
    ratios = (cost["flops"] / (6 * case.products), cost["bytes accessed"] / least)
    shown = " | ".join(f"{ratio:.1f}" for ratio in ratios)
    return f"| {case.height} x {case.channels} | {lowering} | {secs:.1f} s | {shown} |"


if __name__ == "__main__":
    main()
