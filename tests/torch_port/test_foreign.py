# SPDX-License-Identifier: Apache-2.0
"""Other names of the same weights: pytorch-cifar's become torchvision's; weights that do not fit are named."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn
from torch.nn import functional

from ncjax.config import ModelConfig
from ncjax.errors import UserError
from ncjax.models import make_model
from ncjax.torch_port.foreign import to_torchvision_names
from ncjax.torch_port.networks import make_network
from ncjax.torch_port.weights import from_state_dict, to_state_dict
from tests.torch_port.conftest import CLASSES

RESNET18 = (ModelConfig(name="resnet18", width=2), (8, 8, 3))
RESNET50 = (ModelConfig(name="resnet50", width=2), (8, 8, 3))
VGG11 = (ModelConfig(name="vgg11", width=2), (8, 8, 3))
DENSENET = (ModelConfig(name="densenet", width=3, dense_blocks=(2, 3, 2)), (8, 8, 3))


def randomise(network):
    """Weights and statistics that are nowhere zero or one, all different."""
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            low = -0.5 if tensor.ndim > 1 else 0.3
            tensor.uniform_(low, low + 1, generator=generator)
    return network.eval()


def arrays_of(network):
    state = network.state_dict()
    return {name: tensor.numpy() for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def torchvision_state(config, image_shape):
    return arrays_of(randomise(make_network(config, image_shape, CLASSES)))


def logits_of(config, image_shape, params, batch_stats, images):
    """Of our network; images are PyTorch's `[b ch h w]`."""
    graph = nnx.graphdef(
        nnx.eval_shape(lambda: make_model(config, image_shape, CLASSES, jnp.dtype("float32"), nnx.Rngs(params=0)))
    )
    ours = jnp.asarray(images.permute(0, 2, 3, 1).numpy())
    return jax.jit(lambda p, b, x: nnx.merge(graph, p, b)(x, train=False)["logits"])(params, batch_stats, ours)


def assert_same_arrays(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True, err_msg=name)


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("network", "foreign", "ours"),
    [
        (RESNET18, "layer2.0.shortcut.0.weight", "layer2.0.downsample.0.weight"),
        (RESNET18, "layer4.0.shortcut.1.running_mean", "layer4.0.downsample.1.running_mean"),
        (RESNET50, "layer1.0.shortcut.0.weight", "layer1.0.downsample.0.weight"),
        (RESNET50, "layer3.0.shortcut.1.bias", "layer3.0.downsample.1.bias"),
        (RESNET50, "layer3.5.conv3.weight", "layer3.5.conv3.weight"),
        (RESNET18, "linear.bias", "fc.bias"),
        (VGG11, "linear.weight", "classifier.weight"),
        (VGG11, "classifier.0.bias", "classifier.bias"),
        (VGG11, "features.0.weight", "features.0.weight"),
        (DENSENET, "conv1.weight", "features.conv0.weight"),
        (DENSENET, "dense1.0.bn1.weight", "features.denseblock1.denselayer1.norm1.weight"),
        (DENSENET, "dense3.11.conv2.weight", "features.denseblock3.denselayer12.conv2.weight"),
        (DENSENET, "trans2.bn.running_var", "features.transition2.norm.running_var"),
        (DENSENET, "trans1.conv.weight", "features.transition1.conv.weight"),
        (DENSENET, "linear.weight", "classifier.weight"),
    ],
)
def test_name_of_pytorch_cifar_becomes_that_of_torchvision(network, foreign, ours):
    assert set(to_torchvision_names(network[0], {foreign: np.ones(2, np.float32)})) == {ours}


def with_names(state, *renames):
    for ours, foreign in renames:
        assert any(re.search(ours, name) for name in state)
        state = {re.sub(ours, foreign, name): array for name, array in state.items()}
    return state


FOREIGN = {
    "resnet18": (RESNET18, [(r"\.downsample\.", ".shortcut."), (r"^fc\.", "linear.")], 20),
    "resnet50": (RESNET50, [(r"\.downsample\.", ".shortcut."), (r"^fc\.", "linear.")], 53),
    "vgg11": (VGG11, [], 8),
    "vgg11, linear": (VGG11, [(r"^classifier\.", "linear.")], 8),
    "vgg11, classifier.0": (VGG11, [(r"^classifier\.", "classifier.0.")], 8),
}


