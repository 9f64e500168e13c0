# SPDX-License-Identifier: Apache-2.0
"""ncjax: the fine-grained structure that survives neural collapse, measured in JAX."""

__version__ = "0.1.0"
