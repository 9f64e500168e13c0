# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import pytest

from ncjax.ops.precision import arithmetic, compute_dtype, precise_products


@pytest.mark.parametrize(("precision", "word"), [("float32", "HIGHEST"), ("tf32", "HIGH"), ("bfloat16", "DEFAULT")])
def test_products_that_are_traced_have_the_precision(precision, word):
    def run(a, x):
        y = jax.lax.conv_general_dilated(
            x, a.reshape(1, 1, 4, 4), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return a @ a, y

    with precise_products(precision):
        text = jax.jit(run).lower(jnp.ones((4, 4)), jnp.ones((1, 2, 2, 4))).as_text()
    lines = [line for line in text.splitlines() if "dot_general" in line or "convolution" in line]
    assert len(lines) == 2
    assert all(line.count(word) == 2 for line in lines)
    assert ("HIGHEST" in text) == (word == "HIGHEST")


def test_names_of_what_devices_compute():
    for precision, of_platforms in {
        "float32": ("F32_F32_F32", "F32_F32_F32", "BF16_BF16_F32_X6"),
        "tf32": ("F32_F32_F32", "TF32_TF32_F32", "BF16_BF16_F32_X3"),
        "bfloat16": ("BF16_BF16_F32",) * 3,
    }.items():
        found = tuple(arithmetic(precision, platform) for platform in ("cpu", "gpu", "tpu"))
        assert found == of_platforms
        assert all(hasattr(jax.lax.DotAlgorithmPreset, name) for name in found)
    assert [str(compute_dtype(name)) for name in ("float32", "tf32", "bfloat16")] == ["float32", "float32", "bfloat16"]
