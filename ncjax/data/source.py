# SPDX-License-Identifier: Apache-2.0
"""What a kind of data set is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ncjax.config import DataConfig
from ncjax.data.dataset import Dataset
from ncjax.data.fetch import DOWNLOADS, fetched_folder
from ncjax.errors import UserError
from ncjax.paths import user_path
from ncjax.storage.caches import cache_folder


@dataclass(frozen=True, kw_only=True)
class Source:
    """A kind of data set; a line of `SOURCES` gives it its name.

    Attributes:
        read: reads all images; may use the cache. `load_dataset` checks the result and takes subsets; without `stream`
            it cuts and scales the images, too.
        stream: opens the data set without holding its images, and takes the subsets; None, or a function that returns
            None: it is read.
        splits: whether it makes a test split by `data.test_fraction` where there is none.
        summary: what it is, in one line, for `ncjax list`.
        needs: what `data.path` must be, for `ncjax data`; empty: it reads no files.
    """

    read: Callable[[DataConfig], Dataset]
    stream: Callable[[DataConfig], Dataset | None] | None = None
    splits: bool = False
    summary: str = ""
    needs: str = "the path of its files"


def source_folder(config: DataConfig) -> Path:
    """The folder `data.path`; where that is empty, the one that `fetch` made.

    Raises:
        UserError: there is none.
    """
    root = _source_path(config) if config.path or config.source not in DOWNLOADS else _fetched(config)
    if not root.is_dir():
        raise UserError(f"data.path {root} is not a folder; give the folder of the data")
    return root.absolute()


def source_file(config: DataConfig) -> Path:
    """The file `data.path`.

    Raises:
        UserError: it is not set, or there is none.
    """
    path = _source_path(config)
    if not path.is_file():
        raise UserError(f"data.path {path} is not a file; give the file of the data")
    return path.absolute()


def _source_path(config: DataConfig) -> Path:
    if not config.path:
        raise UserError(f"data.path is empty, but data.source {config.source} needs the path of its files")
    return user_path(config.path)


def _fetched(config: DataConfig) -> Path:
    name, cache = config.source, source_cache(config)
    folder = fetched_folder(name, cache)
    if not folder.is_dir():
        other = f" --cache-dir {config.cache_dir}" if config.cache_dir else ""
        raise UserError(
            f"data.path is empty, and {name} is not in {folder}; get it with: ncjax data fetch {name}{other}, or name "
            "the folder of its files"
        )
    return folder


def source_cache(config: DataConfig) -> Path:
    """The cache of decoded arrays."""
    return user_path(config.cache_dir) if config.cache_dir else cache_folder()
