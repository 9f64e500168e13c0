# SPDX-License-Identifier: Apache-2.0
"""Digits at random places: which pictures they are, that the places are even, and that seeds differ."""

import doctest

import numpy as np
import pytest

import ncjax.data.digits
from ncjax.data import load_dataset
from ncjax.data.digits import COPIES, SIDE, digits, shifted_digits


def test_examples_in_docstrings():
    found = doctest.testmod(ncjax.data.digits)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("name", ["train", "test"])
def test_each_digit_is_there_four_times_at_places_of_its_own(name):
    centred, shifted = getattr(digits(), name), getattr(shifted_digits(), name)
    np.testing.assert_array_equal(shifted.labels, np.repeat(centred.labels, COPIES))
    images = np.asarray(shifted.images)
    assert images.shape[1:] == (SIDE, SIDE, 1)
    for number in range(0, len(images), 97):
        digit = np.asarray(centred.images[number // COPIES])
        found = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if np.array_equal(images[number, row : row + 8, column : column + 8], digit)
        ]
        assert found
        assert images[number].sum(dtype=int) == digit.sum(dtype=int)


def test_no_digit_is_in_both_splits():
    def crops(split):
        return {np.asarray(image).tobytes() for image in split.images}

    assert not crops(digits().train) & crops(digits().test)


def test_places_are_even():
    touching = np.repeat(np.asarray(digits().train.images)[:, 0].any(axis=(1, 2)), COPIES)  # the top of their 8x8
    images = np.asarray(shifted_digits().train.images)[touching, :, :, 0]
    rows = images.any(axis=2).argmax(axis=1)
    assert np.bincount(rows, minlength=5).min() > 0.8 * len(images) / 5
    assert rows.max() == SIDE - 8


def test_seeds_differ_and_the_source_is_seed_0():
    first = np.asarray(load_dataset("shifted_digits").train.images)
    np.testing.assert_array_equal(first, shifted_digits(0).train.images)
    assert not np.array_equal(first, shifted_digits(1).train.images)
    assert shifted_digits(0).fingerprint != shifted_digits(1).fingerprint
