# SPDX-License-Identifier: Apache-2.0
"""Which folders hold features in npy files."""

import re
from pathlib import Path

TRAIN_FILE = "train_features.npy"  # by which a folder of features is known


def holds_features(folder: Path) -> bool:
    """Whether a folder, or one in it, holds train_features.npy."""
    return bool(layer_folders(folder)) or (folder / TRAIN_FILE).is_file()


def layer_folders(folder: Path) -> list[Path]:
    """Those with features, in the order of their names; numbers in these count as numbers."""

    def key(one: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", one.name)]

    return sorted((file.parent for file in folder.glob(f"*/{TRAIN_FILE}")), key=key)
