# SPDX-License-Identifier: Apache-2.0
"""The synthetic setting: Gaussian mixtures, a shallow network that learns their labels, simulations and predictions."""
