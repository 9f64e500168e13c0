# SPDX-License-Identifier: Apache-2.0
"""torchvision's own networks with our weights; runs where torchvision is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from ncjax.config import ModelConfig
from ncjax.models import make_model
from ncjax.torch_port.files import write_state_dict
from ncjax.torch_port.networks import logits_and_features
from ncjax.torch_port.weights import to_state_dict
from tests.torch_port.conftest import CLASSES

torchvision = pytest.importorskip("torchvision")


def cifar_resnet(name):
    network = getattr(torchvision.models, name)(num_classes=CLASSES)
    network.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = torch.nn.Identity()
    return network


def imagenet_resnet50():
    return torchvision.models.resnet50(num_classes=CLASSES)


def densenet121():
    network = torchvision.models.densenet121(num_classes=CLASSES)
    network.features.conv0 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        delattr(network.features, name)
    return network


def vgg11():
    network = torchvision.models.vgg11_bn()
    network.avgpool, network.classifier = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Linear(512, CLASSES)
    return network


SMALL, LARGE = (32, 32, 3), (128, 160, 3)
NETWORKS = {
    "resnet18": (ModelConfig(name="resnet18"), SMALL, lambda: cifar_resnet("resnet18")),
    "resnet50": (ModelConfig(name="resnet50"), SMALL, lambda: cifar_resnet("resnet50")),
    "resnet50 of ImageNet": (
        ModelConfig(name="resnet50"),
        LARGE,
        imagenet_resnet50,
    ),
    "vgg11": (ModelConfig(name="vgg11"), SMALL, vgg11),
    "densenet121": (ModelConfig(name="densenet", width=32), SMALL, densenet121),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_torchvision_computes_the_same_with_our_weights(name, weights, tmp_path):
    config, shape, make = NETWORKS[name]
    params, batch_stats = weights(config, shape)
    write_state_dict(tmp_path / "net.pt", to_state_dict(config, shape, params, batch_stats))
    network = make()
    network.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    graph = nnx.graphdef(
        nnx.eval_shape(lambda: make_model(config, shape, CLASSES, jnp.dtype("float32"), nnx.Rngs(params=0)))
    )
    images = np.random.default_rng(1).normal(size=(4, *shape)).astype(np.float32)
    ours = jax.jit(lambda p, b, x: nnx.merge(graph, p, b)(x))(params, batch_stats, images)
    with torch.no_grad():
        theirs = logits_and_features(network.eval(), torch.from_numpy(images).permute(0, 3, 1, 2))
    for name, expected in zip(("logits", "features"), theirs, strict=True):
        found = ours[name]
        np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
