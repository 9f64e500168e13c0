# SPDX-License-Identifier: Apache-2.0
import doctest

import jax.numpy as jnp
import pytest

from ncjax.errors import UserError
from ncjax.models import network
from ncjax.models.network import check_outputs

GOOD = {"logits": jnp.zeros((4, 3)), "features": jnp.zeros((4, 2), jnp.bfloat16), "inner": jnp.zeros((4, 2, 3, 5))}


def test_examples_run():
    assert doctest.testmod(network).failed == 0


def test_outputs_become_rows_of_float32():
    found = check_outputs(GOOD, 4, 3, "net")
    assert {name: (x.shape, x.dtype) for name, x in found.items()} == {
        "logits": ((4, 3), jnp.float32),
        "features": ((4, 2), jnp.float32),
        "inner": ((4, 30), jnp.float32),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": jnp.zeros((4, 7))}, r"^network net: logits are \[4, 7\], but must be \[images, 3\]$"),
        ({"features": jnp.zeros((3, 2))}, r"^network net: features is \[3, 2\], but must have a row for each"),
        ({"features": jnp.zeros(())}, r"^network net: features is \[\], but must have a row for each"),
    ],
)
def test_outputs_of_other_shapes_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        check_outputs(GOOD | change, 4, 3, "net")


def test_outputs_without_features_are_refused():
    with pytest.raises(UserError, match=r"^network net returns logits, but must return named tensors with logits and"):
        check_outputs({"logits": GOOD["logits"]}, 4, 3, "net")
