# SPDX-License-Identifier: Apache-2.0
"""One step of descent against PyTorch's autograd, and against a gradient by hand, both in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.theory.config import DescentConfig, NetworkConfig, Settings
from ncjax.theory.network import accuracy, descend, hidden, init_network, label_code, mean_loss, outputs

SETTINGS = Settings(
    angle=90.0,
    norm=1.0,
    noise=0.0,
    imbalance=1.0,
    label_noise=0.0,
    gain=1.7,
    init_scale=0.8,
    lr=0.3,
    weight_decay=0.2,
)
N, D, M = 30, 7, 12


def problem(network, loss, labels):
    code = label_code(labels, loss)
    start = init_network(jax.random.key(0), network, code, D, M, SETTINGS)
    inputs = jax.random.normal(jax.random.key(1), (N, D))
    label = jax.random.randint(jax.random.key(2), (N,), 0, labels)
    return code, start, inputs, label


@pytest.mark.parametrize("scaling", ["mean", "sqrt"])
def test_step_of_the_first_layer_is_the_gradient_by_hand(scaling):
    config = NetworkConfig(scaling=scaling)
    code, start, inputs, label = problem(config, "logistic", 2)
    after = descend(start, config, DescentConfig(), SETTINGS, code, inputs, label)
    x, w, a = (np.asarray(array, np.float64) for array in (inputs, start.first, start.output[:, 0]))
    y, p = np.where(np.asarray(label) == 0, 1.0, -1.0), {"mean": 1.0, "sqrt": 0.5}[scaling]
    scale, h = 1.7 * M**-p, x @ w
    f = scale * np.maximum(h, 0) @ a
    gradient = -(x.T @ ((y / (1 + np.exp(y * f)))[:, None] * scale * a * (h > 0))) / N
    expected = (1 - 0.3 * 0.2) * w - 0.3 * M ** (2 * p - 1) / 1.7**2 * gradient
    np.testing.assert_allclose(after.first, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(after.output, start.output)


@pytest.mark.parametrize(
    ("activation", "loss", "labels"),
    [
        ("relu", "cross_entropy", 3),
        ("leaky_relu", "squared", 3),
        ("gelu", "logistic", 2),
        ("erf", "cross_entropy", 4),
        ("linear", "squared", 2),
    ],
)
def test_step_of_all_layers_is_that_of_pytorch(activation, loss, labels):
    torch = pytest.importorskip("torch")
    config = NetworkConfig(activation=activation, depth=2, trained="all")
    code, start, inputs, label = problem(config, loss, labels)
    after = descend(start, config, DescentConfig(loss=loss), SETTINGS, code, inputs, label)
    functional = torch.nn.functional
    phi = {
        "relu": torch.relu,
        "leaky_relu": lambda h: functional.leaky_relu(h, 0.1),
        "gelu": functional.gelu,
        "erf": torch.erf,
        "linear": lambda h: h,
    }[activation]

    def double(array):
        return torch.tensor(np.asarray(array, np.float64))

    weights = [double(w).requires_grad_() for w in (start.first, start.deeper[0], start.output)]
    out = 1.7 / M * phi(phi(double(inputs) @ weights[0]) @ weights[1]) @ weights[2]
    target, signs = torch.tensor(np.asarray(label)).long(), double(code)
    value = {
        "logistic": lambda: functional.softplus(-signs[target] * out).mean(),
        "cross_entropy": lambda: functional.cross_entropy(out, target),
        "squared": lambda: (out - signs[target]).pow(2).sum(dim=1).mean() / 2,
    }[loss]()
    value.backward()
    speeds = (0.3 * M / 1.7**2, 0.3 / 1.7**2, 0.3 * M / 1.7**2)
    for ours, theirs, speed in zip((after.first, after.deeper[0], after.output), weights, speeds, strict=True):
        expected = (1 - 0.3 * 0.2) * theirs.detach() - speed * theirs.grad
        np.testing.assert_allclose(ours, expected.numpy(), rtol=2e-4, atol=2e-6)
    found = outputs(start, config, SETTINGS, hidden(start, config, inputs))
    np.testing.assert_allclose(mean_loss(loss, code, found, label), value.item(), rtol=1e-5)


def test_symmetric_start_has_output_zero_and_codes_are_balanced():
    config = NetworkConfig(symmetric=True)
    for labels, loss in ((2, "logistic"), (3, "squared")):
        code, start, inputs, _ = problem(config, loss, labels)
        np.testing.assert_allclose(outputs(start, config, SETTINGS, hidden(start, config, inputs)), 0, atol=1e-6)
        np.testing.assert_allclose(code.sum(axis=0), 0, atol=1e-6)
        assert len(np.unique(np.asarray(start.first[0]))) == M // labels


def test_accuracy_is_the_nearest_code():
    code = label_code(3, "squared")
    found = jnp.array([[2.0, 0.0, 0.0], [0.0, 0.1, 0.0], [-1.0, -1.0, 0.0], [0.0, 1.0, 0.0]])
    assert accuracy(code, found, jnp.array([0, 1, 2, 0])) == 0.75
    assert accuracy(label_code(2, "logistic"), jnp.array([[3.0], [-0.1]]), jnp.array([0, 1])) == 1.0


@pytest.mark.parametrize("scaling", ["mean", "sqrt"])
def test_a_step_moves_the_output_alike_at_every_width_and_gain(scaling):
    moved = []
    for m, gain in ((2000, 1.0), (8000, 1.0), (8000, 4.0)):
        settings = SETTINGS._replace(gain=gain, init_scale=1.0, lr=1e-3, weight_decay=0.0)
        config, descent = NetworkConfig(scaling=scaling, symmetric=True), DescentConfig()
        code = label_code(2, "logistic")
        start = init_network(jax.random.key(0), config, code, 3, m, settings)
        inputs, label = jnp.eye(3), jnp.array([0, 1, 0])
        after = descend(start, config, descent, settings, code, inputs, label)
        moved.append(outputs(after, config, settings, hidden(after, config, inputs))[:, 0])
    # symmetric: half of the gates open, K = |x|^2 / 2; dL/df = -y / 2n; so f moves by lr y / 4n
    np.testing.assert_allclose(moved, np.broadcast_to(1e-3 / 12 * np.array([1, -1, 1]), (3, 3)), rtol=0.1)
