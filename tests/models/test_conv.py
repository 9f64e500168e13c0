# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from ncjax.models.conv import conv2d, conv2d_patches, conv2d_rows, conv2d_xla


def oracle(x, kernel, stride):
    """In float64, one image, one filter and one channel at a time."""
    (kh, kw), x, kernel = kernel.shape[:2], np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    padded = np.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    out = [
        [sum(correlate(image[..., i], kernel[..., i, o], "valid") for i in range(x.shape[-1])) for image in padded]
        for o in range(kernel.shape[-1])
    ]
    return np.moveaxis(np.array(out), 0, -1)[:, ::stride, ::stride]


def example(height, width, size, channels=3, filters=5):
    rng = np.random.default_rng(height + 10 * width + 100 * size)
    x = rng.normal(size=(2, height, width, channels)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(rng.normal(size=(size, size, channels, filters)), jnp.float32)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("shape", [(8, 8), (7, 6), (1, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_lowerings_equal_oracle(shape, size, stride):
    x, kernel = example(*shape, size)
    expected = oracle(x, kernel, stride)
    found = [conv(x, kernel, stride=stride) for conv in (conv2d_xla, conv2d_patches, conv2d)]
    if stride == 1:
        found.append(conv2d_rows(x, kernel))
    for y in found:
        np.testing.assert_allclose(y, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_agree_with_xla(stride):
    x, kernel = example(6, 8, 3)

    def gradients(conv):
        return jax.grad(lambda x, k: jnp.sin(conv(x, k, stride=stride)).sum(), argnums=(0, 1))(x, kernel)

    for ours, xla in zip(gradients(conv2d), gradients(conv2d_xla), strict=True):
        np.testing.assert_allclose(ours, xla, atol=1e-4, rtol=1e-4)


def test_members_are_independent_under_vmap():
    x, kernel = example(6, 6, 3)
    kernels = jnp.stack([kernel, 2 * kernel, -kernel])
    together = jax.vmap(conv2d, in_axes=(None, 0))(x, kernels)
    alone = jnp.stack([conv2d(x, k) for k in kernels])
    np.testing.assert_allclose(together, alone, atol=1e-5)
