# SPDX-License-Identifier: Apache-2.0
"""Options of XLA's compiler."""

import os
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")

YNN_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"


DETERMINISTIC = "xla_gpu_deterministic_ops"  # the same bits in each run: no atomic sums, no choice of kernels by time


@cache
def compiler_options(deterministic: bool = False) -> dict[str, str | bool]:
    """What `jax.jit` has to be told so that convolutions and products on CPUs reach XLA's faster kernels.

    Newer releases hand them to YNNPACK, which takes up to three times as long; of its operations only reductions are
    faster. Older releases do not know the option.

    Args:
        deterministic: on GPUs, a program gives the same bits each time, compiled anew or not.
    """
    if jax.default_backend() != "cpu":
        return {DETERMINISTIC: True} if deterministic and jax.default_backend() == "gpu" else {}
    wanted: dict[str, str | bool] = {YNN_FUSIONS: "LIBRARY_FUSION_TYPE_REDUCE"}
    try:
        jax.jit(jnp.negative).lower(0.0).compile(compiler_options=wanted)
    except RuntimeError:
        return {}
    return wanted


def make_deterministic() -> None:
    """Gives all programs of this process the same bits each time on GPUs; before JAX starts its devices."""
    flag, flags = f"--{DETERMINISTIC}=true", os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC not in flags and (not flags.strip() or flags.lstrip().startswith("-")):
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


BRIEF = 2**22  # numbers in all arguments, up to which compilation takes longer than most programs


def jit_by_size(function: Callable[..., T], **options: Any) -> Callable[..., T]:
    """`jax.jit`, which on CPUs compiles small problems in a third of the time; they then run up to twice as long.

    For what is run few times.

    Args:
        function: as for `jax.jit`.
        options: as for `jax.jit`.
    """
    thorough = jax.jit(function, **options)
    quick = cache(lambda: jax.jit(function, compiler_options=_quick_compilation(), **options))

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> T:
        numbers = sum(getattr(leaf, "size", 0) for leaf in jax.tree.leaves((args, kwargs)))
        found: T = (quick() if numbers <= BRIEF else thorough)(*args, **kwargs)
        return found

    return call


def _quick_compilation() -> dict[str, Any]:
    """Versions of XLA that do not know the options get none."""
    if jax.default_backend() != "cpu":
        return {}
    wanted: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(jnp.negative).lower(0.0).compile(compiler_options=wanted)
    except RuntimeError:
        return {}
    return wanted
