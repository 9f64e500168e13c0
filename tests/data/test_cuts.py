# SPDX-License-Identifier: Apache-2.0
"""Squares that are cut out of pictures, beside their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ncjax.data.cuts import ASPECT_RATIOS, cut_array, middle, random_box, random_resized

RNG = np.random.default_rng(0)
SIDES = st.integers(1, 700)


def ramp(width, height):
    """A picture whose value is the column."""
    return Image.fromarray(np.broadcast_to(np.arange(width, dtype=np.uint8), (height, width)).copy())


@pytest.mark.parametrize(("width", "height"), [(200, 100), (100, 150), (128, 128)])
def test_the_evaluation_crop_is_the_middle_of_the_picture_scaled_to_a_shorter_side(width, height):
    pixels = np.asarray(middle(ramp(width, height), size=28, resize=32)).astype(float)
    scale = min(width, height) / 32
    left = (width - 28 * scale) / 2
    wanted = left + (np.arange(28) + 0.5) * scale - 0.5
    assert pixels.shape == (28, 28)
    np.testing.assert_allclose(pixels[14], wanted, atol=1)


def test_the_evaluation_crop_is_close_to_that_of_two_steps():
    """Scaled to whole pixels first, then cut at whole pixels, as torchvision's Resize and CenterCrop."""
    smooth = Image.fromarray(RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((400, 300))
    two = smooth.resize((341, 256), Image.Resampling.BILINEAR)
    left, top = round((341 - 224) / 2), round((256 - 224) / 2)
    wanted = np.asarray(two.crop((left, top, left + 224, top + 224))).astype(int)
    assert np.abs(np.asarray(middle(smooth, size=224, resize=256)).astype(int) - wanted).max() <= 6


def test_without_a_size_or_at_that_size_the_picture_stays():
    picture = ramp(20, 20)
    assert middle(picture, size=0) is picture
    assert middle(picture, size=20) is picture
    assert middle(picture, size=20, resize=25).size == (20, 20)


@given(SIDES, SIDES, st.floats(0.01, 1), st.integers(0, 2**32 - 1))
def test_a_random_crop_lies_in_the_picture_and_has_the_area_and_ratio_asked_for(width, height, least, seed):
    left, top, right, bottom = random_box(width, height, least=least, rng=np.random.default_rng(seed))
    w, h = right - left, bottom - top
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    low, high = ASPECT_RATIOS
    if min(w, h) > 20:  # what rounding to pixels does is small
        if low <= width / height <= high:
            assert w * h >= 0.93 * least * width * height
        assert 0.95 * low <= w / h <= 1.05 * high


@pytest.mark.parametrize(
    ("size", "box"), [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506)), ((40, 30), (0, 0, 40, 30))]
)
def test_where_nothing_fits_the_crop_is_the_largest_in_the_middle(size, box):
    class Whole(np.random.Generator):
        """Draws the largest area at a ratio of 1, which fits none of these pictures."""

        def random(self, shape):
            return np.broadcast_to([1.0, 0.5, 0.0, 0.0], shape)

    assert random_box(*size, least=1.0, rng=Whole(np.random.PCG64())) == box


def test_area_is_uniform_and_so_is_the_logarithm_of_the_ratio():
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(4000, 4000, least=0.1, rng=rng) for _ in range(4000)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    small = w * h / 16e6 < 0.7  # all of these fit, whatever their ratio
    share, ratio = (w * h / 16e6)[small], (np.log(w / h) / math.log(4 / 3))[small]
    assert np.abs(np.quantile(share, [0.25, 0.5, 0.75]) - [0.25, 0.4, 0.55]).max() < 0.02
    assert np.abs(np.quantile(ratio, [0.25, 0.5, 0.75]) - [-0.5, 0, 0.5]).max() < 0.06
    free = boxes[:, 0] / np.maximum(1, 4000 - w)
    assert np.abs(np.quantile(free, [0.25, 0.5, 0.75]) - [0.25, 0.5, 0.75]).max() < 0.04


def test_a_random_crop_is_scaled_to_the_size():
    picture = Image.fromarray(RNG.integers(0, 256, (50, 70, 3), dtype=np.uint8))
    made = random_resized(picture, size=24, least=0.08, rng=np.random.default_rng(3))
    box = random_box(70, 50, least=0.08, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(made, picture.crop(box).resize((24, 24), Image.Resampling.BILINEAR))


def test_torchvision_draws_from_the_same_distribution():
    transforms = pytest.importorskip("torchvision.transforms")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    picture, rng = torch.zeros(3, 300, 500), np.random.default_rng(0)
    theirs = np.array(
        [transforms.RandomResizedCrop.get_params(picture, (0.08, 1.0), ASPECT_RATIOS) for _ in range(5000)]
    )
    ours = np.array([random_box(500, 300, least=0.08, rng=rng) for _ in range(5000)])
    ours = np.stack([ours[:, 1], ours[:, 0], ours[:, 3] - ours[:, 1], ours[:, 2] - ours[:, 0]], 1)
    quantiles = [0.1, 0.25, 0.5, 0.75, 0.9]
    for mine, other, side in zip(ours.T, theirs.T, (300, 500, 300, 500), strict=True):
        assert np.abs(np.quantile(mine, quantiles) - np.quantile(other, quantiles)).max() < 0.03 * side


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_arrays_of_any_number_of_channels_are_cut_alike(channels):
    pixels = RNG.integers(0, 256, (30, 41, channels), dtype=np.uint8)
    made = cut_array(pixels, lambda image: middle(image, size=16, resize=20))
    assert made.shape == (16, 16, channels)
    for i in range(channels):
        alone = cut_array(pixels[..., i : i + 1], lambda image: middle(image, size=16, resize=20))
        np.testing.assert_array_equal(made[..., i], alone[..., 0])
