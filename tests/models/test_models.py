# SPDX-License-Identifier: Apache-2.0
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ncjax.config import ModelConfig
from ncjax.models import make_model

FLOAT32 = jnp.dtype("float32")


@nnx.jit
def see(model, x):
    """Logits and features in evaluation mode."""
    return model(x, train=False)


def weights(model):
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_resnet18_has_the_published_number_of_weights():
    config = ModelConfig(name="resnet18", width=64)
    model = nnx.eval_shape(lambda: make_model(config, (32, 32, 3), 10, FLOAT32, nnx.Rngs(params=0)))
    assert weights(model) == 11_173_962


@pytest.mark.parametrize(("name", "width", "features"), [("resnet18", 2, 16), ("cnn", 3, 12), ("mlp", 7, 7)])
@pytest.mark.parametrize("image", [(8, 8, 1), (13, 9, 3)])
def test_shapes_and_modes(name, width, features, image):
    model = make_model(ModelConfig(name=name, width=width), image, 5, FLOAT32, nnx.Rngs(params=0))
    x = jax.random.normal(jax.random.key(1), (4, *image))
    logits, last = see(model, x)
    assert logits.shape == (4, 5)
    assert last.shape == (4, features)
    linear = model.head.linear
    np.testing.assert_allclose(logits, last @ linear.kernel[...] + linear.bias[...][None, :], atol=1e-5)
    one_by_one = jnp.concatenate([see(model, x[i : i + 1])[0] for i in range(4)])
    np.testing.assert_allclose(logits, one_by_one, atol=1e-5)


def test_training_mode_normalises_with_the_batch_and_moves_the_statistics():
    model = make_model(ModelConfig(name="cnn", width=4), (8, 8, 1), 5, FLOAT32, nnx.Rngs(params=0))
    x = 3 + 2 * jax.random.normal(jax.random.key(1), (16, 8, 8, 1))
    before = model.first.norm.mean[...]
    convolved = model.first.conv(x)
    normed = model.first(x, True)
    np.testing.assert_allclose(normed.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(normed.std(axis=(0, 1, 2)), 1, atol=1e-2)
    np.testing.assert_allclose(
        model.first.norm.mean[...], 0.9 * before + 0.1 * convolved.mean(axis=(0, 1, 2)), rtol=1e-4
    )


def test_bfloat16_computes_close_to_float32_and_keeps_float32_state():
    config, x = ModelConfig(name="resnet18", width=4), jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    models = [make_model(config, (8, 8, 3), 5, jnp.dtype(d), nnx.Rngs(params=0)) for d in ("float32", "bfloat16")]
    (exact, _), (rough, features) = (nnx.jit(partial(type(model).__call__, train=True))(model, x) for model in models)
    assert features.dtype == rough.dtype == jnp.float32
    assert 0 < np.abs(exact - rough).max() < 0.1 * np.abs(exact).max()
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(models[1]))} == {FLOAT32}
