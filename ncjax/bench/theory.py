# SPDX-License-Identifier: Apache-2.0
"""Steps per second of the synthetic setting: many seeds of a shallow network, compared with PyTorch."""

import os
import time
from functools import partial

from ncjax.bench.interleave import Peer, Timer, interleave
from ncjax.bench.result import BenchResult, Pair, bench_result, row_of
from ncjax.bench.torch_theory import WAYS, torch_timer
from ncjax.config import to_dict
from ncjax.theory.config import DescentConfig, TheoryConfig

UNIT, GFLOPS = "run-steps/s", "GFLOP/s"
OURS, PRODUCT = "ncjax", "product of two 2048 x 2048 matrices, XLA"
PRODUCT_SIZE = 2048


def bench_config(seeds: int, steps: int) -> TheoryConfig:
    """The sweep that is measured: the defaults, n = 200, d = 64, m = 256, logistic loss, first layer, all examples."""
    descent = DescentConfig(steps=steps, records=1, restarts=0)
    return TheoryConfig(name="bench", seeds=seeds, descent=descent, memory_gib=32.0)


def bench_theory(command: str, *, seeds: int, steps: int, torch_steps: int, rounds: int) -> BenchResult:
    """All seeds at once with ncjax, compared with PyTorch: batched products, `torch.func.vmap`, a loop over the seeds.

    The same work in float32: full-batch descent on the first layer. Ours also draws data and weights and records the
    metrics (but for k-means) before the first and after the last step; PyTorch's examples and weights exist before.

    Args:
        command: kept with the results.
        seeds: runs.
        steps: of every run with ncjax, at a call.
        torch_steps: the same for PyTorch, whose rate does not depend on them.
        rounds: how often each is measured.
    """
    config = bench_config(seeds, steps)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    peers = {OURS: Peer(partial(our_timer, config), ("ncjax.theory.sweep",))}
    notes = ["One run-step is one step of one seed; PyTorch's drawing of data and weights is not in its time."]
    theirs = {name: Peer(partial(torch_timer, config, name, torch_steps), ("torch",)) for name in WAYS}
    measured = interleave(peers | theirs | {PRODUCT: Peer(product_timer, ("jax",))}, rounds=rounds)
    rows = [row_of(name, GFLOPS if name == PRODUCT else UNIT, found) for name, found in measured.items()]
    title = f"{seeds} networks at once: n = 200, d = 64, m = 256, {steps} full-batch steps, float32"
    ours, peak = measured[OURS].values, measured[PRODUCT].values
    if ours and peak:
        rate = sorted(ours)[len(ours) // 2] * step_flops(config) / 1e9
        share = rate / sorted(peak)[len(peak) // 2]
        notes.append(f"ncjax: {rate:.0f} GFLOP/s in the two products of a step, {share:.2f} of a large product's rate.")
    pairs = [Pair(title, OURS, name) for name in theirs]
    return bench_result(command, rows, pairs, notes, to_dict(config))


def step_flops(config: TheoryConfig) -> int:
    """FLOPs of one step of one run: `X W` forward and `X^T D` backward, `2 n d m` each."""
    (n,), (d,), (m,) = config.mixture.train, config.mixture.dimension, config.network.width
    return 4 * n * d * m


def our_timer(config: TheoryConfig) -> Timer:
    """The program that `ncjax theory` runs, on every core."""
    from ncjax.theory.config import shapes_of
    from ncjax.theory.sweep import RunGroup, group_inputs, make_program, use_every_core

    use_every_core()
    (shape,) = shapes_of(config)
    program = make_program(config, shape, config.seeds)
    inputs = group_inputs(config, RunGroup(shape, 0, config.seeds))

    def measure() -> float:
        started = time.perf_counter()
        program(*inputs, None)
        return config.seeds * config.descent.steps / (time.perf_counter() - started)

    return measure


def product_timer() -> Timer:
    """GFLOP/s of one large product: what the machine reaches."""
    import jax
    import jax.numpy as jnp

    factor = jnp.ones((PRODUCT_SIZE, PRODUCT_SIZE))
    product = jax.jit(jnp.matmul)

    def measure() -> float:
        rates = []
        for _ in range(20):
            started = time.perf_counter()
            product(factor, factor).block_until_ready()
            rates.append(2 * PRODUCT_SIZE**3 / (time.perf_counter() - started) / 1e9)
        return sorted(rates)[len(rates) // 2]

    return measure
