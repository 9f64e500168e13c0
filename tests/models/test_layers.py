# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from ncjax.models.layers import BatchNorm


def example(offset):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 6, 4, 5)) * np.arange(1, 6) + offset
    arrays = x, rng.normal(size=5), rng.normal(size=5), rng.normal(size=x.shape)
    return [np.float32(a) for a in arrays]


def normalised(layer, x, cotangent, train):
    """Value, gradients by input, scale and bias, and the running statistics afterwards."""
    graph, params, statistics = nnx.split(layer, nnx.Param, nnx.BatchStat)

    def call(params, x):
        module = nnx.merge(graph, params, jax.tree.map(jnp.copy, statistics))
        y = module(x, train) if isinstance(layer, BatchNorm) else module(x, use_running_average=not train)
        return y, (module.mean[...], module.var[...])

    y, pullback, running = jax.vjp(call, params, x, has_aux=True)
    by_params, by_x = pullback(cotangent)
    return y, by_x, by_params["scale"][...], by_params["bias"][...], *running


def made(kind, scale, bias, **options):
    layer = kind(5, **options, rngs=nnx.Rngs(0))
    layer.scale[...], layer.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
    return layer


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_batch_norm_and_its_gradients_equal_pytorchs(offset):
    """Of the float64 one, within 1e-5 of the largest entry; the running statistics too."""
    x, scale, bias, cotangent = example(offset)
    ours = normalised(
        made(BatchNorm, scale, bias, dtype=np.dtype("float32")), jnp.asarray(x), jnp.asarray(cotangent), True
    )
    theirs = torch.nn.BatchNorm2d(5).double()
    with torch.no_grad():
        theirs.weight.copy_(torch.from_numpy(scale))
        theirs.bias.copy_(torch.from_numpy(bias))
    images = torch.from_numpy(x).double().permute(0, 3, 1, 2).requires_grad_()
    y = theirs(images)
    y.backward(torch.from_numpy(cotangent).double().permute(0, 3, 1, 2))
    channels_last = [a.detach().permute(0, 2, 3, 1) for a in (y, images.grad)]
    expected = [*channels_last, theirs.weight.grad, theirs.bias.grad, theirs.running_mean, theirs.running_var]
    for found, right in zip(ours, expected, strict=True):
        assert np.abs(found - right.detach().numpy()).max() <= 1e-5 * right.abs().max()


@pytest.mark.parametrize(("train", "dtype"), [(True, jnp.float32), (False, jnp.float32), (True, jnp.bfloat16)])
def test_batch_norm_equals_flaxs(train, dtype):
    """Flax moves the variance towards that of the batch, without `n / (n - 1)`."""
    x, scale, bias, cotangent = example(1.0)
    dtype = jnp.dtype(dtype)
    inputs = jnp.asarray(x, dtype), jnp.asarray(cotangent, dtype), train
    ours = normalised(made(BatchNorm, scale, bias, dtype=dtype), *inputs)
    options = {"momentum": 0.9, "epsilon": 1e-5, "dtype": dtype}
    flax = normalised(made(nnx.BatchNorm, scale, bias, **options), *inputs)
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    for found, right in zip(ours[:-1], flax[:-1], strict=True):
        assert found.dtype == right.dtype
        assert np.abs(np.float32(found) - np.float32(right)).max() <= tolerance * np.abs(np.float32(right)).max()
    count = x.size // 5
    unbiased = 0.9 + (flax[-1] - 0.9) * count / (count - 1) if train else flax[-1]
    np.testing.assert_allclose(ours[-1], unbiased, rtol=1e-5)
