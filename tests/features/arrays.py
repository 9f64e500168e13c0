# SPDX-License-Identifier: Apache-2.0
"""Six classes around six means, as any user may have them."""

import numpy as np

N, D = 180, 12


def some(seed: int = 0, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Features `[n d]` and labels `[n]`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 6
    means = np.random.default_rng(9).normal(size=(6, D))
    return (2 * means[labels] + rng.normal(size=(n, D))).astype(np.float32), labels
