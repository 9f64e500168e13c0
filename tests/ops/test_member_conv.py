# SPDX-License-Identifier: Apache-2.0
"""Every lowering of a convolution of several members is the same sum, keeps members apart, and is taken when chosen."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.ops import member_conv
from ncjax.ops.member_conv import LOWERINGS, ConvCase, by_table, conv2d_accelerator, fits, record_cases, use_lowerings
from ncjax.ops.plain_conv import conv2d_xla

MEMBERS = 5
SHAPES = {  # height, width, channels, filters, size of the kernel, stride
    "3x3": (6, 4, 3, 5, 3, 1),
    "odd sides": (7, 5, 4, 4, 3, 1),
    "stride 2": (8, 6, 4, 6, 3, 2),
    "stride 2, odd sides": (7, 5, 2, 3, 3, 2),
    "1x1, stride 2": (6, 6, 4, 8, 1, 2),
    "5x5": (6, 6, 2, 3, 5, 1),
}


def case_of(name, members=MEMBERS):
    height, width, channels, filters, size, stride = SHAPES[name]
    return ConvCase(members, 2, height, width, channels, filters, size, size, stride, "float32", "float32")


def arrays_of(case):
    """Images, kernels and a cotangent."""
    rng = np.random.default_rng(0)
    rows, columns = -(-case.height // case.stride), -(-case.width // case.stride)
    shapes = (
        (case.members, case.batch, case.height, case.width, case.channels),
        (case.members, case.kernel_height, case.kernel_width, case.channels, case.filters),
        (case.members, case.batch, rows, columns, case.filters),
    )
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def pulled(function, x, kernel, cotangent):
    """The value, and the gradients by images and kernels."""
    y, pullback = jax.vjp(function, x, kernel)
    return y, *pullback(cotangent)


def of_members(case, lowering, *arrays):
    def run(*arrays):
        member = partial(pulled, lambda x, kernel: conv2d_accelerator(x, kernel, case.stride))
        return jax.vmap(member)(*arrays)

    with use_lowerings({str(case): lowering}), jax.default_matmul_precision(case.precision):
        return jax.jit(run)(*arrays)


QUICK = ("3x3", "stride 2, odd sides")


@pytest.mark.parametrize(
    "shape", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SHAPES]
)
def test_every_lowering_and_its_gradients_are_those_of_one_member_after_the_other(shape, monkeypatch):
    monkeypatch.setattr(member_conv, "TILE", 12)  # two members side by side, and one that is left
    case = case_of(shape)
    arrays = arrays_of(case)
    alone = partial(pulled, partial(conv2d_xla, stride=case.stride))
    expected = [alone(*(a[member] for a in arrays)) for member in range(MEMBERS)]
    for lowering in [name for name in LOWERINGS if fits(case, name)]:
        for found, *right in zip(of_members(case, lowering, *arrays), *expected, strict=True):
            np.testing.assert_allclose(found, np.stack(right), rtol=1e-5, atol=1e-5, err_msg=lowering)


def test_the_shapes_leave_no_lowering_untested(monkeypatch):
    monkeypatch.setattr(member_conv, "TILE", 12)
    assert {name for shape in SHAPES for name in LOWERINGS if fits(case_of(shape), name)} == set(LOWERINGS)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_member_with_numbers_that_are_not_finite_leaves_the_others_alone(lowering, value):
    """In its images, and in its cotangent: it is frozen then, the others go on."""
    case = case_of("3x3")
    x, kernel, cotangent = arrays_of(case)
    sound = of_members(case, lowering, x, kernel, cotangent)
    for broken in ((x.at[1, 0, 0, 0].set(value), kernel, cotangent), (x, kernel, cotangent.at[1, 0, 0, 0].set(value))):
        found = of_members(case, lowering, *broken)
        for ours, right in zip(found, sound, strict=True):
            np.testing.assert_allclose(np.delete(ours, 1, 0), np.delete(right, 1, 0), rtol=1e-5, atol=1e-5)
        assert not all(np.isfinite(part[1]).all() for part in found)


def test_images_or_kernels_that_members_share_need_no_choice():
    x, kernel, _ = arrays_of(case_of("3x3"))
    convolve = partial(conv2d_accelerator, stride=1)
    shared = jax.vmap(lambda kernel: convolve(x[0], kernel))(kernel)
    np.testing.assert_allclose(shared[2], conv2d_xla(x[0], kernel[2]), rtol=1e-5, atol=1e-5)
    shared = jax.vmap(lambda x: convolve(x, kernel[0]))(x)
    np.testing.assert_allclose(shared[2], conv2d_xla(x[2], kernel[0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_one_member_has_a_plain_convolution_whatever_is_chosen(stride):
    case = case_of("3x3" if stride == 1 else "stride 2", members=1)
    arrays = arrays_of(case)
    alone = pulled(partial(conv2d_xla, stride=stride), *(a[0] for a in arrays))
    for found, right in zip(of_members(case, "patches", *arrays), alone, strict=True):
        np.testing.assert_allclose(found[0], right, rtol=1e-5, atol=1e-5)


def lowered(case, lowerings):
    x, kernel, _ = arrays_of(case)
    with use_lowerings(lowerings), jax.default_matmul_precision(case.precision):
        program = jax.jit(jax.vmap(lambda x, kernel: conv2d_accelerator(x, kernel, case.stride)))
        return program.lower(x, kernel).as_text("hlo")


def test_the_chosen_lowering_is_taken_for_its_case_alone():
    case, name = case_of("3x3"), str(case_of("3x3"))
    assert "feature_group_count=5" in lowered(case, {})  # the table of CPUs
    assert "feature_group_count=5" in lowered(case, {name: "patches, misspelt"})
    assert "feature_group_count=5" in lowered(case, {str(case_of("5x5")): "patches"})
    assert " convolution(" not in lowered(case, {name: "patches"})
    assert "while(" in lowered(case, {name: "sequential"})
    side_by_side = lowered(case, {name: "side_by_side"})
    assert "feature_group_count" not in side_by_side
    assert "f32[2,6,4,15]" in side_by_side
    assert "feature_group_count=5" in lowered(case._replace(precision="tensorfloat32"), {name: "patches"})


def test_the_table_of_gpus_fills_tiles():
    narrow = ConvCase(16, 128, 32, 32, 16, 16, 3, 3, 1, "bfloat16", "bfloat16")
    assert by_table(narrow, "gpu") == "side_by_side"
    assert by_table(narrow._replace(channels=64, filters=128), "gpu") == "patches"
    assert by_table(narrow._replace(kernel_height=1, kernel_width=1), "gpu") == "patches"
    assert by_table(narrow, "tpu") == by_table(narrow, "cpu") == "grouped"


def test_winograds_form_is_for_even_float32_images_and_small_kernels():
    case = case_of("3x3")
    assert fits(case, "winograd")
    for change in ({"height": 7}, {"stride": 2}, {"kernel_width": 5}, {"dtype": "bfloat16"}):
        assert not fits(case._replace(**change), "winograd")


def test_cases_are_recorded_once_for_each_forward_convolution():
    x, kernel, _ = arrays_of(case_of("3x3"))

    def loss(x, kernel):
        return conv2d_accelerator(conv2d_accelerator(x, kernel, 1), kernel.swapaxes(2, 3), 2).sum()

    with record_cases() as met, jax.default_matmul_precision("float32"):
        jax.eval_shape(jax.vmap(jax.grad(loss, argnums=(0, 1))), x, kernel)
    assert met == [case_of("3x3"), case_of("3x3")._replace(channels=5, filters=3, stride=2)]
    with record_cases() as none:
        jax.eval_shape(lambda: conv2d_accelerator(x[0], kernel[0], 1))
    assert none == []


def test_the_text_of_a_case_says_all_of_it():
    case = case_of("stride 2")
    assert str(case) == "5 x 2x8x6x4 * 3x3x4x6 / 2, float32, float32"
    texts = {str(case._replace(**{name: value})) for name, value in zip(case._fields, range(20, 31), strict=True)}
    assert len(texts) == len(case._fields)
