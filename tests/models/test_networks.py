# SPDX-License-Identifier: Apache-2.0
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ncjax.config import ModelConfig
from ncjax.errors import UserError
from ncjax.models import NETWORKS, make_model
from ncjax.models.layers import pooled

FLOAT32 = jnp.dtype("float32")


@nnx.jit
def evaluated(model, x):
    """Named tensors in eval mode."""
    return model(x, train=False)


def weights(model):
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_resnet18_has_the_published_number_of_weights():
    config = ModelConfig(name="resnet18", width=64)
    model = nnx.eval_shape(lambda: make_model(config, (32, 32, 3), 10, FLOAT32, nnx.Rngs(params=0)))
    assert weights(model) == 11_173_962


@pytest.mark.parametrize(("name", "width", "features"), [("resnet18", 2, 16), ("cnn", 3, 12), ("mlp", 7, 7)])
@pytest.mark.parametrize("image", [pytest.param((8, 8, 1), marks=pytest.mark.slow), (13, 9, 3)])
def test_shapes_and_modes(name, width, features, image):
    model = make_model(ModelConfig(name=name, width=width), image, 5, FLOAT32, nnx.Rngs(params=0))
    x = jax.random.normal(jax.random.key(1), (4, *image))
    outputs = evaluated(model, x)
    logits, last = outputs["logits"], outputs["features"]
    assert logits.shape == (4, 5)
    assert last.shape == (4, features)
    linear = model.head.linear
    np.testing.assert_allclose(logits, last @ linear.kernel[...] + linear.bias[...][None, :], atol=1e-5)
    one_by_one = jnp.concatenate([evaluated(model, x[i : i + 1])["logits"] for i in range(4)])
    np.testing.assert_allclose(logits, one_by_one, atol=1e-5)


@pytest.mark.parametrize(
    ("stem", "image", "imagenet"),
    [
        ("auto", (127, 200, 3), False),
        ("auto", (128, 200, 3), True),
        ("cifar", (224, 224, 3), False),
        ("imagenet", (32, 32, 3), True),
    ],
)
def test_the_stem_of_a_resnet_follows_the_image_size_or_the_config(stem, image, imagenet):
    config = ModelConfig(name="resnet18", width=2, stem=stem)
    model = nnx.eval_shape(lambda: make_model(config, image, 5, FLOAT32, nnx.Rngs(params=0)))
    assert model.stem.conv.kernel.shape == ((7, 7, 3, 2) if imagenet else (3, 3, 3, 2))
    assert (model.stem.conv.stride, model.pools) == ((2, True) if imagenet else (1, False))


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
    outputs = [nnx.jit(partial(type(model).__call__, train=True))(model, x) for model in models]
    assert {tensor.dtype for tensor in outputs[1].values()} == {FLOAT32}
    exact, rough = (found["logits"] for found in outputs)
    assert 0 < np.abs(exact - rough).max() < 0.1 * np.abs(exact).max()
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(models[1]))} == {FLOAT32}


STAGES = {
    "resnet18": {"stem": 2, "stage1": 2, "stage2": 4, "stage3": 8, "stage4": 16},
    "resnet50": {"stem": 2, "stage1": 8, "stage2": 16, "stage3": 32, "stage4": 64},
    "vgg11": {"stage1": 2, "stage2": 4, "stage3": 8, "stage4": 16, "stage5": 16},
    "densenet": {"stem": 4, "block1": 8, "block2": 6},
    "cnn": {"first": 2, "second": 4, "third": 8},
    "mlp": {"first": 2, "second": 2},
}
LAST = {"resnet18": "stage4", "resnet50": "stage4", "vgg11": "stage5", "cnn": "third", "mlp": "second"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "resnet50" else n for n in STAGES])
def test_inner_stages_have_names_and_the_last_is_what_the_features_are_made_of(name):
    config = ModelConfig(name=name, width=2, dense_blocks=(2, 1))
    model = make_model(config, (9, 8, 3), 5, FLOAT32, nnx.Rngs(params=0))
    found = evaluated(model, jax.random.normal(jax.random.key(1), (4, 9, 8, 3)))
    features = found["features"].shape[1]
    assert {tensor: x.shape for tensor, x in found.items()} == {
        tensor: (4, size) for tensor, size in {**STAGES[name], "features": features, "logits": 5}.items()
    }
    if name in LAST:
        np.testing.assert_allclose(found[LAST[name]], found["features"], rtol=1e-6)


def test_inner_stages_are_those_of_the_network_averaged_over_positions():
    model = make_model(ModelConfig(name="resnet18", width=2), (8, 8, 3), 5, FLOAT32, nnx.Rngs(params=0))
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    found = evaluated(model, x)
    inner = jax.nn.relu(model.stem(x, False))
    np.testing.assert_allclose(found["stem"], pooled(inner), rtol=1e-5, atol=1e-6)
    for block in (0, 1, 2, 3):
        inner = model.blocks[block](inner, False)
    np.testing.assert_allclose(found["stage2"], inner.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [*(pytest.param(n, marks=pytest.mark.slow) for n in ("resnet18", "densenet")), "cnn"])
def test_stages_that_nobody_asks_for_cost_nothing_in_training(name, monkeypatch):
    """The compiled gradient has as many operations as one of a network that names no stages."""
    config = ModelConfig(name=name, width=4, dense_blocks=(2, 1))
    model = make_model(config, (8, 8, 3), 5, FLOAT32, nnx.Rngs(params=0))
    graph, params, others = nnx.split(model, nnx.Param, nnx.BatchStat)
    x = jnp.ones((4, 8, 8, 3))

    def operations(keep=()):
        def loss(params):
            outputs = nnx.merge(graph, params, jax.tree.map(jnp.copy, others))(x, train=True)
            return outputs["logits"].sum(), [outputs[stage] for stage in keep]

        program = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params).compile()
        return program.cost_analysis()["flops"]

    named, used = operations(), operations([stage for stage in STAGES[name] if stage != LAST.get(name)])
    monkeypatch.setattr(f"ncjax.models.{name.rstrip('18')}.pooled", lambda x: jnp.zeros((x.shape[0], 1)))
    assert operations() == named < used


def test_unknown_network_is_named_with_those_that_are_known():
    known = r"^model\.name is 'resnet19', but must be one of resnet18, .*, mlp \(did you mean resnet18\?\)$"
    with pytest.raises(UserError, match=known):
        make_model(ModelConfig(name="resnet19"), (8, 8, 3), 5, FLOAT32, nnx.Rngs(params=0))


def test_networks_of_the_table_are_those_of_the_tests():
    assert set(NETWORKS) == {*STAGES, "resnet34", "vgg16"}
    assert [name for name, network in NETWORKS.items() if not network.spatial] == ["mlp"]
