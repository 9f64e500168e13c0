# SPDX-License-Identifier: Apache-2.0
"""What is measured within the budget, and what is chosen by it, on a device that is a table of times."""

import jax
import pytest

from ncjax.ops.lowering_times import candidates, fastest, measure_cases, milliseconds
from ncjax.ops.member_conv import LOWERINGS, ConvCase

NARROW = ConvCase(16, 128, 32, 32, 16, 16, 3, 3, 1, "bfloat16", "bfloat16")
WIDE = NARROW._replace(height=4, width=4, channels=128, filters=128)
POINTWISE = NARROW._replace(kernel_height=1, kernel_width=1)


class Device:
    """Times by lowering; each measurement takes `secs` of its clock."""

    def __init__(self, times, secs=1.0):
        self.times, self.secs, self.now, self.asked = times, secs, 0.0, []

    def timer(self, case, lowering):
        self.asked.append((case, lowering))
        self.now += self.secs
        if self.times.get(lowering) is None:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return self.times[lowering]

    def measure(self, cases, known=None, **options):
        return measure_cases(cases, known or {}, "gpu", timer=self.timer, clock=lambda: self.now, **options)


TIMES = {"side_by_side": 2.0, "patches": 1.0, "sequential": 3.0, "grouped": 9.0}


def test_the_fastest_of_all_candidates_is_chosen():
    found = Device(TIMES).measure([NARROW, WIDE])
    assert found[str(NARROW)] == TIMES
    assert fastest(NARROW, found[str(NARROW)], "gpu") == "patches"
    assert set(found[str(WIDE)]) == {"patches", "sequential", "grouped"}  # two of 128 channels fill no tile
    assert candidates(NARROW, "gpu")[0] == "side_by_side"
    assert candidates(POINTWISE, "gpu")[0] == "patches"
    assert set(candidates(NARROW._replace(dtype="float32"), "gpu")) == set(LOWERINGS)


def test_what_fails_is_out_and_remembered():
    device = Device({**TIMES, "patches": None})
    found = device.measure([NARROW])
    assert found[str(NARROW)]["patches"] is None
    assert fastest(NARROW, found[str(NARROW)], "gpu") == "side_by_side"
    asked = len(device.asked)
    assert device.measure([NARROW], found) == found
    assert len(device.asked) == asked


def test_the_budget_bounds_the_measurements_and_the_most_expensive_cases_come_first():
    device = Device(TIMES, secs=3.0)
    found = device.measure([POINTWISE, NARROW], budget_secs=20.0)
    assert device.now <= 20.0
    assert [case for case, _ in device.asked] == [NARROW] * 4 + [POINTWISE] * 2
    assert fastest(POINTWISE, found[str(POINTWISE)], "gpu") == "patches"
    later = device.measure([POINTWISE, NARROW], found, budget_secs=20.0)
    assert len(later[str(POINTWISE)]) == 4


def test_cases_that_a_network_has_often_count_as_often():
    device = Device(TIMES, secs=3.0)
    device.measure([NARROW, *[NARROW._replace(stride=2)] * 8], budget_secs=12.0)
    assert {case.stride for case, _ in device.asked} == {2}


def test_without_time_the_table_serves():
    found = Device(TIMES).measure([NARROW], budget_secs=-1.0)
    assert found == {str(NARROW): {}}
    assert fastest(NARROW, {}, "gpu") == "side_by_side"
    assert fastest(NARROW, {"patches": 1.0}, "gpu") == "side_by_side"  # not measured beside it
    assert fastest(NARROW, dict.fromkeys(TIMES), "gpu") == "side_by_side"


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        measure_cases([NARROW], {}, "gpu", timer=lambda case, lowering: 1 / 0)


def test_a_measurement_is_a_number_of_milliseconds():
    case = ConvCase(2, 2, 4, 4, 2, 3, 3, 3, 1, "float32", "float32")
    assert all(0 < milliseconds(case, name) < 1e5 for name in ("patches", "grouped"))
