# SPDX-License-Identifier: Apache-2.0
"""Our networks and their PyTorch twins are the same functions of the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

from ncjax.config import ModelConfig
from ncjax.errors import UserError
from ncjax.models import NETWORKS, make_model
from ncjax.torch_port.networks import TWINS, logits_and_features, make_network
from ncjax.torch_port.weights import from_state_dict, to_state_dict
from tests.torch_port.conftest import CLASSES, arrays_of


def graph_of(config, image_shape):
    return nnx.graphdef(
        nnx.eval_shape(lambda: make_model(config, image_shape, CLASSES, jnp.dtype("float32"), nnx.Rngs(params=0)))
    )


def twin_of(config, image_shape, params, batch_stats):
    twin = make_network(config, image_shape, CLASSES)
    state = to_state_dict(config, image_shape, params, batch_stats)
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=False)
    buffers = {name for name in twin.state_dict() if name.endswith("num_batches_tracked")}
    assert set(twin.state_dict()) - buffers == set(state)
    return twin


def batch(image_shape, count=6):
    rng = np.random.default_rng(1)
    images = rng.normal(size=(count, *image_shape)).astype(np.float32)
    return images, torch.from_numpy(images).permute(0, 3, 1, 2), rng.integers(0, CLASSES, count)


def relative(ours, theirs):
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def test_outputs_and_features_agree_in_evaluation(architecture, weights):
    config, image_shape = architecture
    params, batch_stats = weights(config, image_shape)
    images, torch_images, _ = batch(image_shape)
    graph = graph_of(config, image_shape)
    ours = jax.jit(lambda p, b, x: nnx.merge(graph, p, b)(x, train=False))(params, batch_stats, images)
    twin = twin_of(config, image_shape, params, batch_stats).eval()
    their_logits, their_features = logits_and_features(twin, torch_images)
    assert relative(ours["logits"], their_logits) < 1e-4
    assert relative(ours["features"], their_features) < 1e-4


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "vgg11", "densenet", "mlp")]


@pytest.mark.parametrize("architecture", ["resnet18", *SLOW, "cnn"], indirect=True)
def test_outputs_gradients_and_statistics_agree_in_training(architecture, weights):
    config, image_shape = architecture
    params, batch_stats = weights(config, image_shape)
    images, torch_images, targets = batch(image_shape)
    graph = graph_of(config, image_shape)

    @jax.jit
    def gradients_of(params):
        def loss_of(params):
            model = nnx.merge(graph, params, batch_stats)
            outputs = model(jnp.asarray(images), train=True)
            logits, features = outputs["logits"], outputs["features"]
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(targets)).mean()
            return loss, (logits, features, arrays_of(model, nnx.BatchStat))

        return jax.grad(loss_of, has_aux=True)(params)

    gradients, (logits, features, moved) = gradients_of(params)
    twin = twin_of(config, image_shape, params, batch_stats).train()
    their_logits, their_features = logits_and_features(twin, torch_images)
    torch.nn.functional.cross_entropy(their_logits, torch.from_numpy(targets)).backward()
    assert relative(logits, their_logits) < 1e-4
    assert relative(features, their_features) < 1e-4
    theirs = {name: parameter.grad for name, parameter in twin.named_parameters()}
    ours = to_state_dict(config, image_shape, gradients, {})
    assert set(ours) == set(theirs)
    scale = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        np.testing.assert_allclose(ours[name], gradient.numpy(), atol=1e-3 * scale, rtol=1e-3, err_msg=name)
    statistics = to_state_dict(config, image_shape, {}, moved)
    assert (len(statistics) == 0) == (config.name == "mlp")
    for name, array in statistics.items():
        np.testing.assert_allclose(array, twin.state_dict()[name].numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_weights_survive_the_way_there_and_back_bit_for_bit(architecture, weights):
    config, image_shape = architecture
    params, batch_stats = weights(config, image_shape)
    state = to_state_dict(config, image_shape, params, batch_stats)
    back = from_state_dict(config, image_shape, CLASSES, state)
    jax.tree.map(np.testing.assert_array_equal, back, (params, batch_stats))


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (ModelConfig(name="resnet18"), 11_173_962),
        (ModelConfig(name="resnet34"), 21_282_122),
        pytest.param(ModelConfig(name="resnet50"), 23_520_842, marks=pytest.mark.slow),
        (ModelConfig(name="vgg11"), 9_231_114),
        (ModelConfig(name="vgg16"), 14_728_266),
        pytest.param(ModelConfig(name="densenet", width=32), 6_956_298, marks=pytest.mark.slow),
        pytest.param(
            ModelConfig(name="densenet", width=12, dense_blocks=(16, 16, 16)), 769_162, marks=pytest.mark.slow
        ),
    ],
)
def test_parameter_counts_are_the_published_ones(config, published):
    """Those of the pytorch-cifar networks; the last, DenseNet-BC (L=100, k=12), of Huang et al. 2017 (0.8 M)."""
    shape = (32, 32, 3)
    model = nnx.eval_shape(lambda: make_model(config, shape, 10, jnp.dtype("float32"), nnx.Rngs(params=0)))
    assert sum(x.size for x in jax.tree.leaves(arrays_of(model, nnx.Param))) == published
    with torch.device("meta"):
        assert sum(x.numel() for x in make_network(config, shape, 10).parameters()) == published


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet18", 11_689_512),
        pytest.param("resnet34", 21_797_672, marks=pytest.mark.slow),
        pytest.param("resnet50", 25_557_032, marks=pytest.mark.slow),
    ],
)
def test_with_the_stem_of_imagenet_the_counts_are_those_of_torchvision(name, published):
    config, shape = ModelConfig(name=name), (224, 224, 3)
    model = nnx.eval_shape(lambda: make_model(config, shape, 1000, jnp.dtype("float32"), nnx.Rngs(params=0)))
    assert sum(x.size for x in jax.tree.leaves(arrays_of(model, nnx.Param))) == published
    with torch.device("meta"):
        assert sum(x.numel() for x in make_network(config, shape, 1000).parameters()) == published


def test_every_network_has_a_twin_and_others_are_refused():
    assert list(TWINS) == list(NETWORKS)
    with pytest.raises(UserError, match=r"^model\.name is 'resnet19', but networks with a PyTorch twin are resnet18, "):
        make_network(ModelConfig(name="resnet19"), (8, 8, 3), 5)