@pytest.mark.parametrize(("network", "renames", "convolutions"), FOREIGN.values(), ids=FOREIGN)
def test_whole_checkpoint_of_pytorch_cifar_is_imported(network, renames, convolutions):
    config, image_shape = network
    state = torchvision_state(config, image_shape)
    assert sum(array.ndim == 4 for array in state.values()) == convolutions
    found = to_torchvision_names(config, with_names(state, *renames))
    assert_same_arrays(found, state)
    again = to_state_dict(config, image_shape, *from_state_dict(config, image_shape, CLASSES, found))
    assert_same_arrays(again, state)


def test_names_of_torchvision_pass_unchanged(architecture):
    config, image_shape = architecture
    state = torchvision_state(config, image_shape)
    found = to_torchvision_names(config, state)
    assert list(found) == list(state)
    assert_same_arrays(found, state)


def test_unknown_names_stay_and_are_then_listed():
    config, image_shape = RESNET18
    state = torchvision_state(config, image_shape)
    strange = {"encoder.stem": np.ones((2, 3), np.float32), "temperature": np.ones((), np.float32)}
    found = to_torchvision_names(config, state | strange)
    assert_same_arrays(found, state | strange)
    line = refused(config, image_shape, CLASSES, found)
    assert "encoder.stem 2x3 has no place" in line
    assert "temperature scalar has no place" in line
    assert misfits(line) == 2


# ------------------------------------------------------------------ DenseNet with new channels in front


class Bottleneck(nn.Module):
    """pytorch-cifar's dense layer."""

    def __init__(self, channels, growth):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        new = self.conv1(functional.relu(self.bn1(x)))
        new = self.conv2(functional.relu(self.bn2(new)))
        return torch.cat([new, x], 1)


class Shrink(nn.Module):
    """pytorch-cifar's transition."""

    def __init__(self, channels):
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(channels), nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x):
        return functional.avg_pool2d(self.conv(functional.relu(self.bn(x))), 2)


class CifarDenseNet(nn.Module):
    """pytorch-cifar's DenseNet: `conv1`, `dense1`, `trans1`, ..., `bn`, `linear`."""

    def __init__(self, counts, growth, channels, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 2 * growth, 3, padding=1, bias=False)
        channels, self.blocks = 2 * growth, len(counts)
        for block, count in enumerate(counts, start=1):
            layers = [Bottleneck(channels + place * growth, growth) for place in range(count)]
            setattr(self, f"dense{block}", nn.Sequential(*layers))
            channels += count * growth
            if block < len(counts):
                setattr(self, f"trans{block}", Shrink(channels))
                channels //= 2
        self.bn, self.linear = nn.BatchNorm2d(channels), nn.Linear(channels, classes)

    def forward(self, x):
        x = self.conv1(x)
        for block in range(1, self.blocks + 1):
            x = getattr(self, f"dense{block}")(x)
            x = getattr(self, f"trans{block}")(x) if block < self.blocks else x
        return self.linear(functional.relu(self.bn(x)).mean((2, 3)))


@pytest.mark.parametrize("counts", [(2, 3, 2), (1, 2), (3,)])
def test_densenet_of_pytorch_cifar_gives_the_same_logits(counts):
    config, image_shape = ModelConfig(name="densenet", width=3, dense_blocks=counts), (8, 8, 3)
    theirs = randomise(CifarDenseNet(counts, 3, 3, CLASSES))
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    state = to_torchvision_names(config, arrays_of(theirs))
    params, batch_stats = from_state_dict(config, image_shape, CLASSES, state)
    ours = np.asarray(logits_of(config, image_shape, params, batch_stats, images))
    with torch.no_grad():
        expected = theirs(images).numpy()
    assert np.abs(expected - expected[:1]).max() > 1e-2 * np.abs(expected).max()  # they depend on the images
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_reordering_leaves_the_given_arrays_alone():
    state = arrays_of(randomise(CifarDenseNet((2, 3, 2), 3, 3, CLASSES)))
    before = {name: array.copy() for name, array in state.items()}
    moved = to_torchvision_names(DENSENET[0], state)
    assert_same_arrays(state, before)
    weight = before["dense1.1.conv1.weight"]  # reads three new channels, then the six of the stem
    expected = np.concatenate([weight[:, 3:], weight[:, :3]], axis=1)
    np.testing.assert_array_equal(moved["features.denseblock1.denselayer2.conv1.weight"], expected)


# ------------------------------------------------------------------ weights that do not fit


def refused(config, image_shape, classes, state):
    with pytest.raises(UserError) as caught:
        from_state_dict(config, image_shape, classes, state)
    line = str(caught.value)
    assert "\n" not in line
    assert config.name in line
    assert f"width {config.width}" in line
    return line


