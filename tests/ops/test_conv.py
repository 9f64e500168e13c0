# SPDX-License-Identifier: Apache-2.0
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from ncjax.ops import conv, winograd
from ncjax.ops.conv import conv2d, conv2d_canonical, conv2d_patches, conv2d_pointwise, conv2d_xla
from ncjax.ops.winograd import conv2d_winograd
from ncjax.ops.xla import compiler_options


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


def lowerings(kernel, stride, *, even):
    """All that can take this kernel, on images of even sides or not, as functions of the input and the kernel."""
    found = {
        "chosen": partial(conv2d, stride=stride),
        "xla": partial(conv2d_xla, stride=stride),
        "patches": partial(conv2d_patches, stride=stride),
        "canonical": lambda x, kernel: conv2d_canonical(x, kernel, stride),
    }
    if stride == 1 and kernel.shape[:2] == (3, 3) and even:
        found["winograd"] = conv2d_winograd
    return found | ({"pointwise": partial(conv2d_pointwise, stride=stride)} if kernel.shape[:2] == (1, 1) else {})


SHAPES = [
    (8, 8, 3, 1),
    (2, 6, 3, 1),
    (7, 6, 3, 2),
    (8, 8, 5, 2),
    (7, 6, 5, 1),
    (1, 5, 3, 2),
    (8, 7, 3, 3),
    (7, 6, 1, 2),
    (8, 8, 1, 1),
]


@pytest.mark.parametrize(("height", "width", "size", "stride"), SHAPES)
def test_lowerings_equal_oracle_and_their_gradients_are_its_adjoint(height, width, size, stride):
    """A convolution is linear in both: `<dy, conv(x, k)> = <dx, x> = <dk, k>`; gradients equal those of XLA's."""
    x, kernel = example(height, width, size)
    expected = oracle(x, kernel, stride)
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=expected.shape), jnp.float32)
    product = np.vdot(np.float64(cotangent), expected)

    @jax.jit
    def run(x, kernel):
        chosen = lowerings(kernel, stride, even=height % 2 == width % 2 == 0)
        values = {name: jax.vjp(f, x, kernel) for name, f in chosen.items()}
        return {name: (y, pullback(cotangent)) for name, (y, pullback) in values.items()}

    found = run(x, kernel)
    for name, (y, gradients) in found.items():
        np.testing.assert_allclose(y, expected, atol=1e-5, rtol=1e-5, err_msg=name)
        for ours, xla, value in zip(gradients, found["xla"][1], (x, kernel), strict=True):
            np.testing.assert_allclose(ours, xla, atol=1e-5, rtol=1e-5, err_msg=name)
            np.testing.assert_allclose(np.vdot(np.float64(ours), np.float64(value)), product, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("images", [1, 6, 7])
def test_kernel_gradient_is_the_sum_over_blocks_of_images(monkeypatch, images):
    monkeypatch.setattr(conv, "BLOCK", 2 * 5 * 5 * 3)  # two images of six, one of seven
    rng = np.random.default_rng(images)
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((images, 5, 5, 3), (3, 3, 3, 4)))

    def gradient(lowering):
        return jax.grad(lambda kernel: jnp.sin(lowering(x, kernel)).sum())(kernel)

    blocks = jax.make_jaxpr(gradient, static_argnums=0)(lambda x, k: conv2d_canonical(x, k, 1))
    assert ("scan" in str(blocks)) == (images > 1)
    assert images == 1 or f"length={ {6: 3, 7: 7}[images] }" in str(blocks)
    np.testing.assert_allclose(
        gradient(lambda x, kernel: conv2d_canonical(x, kernel, 1)), gradient(conv2d_xla), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(("stride", "channels", "filters"), [(1, 3, 5), (2, 3, 5), (1, 1, 9)])
def test_members_are_independent_under_vmap(stride, channels, filters):
    """Values and gradients, where every member has its images, and where all share them."""
    x, kernel = example(6, 6, 3, channels, filters)
    kernels, images = jnp.stack([kernel, 2 * kernel, -kernel]), jnp.stack([x, x + 1, -x])

    def run(x, kernel):
        return jax.value_and_grad(lambda x, k: jnp.sin(conv2d(x, k, stride=stride)).sum(), argnums=(0, 1))(x, kernel)

    for axes, inputs in (((None, 0), [x] * 3), ((0, 0), images)):
        together = jax.jit(jax.vmap(run, in_axes=axes))(x if axes[0] is None else images, kernels)
        alone = jax.tree.map(
            lambda *parts: jnp.stack(parts), *(run(i, k) for i, k in zip(inputs, kernels, strict=True))
        )
        for found, expected in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_training_in_a_loop_reaches_the_fast_kernel():
    """XLA has one for canonical convolutions alone; in a loop it does not bring others into that form."""
    x, kernel = example(8, 8, 3, channels=20, filters=24)

    def descend(kernel, _):
        return kernel - jax.grad(lambda k: (conv2d_canonical(x, k, 1) ** 2).sum())(kernel), None

    loop = jax.jit(lambda k: jax.lax.scan(descend, k, None, length=2)[0], compiler_options=compiler_options())
    convolutions = [line for line in loop.lower(kernel).compile().as_text().splitlines() if " convolution(" in line]
    assert len(convolutions) == 2
    assert all("dim_labels=b01f_01io->b01f" in line for line in convolutions)


@pytest.mark.parametrize("images", [pytest.param(1, marks=pytest.mark.slow), 4, 5])
@pytest.mark.parametrize("members", [0, 2])
def test_wide_convolutions_are_the_direct_ones_in_blocks_and_under_vmap(monkeypatch, images, members):
    """Within 1e-5 of the largest entry, of values and of both gradients."""
    monkeypatch.setattr(winograd, "BLOCK", 2 * 4 * 6 * 32)  # two images of four, one of five
    rng = np.random.default_rng(images)
    shapes = ((images, 4, 6, 32), (3, 3, 32, 48), (images, 4, 6, 48))
    x, kernel, cotangent = (
        jnp.asarray(rng.normal(size=((members,) if members else ()) + shape), jnp.float32) for shape in shapes
    )

    def run(lowering):
        def alone(x, kernel, cotangent):
            y, pullback = jax.vjp(lowering, x, kernel)
            return y, *pullback(cotangent)

        return jax.jit(jax.vmap(alone) if members else alone)

    program = run(conv2d)
    assert " convolution(" not in program.lower(x, kernel, cotangent).as_text("hlo")
    for ours, direct in zip(program(x, kernel, cotangent), run(conv2d_xla)(x, kernel, cotangent), strict=True):
        assert np.abs(ours - direct).max() < 1e-5 * np.abs(direct).max()


def test_only_even_float32_images_of_many_channels_take_winograds_form():
    def convolutions(side, channels, dtype):
        x, kernel = jnp.ones((1, side, side, channels), dtype), jnp.ones((3, 3, channels, 32), dtype)
        return jax.jit(conv2d).lower(x, kernel).as_text("hlo").count(" convolution(")

    assert convolutions(4, 32, jnp.float32) == 0
    assert convolutions(5, 32, jnp.float32) == convolutions(4, 31, jnp.float32) == 1
    assert convolutions(4, 32, jnp.bfloat16) == 1
