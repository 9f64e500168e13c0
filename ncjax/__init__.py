# SPDX-License-Identifier: Apache-2.0
"""ncjax: the fine-grained structure that survives neural collapse, measured in JAX.

Names are loaded when they are first used, so that `import ncjax` is fast and imports no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ncjax import collapse as collapse
    from ncjax import reproduce as reproduce
    from ncjax.cli.progress import show_progress as show_progress
    from ncjax.cluster import choose_num_clusters as choose_num_clusters
    from ncjax.cluster import kmeans as kmeans
    from ncjax.cluster.estimator import KMeans as KMeans
    from ncjax.config import Config as Config
    from ncjax.config import DataConfig as DataConfig
    from ncjax.config import EvaluateConfig as EvaluateConfig
    from ncjax.config import LossConfig as LossConfig
    from ncjax.config import MeshConfig as MeshConfig
    from ncjax.config import ModelConfig as ModelConfig
    from ncjax.config import OptimConfig as OptimConfig
    from ncjax.data import Dataset as Dataset
    from ncjax.data import load_dataset as load_dataset
    from ncjax.data.label_maps import LabelMap as LabelMap
    from ncjax.evaluation.clp import cluster_and_linear_probe as cluster_and_linear_probe
    from ncjax.evaluation.evaluator import evaluate as evaluate
    from ncjax.evaluation.linear_probe import fit_linear_probe as fit_linear_probe
    from ncjax.features.extraction import extract_features as extract_features
    from ncjax.features.feature_set import FeatureSet as FeatureSet
    from ncjax.features.run import Run as Run
    from ncjax.models import Network as Network
    from ncjax.models import Variables as Variables
    from ncjax.models import from_linen as from_linen
    from ncjax.models import from_nnx as from_nnx
    from ncjax.pipeline import train as train
    from ncjax.results import Evaluation as Evaluation

__version__ = "0.1.0"

_MODULES = {
    "Config": "ncjax.config",
    "DataConfig": "ncjax.config",
    "Dataset": "ncjax.data",
    "EvaluateConfig": "ncjax.config",
    "Evaluation": "ncjax.results",
    "FeatureSet": "ncjax.features.feature_set",
    "KMeans": "ncjax.cluster.estimator",
    "LabelMap": "ncjax.data.label_maps",
    "LossConfig": "ncjax.config",
    "MeshConfig": "ncjax.config",
    "ModelConfig": "ncjax.config",
    "OptimConfig": "ncjax.config",
    "Network": "ncjax.models",
    "Run": "ncjax.features.run",
    "Variables": "ncjax.models",
    "choose_num_clusters": "ncjax.cluster",
    "cluster_and_linear_probe": "ncjax.evaluation.clp",
    "collapse": "",  # a module
    "evaluate": "ncjax.evaluation.evaluator",
    "extract_features": "ncjax.features.extraction",
    "fit_linear_probe": "ncjax.evaluation.linear_probe",
    "from_linen": "ncjax.models",
    "from_nnx": "ncjax.models",
    "kmeans": "ncjax.cluster",
    "load_dataset": "ncjax.data",
    "reproduce": "",  # a module
    "show_progress": "ncjax.cli.progress",
    "train": "ncjax.pipeline",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES[name]
    found = getattr(importlib.import_module(module), name) if module else importlib.import_module(f"ncjax.{name}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
