# SPDX-License-Identifier: Apache-2.0
"""Measures which lowering of a convolution of several members is the fastest on this device."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ncjax.ops.member_conv import LOWERINGS, ConvCase, by_table, conv2d_accelerator, fits, use_lowerings
from ncjax.ops.xla import compiler_options

BUDGET_SECS = 20.0  # of all measurements of a run; kept to between two of them
STEPS = 8  # of the measured loop: forward and backward pass
CALLS = 5
Times = Mapping[str, float | None]  # milliseconds of a step by lowering; None: it failed
Timer = Callable[[ConvCase, str], float]


def candidates(case: ConvCase, platform: str) -> list[str]:
    """The lowerings that can compute a case: that of the table, then those that compile fast."""
    first = by_table(case, platform)
    return [first, *(name for name in LOWERINGS if name != first and fits(case, name))]


def measure_cases(
    cases: Sequence[ConvCase],
    known: Mapping[str, Times],
    platform: str,
    *,
    budget_secs: float = BUDGET_SECS,
    timer: Timer | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Times]:
    """Times of the lowerings of each case, by its text: those that are known, and those that the budget has room for.

    The cases with most multiplications come first. A measurement that would probably overrun the budget, by the longest
    so far, is not begun. What raises an error of the compiler or the device is out.

    Args:
        cases: of one device; a case that is met often counts as often.
        known: from earlier.
        platform: such as `gpu`.
        budget_secs: for compiling and running all of them.
        timer: `(case, lowering) -> milliseconds`; None: `milliseconds`.
        clock: in seconds.
    """
    found = {str(case): dict(known.get(str(case), {})) for case in cases}
    started, longest = clock(), 0.0
    for case in sorted(set(cases), key=lambda case: -cases.count(case) * case.products):
        times = found[str(case)]
        for name in candidates(case, platform):
            before = clock()
            if name in times:
                continue
            if before - started + longest > budget_secs:
                return dict(found)
            try:
                times[name] = (timer or milliseconds)(case, name)
            except jax.errors.JaxRuntimeError:
                times[name] = None
            longest = max(longest, clock() - before)
    return dict(found)


def fastest(case: ConvCase, times: Times, platform: str) -> str:
    """The fastest lowering that was measured; that of the table where it was not measured itself, or all failed."""
    table = by_table(case, platform)
    measured = {name: value for name, value in times.items() if value is not None and fits(case, name)}
    if table not in times or not measured:
        return table
    return min(measured, key=lambda name: measured[name])


def milliseconds(case: ConvCase, lowering: str) -> float:
    """Of a forward and a backward pass of all members, in a compiled loop, the least of some calls."""
    rng, dtype = np.random.default_rng(0), jnp.dtype(case.dtype)
    shapes = (
        (case.members, case.batch, case.height, case.width, case.channels),
        (case.members, case.kernel_height, case.kernel_width, case.channels, case.filters),
    )
    x, kernel = (jnp.asarray(rng.standard_normal(shape, np.float32), dtype) for shape in shapes)
    kernel = kernel / math.sqrt(case.kernel_height * case.kernel_width * case.channels)
    with use_lowerings({str(case): lowering}), jax.default_matmul_precision(case.precision):
        program = _loop(case.stride).lower(x, kernel).compile(compiler_options())
    jax.block_until_ready(program(x, kernel))
    secs = []
    for _ in range(CALLS):
        started = time.perf_counter()
        jax.block_until_ready(program(x, kernel))
        secs.append(time.perf_counter() - started)
    return 1000 * min(secs) / STEPS


def _loop(stride: int) -> jax.stages.Wrapped:
    """Steps that need one another: `x` and `kernel` move by a little of their gradients."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.vmap(lambda x, kernel: conv2d_accelerator(x, kernel, stride))(x, kernel)

    def step(inputs: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
        y, pullback = jax.vjp(convolve, *inputs)
        by_x, by_kernel = pullback(y)
        return (inputs[0] - (1e-3 * by_x).astype(y.dtype), inputs[1] - (1e-3 * by_kernel).astype(y.dtype)), None

    return jax.jit(lambda x, kernel: lax.scan(step, (x, kernel), None, length=STEPS)[0])
