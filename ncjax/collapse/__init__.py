# SPDX-License-Identifier: Apache-2.0
"""Neural collapse: moments of features by class, and the measures that follow from them."""
