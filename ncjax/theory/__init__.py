# SPDX-License-Identifier: Apache-2.0
"""Gaussian mixtures, a shallow network trained on their coarse labels, thousands of runs at once, and predictions."""
