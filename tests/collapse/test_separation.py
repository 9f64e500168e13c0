# SPDX-License-Identifier: Apache-2.0
"""The law of separation."""

import numpy as np
import pytest

from ncjax.collapse import separation_law
from ncjax.errors import UserError


def test_layers_that_follow_the_law_are_fitted_exactly():
    found = separation_law([8.0, 4.0, 2.0, 1.0])
    assert found == pytest.approx((np.log(0.5), np.log(8), 1))


def test_r2_is_the_share_of_the_variance_that_the_line_explains():
    logs = np.array([1.0, 0.2, -0.1, -1.3])
    found = separation_law(np.exp(logs).tolist())
    assert found.r2 == pytest.approx(np.corrcoef(np.arange(4), logs)[0, 1] ** 2)
    assert separation_law([2.0, 2.0]).r2 == 1


@pytest.mark.parametrize("separations", [[], [1.0], [1.0, 0.0], [1.0, float("nan")]])
def test_no_law_without_two_layers_above_0(separations):
    with pytest.raises(UserError, match="two or more layers"):
        separation_law(separations)
