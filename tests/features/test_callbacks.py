# SPDX-License-Identifier: Apache-2.0
"""What callbacks return becomes a number for each member, or is refused."""

import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.features.callbacks import call_callbacks
from ncjax.pipeline import train


@pytest.mark.parametrize("values", [3, 3.0, np.float32(3), np.asarray(3), [3, 3], np.asarray([3, 3])])
def test_one_number_or_one_for_each_member(trained, values):
    names = [member.name for member in trained.members]
    assert call_callbacks([lambda epoch, run: {"x": values}], 1, trained) == {"x": dict.fromkeys(names, 3.0)}


def test_numbers_by_name_and_callbacks_that_say_nothing(trained):
    names = [member.name for member in trained.members]
    values = {names[1]: 1, names[0]: 0}
    found = call_callbacks([lambda epoch, run: None, lambda epoch, run: {"x": values}], 1, trained)
    assert found == {"x": {names[0]: 0.0, names[1]: 1.0}}


@pytest.mark.parametrize("values", ["text", [1, 2, 3], {"other": 1}, None, [[1, 2]], object()])
def test_anything_else_is_refused(trained, values):
    with pytest.raises(UserError, match=r"^a callback gives 'x', which must be one number, a number for each of the 2"):
        call_callbacks([lambda epoch, run: {"x": values}], 1, trained)


def test_two_of_the_same_name_are_refused(trained):
    with pytest.raises(UserError, match=r"^two callbacks give 'x'; rename one$"):
        call_callbacks([lambda epoch, run: {"x": 1}] * 2, 1, trained)


def test_columns_of_training_are_not_replaced(dataset, small_config):
    with pytest.raises(UserError, match=r"^a callback gives 'train_loss', which is a column of metrics\.jsonl already"):
        train(small_config, dataset, callbacks=[lambda epoch, run: {"train_loss": 1}])
