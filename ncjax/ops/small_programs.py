# SPDX-License-Identifier: Apache-2.0
"""What programs of many small operations need on accelerators: no timing of candidates, no waits for the host."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

T = TypeVar("T")
UNTUNED: Any = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}


@cache
def untuned() -> Any:
    """Options of `jax.jit` by which GPUs get the library's first choice for each product: no candidates are timed.

    None where this version of XLA does not know them.
    """
    if jax.default_backend() != "gpu":
        return {}
    try:
        jax.jit(jnp.negative).lower(0.0).compile(compiler_options=UNTUNED)
    except RuntimeError:
        return {}
    return UNTUNED


def jit_untuned(function: Callable[..., T], **options: Any) -> Callable[..., T]:
    """`jax.jit` with the options of `untuned`.

    For programs of products that are small or bound by memory, where timing candidates takes longer than the program.

    Args:
        function: as for `jax.jit`.
        options: as for `jax.jit`.
    """
    compiled = cache(lambda: jax.jit(function, compiler_options=untuned(), **options))  # asks for the platform

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> T:
        found: T = compiled()(*args, **kwargs)
        return found

    return call


def branch(which: Bool[Array, ""], then: Callable[[], Array], otherwise: Callable[[], Array]) -> Array:
    """`lax.cond` on CPUs; on accelerators both are computed, for a branch waits for the host."""
    if jax.default_backend() == "cpu":
        chosen: Array = lax.cond(which, then, otherwise)
        return chosen
    return jnp.where(which, then(), otherwise())
