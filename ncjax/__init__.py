# SPDX-License-Identifier: Apache-2.0
"""ncjax: the fine-grained structure that survives neural collapse, measured in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ncjax.cluster.estimator import KMeans
    from ncjax.features.old_given import evaluate_arrays

__version__ = "0.1.0"
__all__ = ["KMeans", "__version__", "evaluate_arrays"]


def __getattr__(name: str) -> Any:
    if name == "KMeans":  # loads JAX and scikit-learn
        from ncjax.cluster.estimator import KMeans

        return KMeans
    if name == "evaluate_arrays":
        from ncjax.features.old_given import evaluate_arrays

        return evaluate_arrays
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
