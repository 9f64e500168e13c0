# SPDX-License-Identifier: Apache-2.0
"""Double precision where single precision does not reach."""

from contextlib import AbstractContextManager
from typing import Any

import jax


def double_precision() -> AbstractContextManager[Any]:
    """A context in which JAX computes in float64 what it is given in float64; programs are compiled anew in it."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # type: ignore[attr-defined]

    return enable_x64(True)
