# SPDX-License-Identifier: Apache-2.0
"""Picture files as arrays: every kind is brought to 8 bits, grey or colour, upright, as it looks on white."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ncjax.data.cuts import Cut, whole
from ncjax.errors import UserError, first_line

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # what no other program reads for us
UNREAD = (".heic", ".heif", ".svg", ".raw", ".dng", ".npy", ".mat")
MOST_PIXELS = 2**26
GREY = ("1", "L", "LA", "La", "I", "F")
SIXTEEN_BIT = ("PNG", "PPM")  # formats whose mode I is 16 bits deep


def is_picture(file: Path) -> bool:
    """Whether a file is a picture, by its suffix, or where that is of no picture, by its first bytes.

    Raises:
        UserError: the suffix is that of a picture format that is not read.
    """
    ours, others = _suffixes()
    suffix = file.suffix.lower()
    if suffix in ours:
        return True
    if suffix in others:
        raise UserError(f"{file} is of a format that is not read; convert it to PNG or remove it")
    try:
        with _opened(file):
            return True
    except UserError:
        return False


@cache
def _suffixes() -> tuple[frozenset[str], frozenset[str]]:
    """Suffixes of the formats that are read, and of those that are not."""
    from PIL import Image

    known = Image.registered_extensions()
    ours = frozenset(suffix for suffix, kind in known.items() if kind in (*FORMATS, "MPO"))
    return ours, frozenset(known).union(UNREAD) - ours


def is_grey(file: Path) -> bool:
    """Whether the header of a picture says that it has no colours.

    Raises:
        UserError: as `decode`.
    """
    with _opened(file) as image:
        return image.mode in GREY or image.mode.startswith("I;16")


def decode(file: Path, channels: int, cut: Cut = whole) -> UInt8[np.ndarray, "h w ch"]:
    """A picture in 8 bits, turned as its EXIF data say, transparent pixels on white.

    Args:
        file: of one of `FORMATS`.
        channels: 1 for grey, 3 for colour.
        cut: what is taken of it.

    Raises:
        UserError: it is no picture, is damaged, promises more than `MOST_PIXELS`, holds several pictures, or values
            whose range is not known; the file is named.
    """
    from PIL import ImageOps

    mode = "L" if channels == 1 else "RGB"
    with _opened(file) as image:
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise UserError(f"{file} holds {image.n_frames} pictures; save the one that is meant, or each in a file")
        ImageOps.exif_transpose(image, in_place=True)
        flat = _on_white(_eight_bits(file, image))
        pixels = np.asarray(cut(flat if flat.mode == mode else flat.convert(mode)))
    return pixels.reshape(*pixels.shape[:2], channels)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The picture after its header was read; whatever Pillow raises inside the block names the file."""
    from PIL import Image

    Image.init()
    try:
        with file.open("rb") as stream, Image.open(stream, formats=[f for f in FORMATS if f in Image.OPEN]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it promises {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
            yield image
    except UserError:
        raise
    except Exception as error:  # a damaged picture can raise anything
        raise UserError(
            f"{file} is not an image that can be read ({first_line(error)}); remove or replace it"
        ) from error


def _eight_bits(file: Path, image: Any) -> Any:
    """The picture in a mode of 8 bits."""
    from PIL import Image

    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BIT)
    if not deep and image.mode in ("I", "F"):
        kind = "32-bit whole numbers" if image.mode == "I" else "floating-point numbers"
        raise UserError(f"{file} holds {kind}, whose range is not known; save it with 8 or 16 bits")
    if not deep:
        return image
    values = (np.clip(np.asarray(image).astype(np.int32), 0, 65535) + 128) // 257
    white_is_zero = image.format == "TIFF" and image.tag_v2.get(262) == 0
    return Image.fromarray((255 - values if white_is_zero else values).astype(np.uint8))


def _on_white(image: Any) -> Any:
    from PIL import Image

    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
