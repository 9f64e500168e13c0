# SPDX-License-Identifier: Apache-2.0
"""Flax NNX networks. Each maps images to named tensors; `features` are the input of the final linear layer."""

from ncjax.models.network import Network
from ncjax.models.networks import NETWORKS, make_model

__all__ = ["NETWORKS", "Network", "make_model"]
