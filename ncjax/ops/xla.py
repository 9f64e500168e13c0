# SPDX-License-Identifier: Apache-2.0
"""Options of XLA's compiler."""

from functools import cache

import jax
import jax.numpy as jnp

YNN_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"


@cache
def compiler_options() -> dict[str, str | bool]:
    """What `jax.jit` has to be told so that convolutions and products on CPUs reach XLA's faster kernels.

    Newer releases hand them to YNNPACK, which takes up to three times as long; of its operations only reductions are
    faster. Older releases do not know the option.
    """
    if jax.default_backend() != "cpu":
        return {}
    wanted: dict[str, str | bool] = {YNN_FUSIONS: "LIBRARY_FUSION_TYPE_REDUCE"}
    try:
        jax.jit(jnp.negative).lower(0.0).compile(compiler_options=wanted)
    except RuntimeError:
        return {}
    return wanted
