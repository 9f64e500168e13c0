# SPDX-License-Identifier: Apache-2.0
"""Labelled images from many kinds of files, behind one interface: `load_dataset(config) -> Dataset`."""

from ncjax.data.dataset import Dataset, Split, Streamed
from ncjax.data.sources import SOURCES, load_dataset

__all__ = ["SOURCES", "Dataset", "Split", "Streamed", "load_dataset"]