def misfits(line):
    """How many tensors the message counts; it names them, eight at most."""
    count = int(re.search(r"\((\d+) tensors? do", line)[1])
    named = re.findall(r"(?: is missing| has no place|, but must be [\dx]+)(?=; |$)", line)
    assert len(named) == min(count, 8)
    assert (f"; and {count - 8} more" in line) == (count > 8)
    return count


def misfits_by_hand(expected, state):
    names = set(expected) ^ set(state)
    return names | {name for name in set(expected) & set(state) if expected[name].shape != state[name].shape}


@pytest.mark.parametrize("other", [VGG11, RESNET50, DENSENET, (ModelConfig(name="resnet18", width=3), (8, 8, 3))])
def test_checkpoint_of_another_network_is_counted_and_partly_named(other):
    config, image_shape = RESNET18
    expected, state = torchvision_state(config, image_shape), torchvision_state(*other)
    line = refused(config, image_shape, CLASSES, to_torchvision_names(config, state))
    assert misfits(line) == len(misfits_by_hand(expected, state)) > 8


def test_misfits_of_pytorch_cifar_densenets_are_named():
    """Another growth and another number of layers, both in the layout that is reordered."""
    config, image_shape = DENSENET
    for growth, counts in ((4, (2, 3, 2)), (3, (2, 2, 2)), (3, (2, 3))):
        state = arrays_of(CifarDenseNet(counts, growth, 3, CLASSES))
        assert misfits(refused(config, image_shape, CLASSES, to_torchvision_names(config, state))) > 8


def test_tensors_of_another_rank_are_named_in_the_layout_that_is_reordered():
    config, image_shape = DENSENET
    state = arrays_of(randomise(CifarDenseNet((2, 3, 2), 3, 3, CLASSES)))
    state |= {"dense1.0.conv1.weight": np.ones(6, np.float32), "bn.bias": np.ones((), np.float32)}
    line = refused(config, image_shape, CLASSES, to_torchvision_names(config, state))
    assert "features.denseblock1.denselayer1.conv1.weight is 6, but must be 12x6x1x1" in line
    assert "features.norm4.bias is scalar, but must be 13" in line
    assert misfits(line) == 2


def test_another_width_names_both_shapes():
    config, image_shape = RESNET18
    line = refused(config, image_shape, CLASSES, torchvision_state(ModelConfig(name="resnet18", width=3), (8, 8, 3)))
    assert re.search(r"\w\.weight is 3x3x3x3, but must be 2x2x3x3", line)


@pytest.mark.parametrize("network", [RESNET18, VGG11, DENSENET], ids=lambda network: network[0].name)
def test_missing_extra_and_other_classes_are_named(network):
    config, image_shape = network
    state = torchvision_state(config, image_shape)
    last = "fc" if config.name == "resnet18" else "classifier"
    features = state[f"{last}.weight"].shape[1]

    line = refused(config, image_shape, CLASSES, {n: array for n, array in state.items() if n != f"{last}.bias"})
    assert f"{last}.bias {CLASSES} is missing" in line
    assert misfits(line) == 1

    line = refused(config, image_shape, CLASSES, state | {"fc2.weight": np.ones((7, 3), np.float32)})
    assert "fc2.weight 7x3 has no place" in line
    assert misfits(line) == 1

    line = refused(config, image_shape, 10, state)
    assert f"{last}.weight is {CLASSES}x{features}, but must be 10x{features}" in line
    assert f"{last}.bias is {CLASSES}, but must be 10" in line
    assert misfits(line) == 2


def test_images_of_another_size_are_named_where_they_matter():
    config = ModelConfig(name="mlp", width=3)
    state = torchvision_state(config, (8, 8, 3))
    assert "fc1.weight is 3x192, but must be 3x48" in refused(config, (4, 4, 3), CLASSES, state)
    config, _ = RESNET18
    state = torchvision_state(config, (8, 8, 3))
    from_state_dict(config, (32, 32, 3), CLASSES, state)
    assert "conv1.weight is 2x3x3x3, but must be 2x1x3x3" in refused(config, (8, 8, 1), CLASSES, state)


@pytest.mark.parametrize("count", [8, 9])
def test_eight_misfits_are_all_named_and_of_nine_one_is_only_counted(count):
    config, image_shape = RESNET18
    state = dict(list(torchvision_state(config, image_shape).items())[count:])
    assert misfits(refused(config, image_shape, CLASSES, state)) == count
