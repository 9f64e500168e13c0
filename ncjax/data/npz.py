# SPDX-License-Identifier: Apache-2.0
"""Arrays in an npz file."""

from pathlib import Path

import numpy as np

from ncjax.config import DataConfig
from ncjax.data.cache import fingerprint
from ncjax.data.dataset import Arrays, Dataset, join_splits
from ncjax.data.source import Source, source_file
from ncjax.errors import UserError

NAMES = ("x_train", "y_train", "x_test", "y_test")


def read_npz(file: Path, fingerprint: str) -> Dataset:
    """Arrays `x_train [n h w (ch)]` uint8, `y_train [n]` integers, `x_test`, `y_test`, and maybe `class_names [f]`.

    Raises:
        UserError: the file is no npz, an array is missing, or has another type or shape.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            missing = [name for name in NAMES if name not in content]
            if missing:
                raise UserError(f"{file} holds no array {missing[0]}; it needs {', '.join(NAMES)}")
            arrays = {name: content[name] for name in content.files}
    except UserError:
        raise
    except Exception as error:  # a damaged archive can raise anything
        raise UserError(
            f"{file} is not an npz file that can be read without pickle ({error}); save it again"
        ) from error
    train, test = (Arrays(arrays[f"x_{name}"], arrays[f"y_{name}"], f"{file}, {name}") for name in ("train", "test"))
    names = tuple(map(str, np.atleast_1d(arrays["class_names"]))) if "class_names" in arrays else None
    return join_splits(train, test, names, file.stem, fingerprint)


def _read(config: DataConfig) -> Dataset:
    file = source_file(config)
    return read_npz(file, fingerprint(file.parent, [file]))


NPZ = Source(read=_read)
