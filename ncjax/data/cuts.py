# SPDX-License-Identifier: Apache-2.0
"""How a square of a fixed size is cut out of a picture of any size: for evaluation, and at random for training."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ncjax.config import DataConfig

Cut = Callable[[Any], Any]  # of a PIL image, one with the square's size
ASPECT_RATIOS = 3 / 4, 4 / 3  # the least and the largest width / height of a random crop
ATTEMPTS = 10


def evaluation_cut(config: DataConfig) -> Cut:
    """What is taken of a picture for evaluation, and without random crops for training: by image_size and resize."""
    return partial(middle, size=config.image_size, resize=config.resize)


def training_cut(config: DataConfig, rng: np.random.Generator) -> Cut:
    """What is taken of a picture for training with random crops."""
    return partial(random_resized, size=config.image_size, least=config.crop_scale, rng=rng)


def whole(image: Any) -> Any:
    """The picture as it is."""
    return image


def middle(image: Any, *, size: int, resize: int = 0) -> Any:
    """The square in the middle that is `size / resize` of the shorter side, scaled to `size` x `size`.

    That is a picture scaled to a shorter side of `resize`, of which the middle is cut out (bilinear, antialiased).

    Args:
        image: of PIL.
        size: height and width of the result, in pixels; 0: the picture as it is.
        resize: of the shorter side; 0: `size`, which takes the largest square.
    """
    from PIL import Image

    if size == 0 or (image.size == (size, size) and resize in (0, size)):
        return image
    side = min(image.size) * size / (resize or size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))


def random_resized(image: Any, *, size: int, least: float, rng: np.random.Generator) -> Any:
    """A random crop of `random_box`, scaled to `size` x `size` (bilinear, antialiased)."""
    from PIL import Image

    box = random_box(*image.size, least=least, rng=rng)
    return image.crop(box).resize((size, size), Image.Resampling.BILINEAR)


def random_box(width: int, height: int, *, least: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a crop whose share of the area is uniform in `[least, 1]`, as is its log aspect.

    Source: Szegedy et al. 2015, in the form of `torchvision.transforms.RandomResizedCrop`: what does not fit is drawn
    again; after ten draws it is the largest crop in the middle whose ratio is in the range.
    """
    low, high = ASPECT_RATIOS
    for share, ratio, right, down in rng.random((ATTEMPTS, 4)).tolist():
        area = width * height * (least + (1 - least) * share)
        aspect = low * (high / low) ** ratio
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(right * (width - w + 1)), int(down * (height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * high)), min(height, round(width / low))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def cut_array(pixels: UInt8[np.ndarray, "h w ch"], cut: Cut) -> UInt8[np.ndarray, "height width ch"]:
    """What a cut makes of an array; one of neither 1 nor 3 channels is cut channel after channel."""
    from PIL import Image

    if pixels.shape[2] == 3:
        return np.asarray(cut(Image.fromarray(np.ascontiguousarray(pixels))))
    bands = (Image.fromarray(np.ascontiguousarray(pixels[..., i])) for i in range(pixels.shape[2]))
    return np.stack([np.asarray(cut(band)) for band in bands], -1)
