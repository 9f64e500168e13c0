# SPDX-License-Identifier: Apache-2.0
"""`ncjax bench theory`: PyTorch takes the same steps, and timers count them."""

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.bench.theory import bench_config, our_timer, step_flops
from ncjax.bench.torch_theory import WAYS, _advance, torch_timer
from ncjax.theory.config import settings_of
from ncjax.theory.network import ShallowNetwork, descend, label_code


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_pytorch_takes_our_step(way):
    torch = pytest.importorskip("torch")
    config, rng = bench_config(3, 1), np.random.default_rng(0)
    inputs, weights = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 20, 5), (3, 5, 8)))
    target, sign = np.where(np.arange(20) < 10, 1, -1), np.where(np.arange(8) % 2 == 0, 1, -1).astype(np.float32)
    advance = _advance(way, *map(torch.tensor, (inputs, target, sign / 8)), 0.1 * 8)
    theirs = advance(torch.tensor(weights)).numpy()
    code, label = label_code(2, "logistic"), jnp.asarray(target < 0, jnp.int32)
    for seed in range(3):
        network = ShallowNetwork(jnp.asarray(weights[seed]), (), jnp.asarray(sign)[:, None])
        (settings,) = settings_of(config)
        ours = descend(network, config.network, config.descent, settings, code, jnp.asarray(inputs[seed]), label)
        np.testing.assert_allclose(theirs[seed], ours.first, rtol=1e-4, atol=1e-6)
    assert np.abs(theirs - weights).max() > 1e-3


def test_timers_count_steps_of_all_seeds():
    pytest.importorskip("torch")
    config = bench_config(2, 3)
    assert step_flops(config) == 4 * 200 * 64 * 256
    assert our_timer(config)() > 0
    assert torch_timer(config, WAYS[3], 1)() > 0
