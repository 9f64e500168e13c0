# SPDX-License-Identifier: Apache-2.0
"""Makes a set of JPEG pictures of many sizes, as an image folder and as a TFDS set in ArrayRecord: ImageNet in small.

    python docs/scripts/made_pictures.py FOLDER --pictures 2000 --classes 20 --least 160 --most 500

FOLDER/folder holds train, val and superclasses.csv; FOLDER/records is a data_dir of TFDS with the set `made`. A fifth
of the pictures of each class are its validation split. A class is a grating of one orientation and wavelength on a
surface whose spectrum falls with the frequency, as that of photographs does; one orientation is a super-class.
"""

import argparse
import io
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

WAVELENGTHS = 4  # of each orientation
SURFACES, SURFACE = 16, 1024  # how many, and their side in pixels


def main() -> None:
    """Parse, make, write."""
    options = _options()
    splits = dict(make_pictures(options.pictures, options.classes, options.least, options.most))
    write_folder(options.folder / "folder", splits)
    write_records(options.folder / "records" / "made" / "1.0.0", splits, options.classes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--least", type=int, default=160, help="side, in pixels")
    parser.add_argument("--most", type=int, default=500, help="side, in pixels")
    return parser.parse_args()


def make_pictures(count: int, classes: int, least: int, most: int) -> Iterator[tuple[str, list[tuple[bytes, int]]]]:
    """Name of each split and its JPEG files with their labels; every fifth of a class is for `val`."""
    made: dict[str, list[tuple[bytes, int]]] = {"train": [], "val": []}
    for label in range(classes):
        for number in range(count // classes):
            picture = _picture(np.random.default_rng([label, number]), label, least, most)
            made["val" if number % 5 == 0 else "train"].append((picture, label))
    yield from made.items()


def _picture(rng: np.random.Generator, label: int, least: int, most: int) -> bytes:
    from PIL import Image

    height, width = rng.integers(least, most + 1, 2).tolist()
    orientation, wavelength = divmod(label, WAVELENGTHS)
    angle = math.pi * orientation / 5 + rng.normal() * 0.05
    rows, columns = np.ogrid[:height, :width]
    phase = (columns * math.cos(angle) + rows * math.sin(angle)) * (
        2 * math.pi * 3 * 1.6**wavelength / min(height, width)
    )
    grating = np.sin(phase.astype(np.float32) + rng.uniform(0, 2 * math.pi))[..., None] * rng.uniform(12, 40, 3)
    left, top = rng.integers(0, SURFACE // 2, 2).tolist()
    box = (left, top, left + SURFACE // 2, top + SURFACE // 2)
    surface = _surface(int(rng.integers(SURFACES))).resize((width, height), Image.Resampling.BICUBIC, box)
    pixels = np.clip(np.asarray(surface) + grating, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


@cache
def _surface(number: int) -> Any:
    """Noise of all sizes, of which the coarse is the strongest."""
    from PIL import Image

    rng, total = np.random.default_rng([SURFACES, number]), np.full((SURFACE, SURFACE, 3), 128, np.float32)
    for side in (2**octave for octave in range(1, 10)):
        noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        enlarged = np.asarray(noise.resize((SURFACE, SURFACE), Image.Resampling.BICUBIC), np.float32)
        total += (enlarged - 128) * 0.8 * side**-0.4
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


def class_names(classes: int) -> list[str]:
    """Of the folders, in alphabetical order."""
    return [f"class{label:03}" for label in range(classes)]


def write_folder(root: Path, splits: dict[str, list[tuple[bytes, int]]]) -> None:
    """An image folder with its hierarchy."""
    labels = sorted({label for _, label in splits["train"]})
    names = class_names(len(labels))
    for split, pictures in splits.items():
        for number, (content, label) in enumerate(pictures):
            place = root / split / names[label]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:05}.jpg").write_bytes(content)
    rows = [f"{name},orientation{label // WAVELENGTHS}" for label, name in enumerate(names)]
    (root / "superclasses.csv").write_text("\n".join(["class,super_class", *rows]) + "\n")


def write_records(folder: Path, splits: dict[str, list[tuple[bytes, int]]], classes: int) -> None:
    """A TFDS set in ArrayRecord, as `tfds build --file_format=array_record` prepares it; it needs no TensorFlow."""
    import tensorflow_datasets as tfds

    folder.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=folder.parent.name, version=tfds.core.Version(folder.name), data_dir=str(folder), module_name="made"
    )
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=class_names(classes)),
        }
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=512, file_format="array_record")
    writer.initialize_splits(list(splits))
    for split, pictures in splits.items():
        rows = [{"image": io.BytesIO(content), "label": label} for content, label in pictures]
        writer.add_examples({split: rows})
    writer.close_all()


if __name__ == "__main__":
    main()
