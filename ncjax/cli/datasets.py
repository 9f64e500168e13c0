# SPDX-License-Identifier: Apache-2.0
"""`ncjax data` and `ncjax data fetch`: which images are there, and how others come here."""

from collections.abc import Sequence
from pathlib import Path

import tyro

from ncjax.cli.columns import two_columns
from ncjax.cli.parsing import parse
from ncjax.cli.verbs import OF_DATA, dispatch
from ncjax.config import DataConfig
from ncjax.errors import UserError, did_you_mean
from ncjax.tables import names_of

OF_TFDS = "tfds:"


def data_verb(arguments: Sequence[str]) -> None:
    """Lists the sources of images, or calls the verb that the first argument names.

    Raises:
        UserError: there is no such verb, or it raises it.
    """
    if arguments:
        dispatch("ncjax data", "verb", OF_DATA, arguments)
    else:
        print(f"sources of images (--data.source NAME):\n\n{two_columns(_sources())}")


def _sources() -> dict[str, str]:
    from ncjax.data import SOURCES
    from ncjax.data.fetch import DOWNLOADS, fetched_folder
    from ncjax.data.tfds import prepared_sets
    from ncjax.storage.caches import cache_folder

    cache, found = cache_folder(), {}
    for name in names_of(SOURCES, "data.source"):
        source = SOURCES.get(name)
        line = f"{source.summary}. Needs {source.needs or 'nothing'}." if source else "Of an installed package."
        if name in DOWNLOADS:
            folder = fetched_folder(name, cache)
            line += f" It is in {folder}." if folder.is_dir() else " It is not here yet."
        elif name == "tfds" and (sets := prepared_sets()):
            line += f" Prepared: {', '.join(sets)}."
        found[name] = line
    return found


def fetch_verb(arguments: Sequence[str]) -> None:
    """Downloads a data set, or prepares one of TFDS, and reads it."""

    def options(
        name: tyro.conf.Positional[str], cache_dir: Path | None = None, data_dir: Path | None = None
    ) -> tuple[str, Path | None, Path | None]:
        """Download a data set, check it against its SHA-256 and unpack it; or prepare a set of TensorFlow Datasets.

        Args:
            name: The data set [cifar10, cifar100, fashion_mnist, or tfds:NAME].
            cache_dir: Where cifar10, cifar100 and fashion_mnist are put; the same as --data.cache-dir
                [path; none: ncjax/ in the user's cache folder].
            data_dir: Where tfds:NAME is put; the same as --data.path [path; none: the default of TFDS].
        """
        return name, cache_dir, data_dir

    name, cache, folder = parse("data fetch", options, arguments)
    if name.startswith(OF_TFDS):
        _refuse(cache, "--cache-dir", name)
        _prepare(name.removeprefix(OF_TFDS), folder)
    else:
        _refuse(folder, "--data-dir", name)
        _fetch(name, cache)


def _refuse(value: Path | None, option: str, name: str) -> None:
    if value is not None:
        raise UserError(f"{option} does not apply to {name}; see: ncjax data fetch --help")


def _fetch(name: str, cache: Path | None) -> None:
    from ncjax.data.fetch import DOWNLOADS, fetch

    if name not in DOWNLOADS:
        close = did_you_mean(name, DOWNLOADS)
        raise UserError(f"unknown data set {name!r}{close}; known: {', '.join(DOWNLOADS)} and {OF_TFDS}NAME")
    folder = fetch(name, cache)
    option = f" --data.cache-dir {cache}" if cache else ""
    _read(DataConfig(source=name, cache_dir=str(cache or "")), str(folder), f"--data.source {name}{option}")


def _prepare(name: str, data_dir: Path | None) -> None:
    from ncjax.data.tfds import prepare_tfds

    if not name:
        raise UserError(f"{OF_TFDS} needs the name of a set, such as {OF_TFDS}mnist")
    if ":/" in str(data_dir):  # a path has one slash
        raise UserError(f"--data-dir is {data_dir}, but must be a folder; prepare the set in one, and copy that")
    folder = prepare_tfds(name, str(data_dir or ""))
    option = f" --data.path {data_dir}" if data_dir else ""
    config = DataConfig(source="tfds", tfds_name=name, path=str(data_dir or ""))
    _read(config, folder, f"--data.source tfds --data.tfds-name {name}{option}")


def _read(config: DataConfig, folder: str, options: str) -> None:
    """Reads a data set, so that what does not fit is said now."""
    from ncjax.data import load_dataset

    dataset = load_dataset(config)
    train, test = (len(split.labels) for split in (dataset.train, dataset.test))
    print(f"{folder}: {train:,} training and {test:,} test images, {len(dataset.class_names)} classes")
    print(f"use it with: {options}")
