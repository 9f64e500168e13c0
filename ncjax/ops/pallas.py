# SPDX-License-Identifier: Apache-2.0
"""What kernels in Pallas share: they are written for its Triton backend, which GPUs of NVIDIA have.

Under `vmap` they follow each other: each fills the device, and a second axis of programs may have 65,535 at most.
"""

from collections.abc import Mapping
from typing import Any

INTERPRET = False  # run kernels as plain JAX, on any platform


def compiled_with(warps: int, stages: int) -> Mapping[str, Any]:
    """Arguments of `pallas_call`."""
    from jax.experimental.pallas import triton

    if INTERPRET:
        return {"interpret": True}
    return {"compiler_params": triton.CompilerParams(num_warps=warps, num_stages=stages)}


def padded_width(d: int) -> int:
    """Columns of a block, a power of two."""
    return max(16, 1 << (d - 1).bit_length())
