# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.training.augmentation import augment, normalise, reflect_crop

IMAGES = np.arange(1, 1 + 64 * 5 * 6 * 1, dtype=np.int64).reshape(64, 5, 6, 1) % 251


def crops(image, pad):
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    side = range(2 * pad + 1)
    return [padded[y : y + image.shape[0], x : x + image.shape[1]] for y in side for x in side]


def test_each_image_becomes_one_of_its_crops_or_their_mirror_images():
    images = jnp.asarray(IMAGES, jnp.uint8)
    out = np.asarray(augment(jax.random.key(0), images, crop_padding=2, flip=True))
    kinds = set()
    for image, found in zip(np.asarray(images), out, strict=True):
        plain = [i for i, crop in enumerate(crops(image, 2)) if np.array_equal(crop, found)]
        mirrored = [i for i, crop in enumerate(crops(image, 2)) if np.array_equal(crop[:, ::-1], found)]
        assert len(plain) + len(mirrored) >= 1
        kinds.update((i, 0) for i in plain)
        kinds.update((i, 1) for i in mirrored)
    assert len(kinds) > 25
    assert {flip for _, flip in kinds} == {0, 1}


def test_reflect_crop_mirrors_the_border_where_other_crops_have_zeros():
    images = np.random.default_rng(0).integers(1, 256, (200, 7, 6, 1), dtype=np.uint8)
    out = np.asarray(reflect_crop(jax.random.key(0), jnp.asarray(images)))
    assert out.shape == images.shape
    assert out.dtype == np.uint8
    corners = set()
    for image, found in zip(images, out, strict=True):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
        places = [(y, x) for y in range(9) for x in range(9) if np.array_equal(padded[y : y + 7, x : x + 6], found)]
        assert len(places) == 1
        corners.update(places)
    assert {y for y, _ in corners} == {x for _, x in corners} == set(range(9))


def test_reflect_crop_refuses_images_that_are_too_small():
    with pytest.raises(UserError, match="reflect_crop needs images of more than 4 pixels a side"):
        reflect_crop(jax.random.key(0), jnp.zeros((2, 4, 8, 1), jnp.uint8))


def test_nothing_asked_nothing_done():
    images = jnp.asarray(IMAGES, jnp.uint8)
    np.testing.assert_array_equal(augment(jax.random.key(0), images, crop_padding=0, flip=False), images)


def test_normalised_training_pixels_have_mean_0_and_deviation_1():
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    pixels = images.reshape(-1, 3) / 255.0
    out = normalise(
        jnp.asarray(images), jnp.asarray(pixels.mean(0), jnp.float32), jnp.asarray(pixels.std(0), jnp.float32)
    )
    np.testing.assert_allclose(np.asarray(out).reshape(-1, 3).mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(out).reshape(-1, 3).std(0), 1, atol=1e-5)
