# SPDX-License-Identifier: Apache-2.0
"""Sums in float32 that keep what rounding takes: where plain ones lose everything."""

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.ops.sums import add_term, total_of, zero_sums


def test_many_small_terms_beside_a_large_one_are_kept():
    terms = np.concatenate([[1e8], np.full(1000, 0.1), [-1e8]]).astype(np.float32)
    sums = zero_sums((jnp.zeros(()), jnp.zeros(2)))
    add = jax.jit(add_term)
    for term in terms:
        sums = add(sums, (term, jnp.array([term, -term])))
    one, two = total_of(jax.device_get(sums))
    np.testing.assert_allclose(one, terms.astype(np.float64).sum(), rtol=1e-4)
    np.testing.assert_allclose(two, [one, -one])
