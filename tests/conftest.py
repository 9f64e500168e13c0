# SPDX-License-Identifier: Apache-2.0
"""Eight fake devices, no silent broadcasting of ranks, and every jaxtyping annotation of ncjax checked at run time."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

install_import_hook("ncjax", "beartype.beartype")
