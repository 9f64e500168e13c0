# SPDX-License-Identifier: Apache-2.0
"""The precision of products and convolutions in training, and double precision where single does not reach.

`optim.precision` names it. What a device computes then, by the names of `jax.lax.DotAlgorithmPreset`:

| precision | CPU | GPU | TPU |
| --- | --- | --- | --- |
| float32 | F32_F32_F32 | F32_F32_F32 | BF16_BF16_F32_X6 |
| tf32 | F32_F32_F32 | TF32_TF32_F32 | BF16_BF16_F32_X3 |
| bfloat16 | BF16_BF16_F32 | BF16_BF16_F32 | BF16_BF16_F32 |

Without it JAX leaves the precision to the device: TF32 on newer GPUs, one pass of bfloat16 on TPUs. The last layer of a
network is computed as under float32 whatever the precision is.
"""

from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp

from ncjax.config import Precision

OF_JAX = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}
ARITHMETIC = {
    "float32": {"tpu": "BF16_BF16_F32_X6"},
    "tf32": {"gpu": "TF32_TF32_F32", "tpu": "BF16_BF16_F32_X3"},
    "bfloat16": {},
}


def precise_products(precision: Precision) -> AbstractContextManager[Any]:
    """A context in which what is traced has products and convolutions of float32 numbers of this precision."""
    return jax.default_matmul_precision(OF_JAX[precision])


def compute_dtype(precision: Precision) -> jnp.dtype:
    """The type of a network's activations."""
    return jnp.dtype("bfloat16" if precision == "bfloat16" else "float32")


def arithmetic(precision: Precision, platform: str) -> str:
    """What products are computed in on a platform such as `gpu`, by the names of `jax.lax.DotAlgorithmPreset`.

    Example:
        >>> arithmetic("tf32", "gpu"), arithmetic("tf32", "cpu")
        ('TF32_TF32_F32', 'F32_F32_F32')
    """
    default = "BF16_BF16_F32" if precision == "bfloat16" else "F32_F32_F32"
    return ARITHMETIC[precision].get(platform, default)


def double_precision() -> AbstractContextManager[Any]:
    """A context in which JAX computes in float64 what it is given in float64; programs are compiled anew in it."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # type: ignore[attr-defined]

    return enable_x64(True)
