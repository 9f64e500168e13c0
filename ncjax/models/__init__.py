# SPDX-License-Identifier: Apache-2.0
"""Networks: pure functions from images to named tensors; `features` are the input of the final linear layer."""

from ncjax.models.flax_networks import from_linen, from_nnx
from ncjax.models.network import Network, Variables
from ncjax.models.networks import NETWORKS, find_network, make_model

__all__ = ["NETWORKS", "Network", "Variables", "find_network", "from_linen", "from_nnx", "make_model"]
