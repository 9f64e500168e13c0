# SPDX-License-Identifier: Apache-2.0
"""The record of a metric: what computes it, from what, and how its results are shown."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ncjax.results import MetricInfo

Function = Callable[..., Any]
Inputs = Literal["statistics", "classifier", "all", "super_classes", "subsample"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Metric:
    """A metric of one or several outputs; a line of `METRICS` with such a record is all that a new metric needs.

    The function is traced by `jax.jit` and called with what `inputs` names:

    - `statistics`: `function(statistics)`, for the coarse and for the fine classes;
    - `classifier`: `function(statistics, weights)`, at the level of the classifier;
    - `all`: `function(statistics)` of the fine classes, for a metric that is about all examples;
    - `super_classes`: `function(fine, coarse, super_class)`, for fine classes inside super-classes;
    - `subsample`: `function(sample, counts [c])` of at most 2,000 examples of each super-class, which has `counts`.

    Features are in units in which float32 is long enough (`ncjax.storage.arrays.Frame`); NaN is what is undefined.

    Records may share a function, which is then evaluated once.

    Attributes:
        function: returns a scalar, or a vector with an entry for each class, or a NamedTuple of these with a field for
            each output.
        inputs: what it is called with.
        outputs: how each result is shown, by name.
        sums: for a metric that needs every example: a jitted function of a block of examples, whose results are summed
            over all blocks, and the sum is the first argument of `function`. Called with `(block, means, classifier)`
            where `inputs` is `classifier` (`means`: statistics of the training split), with `(block, moments,
            super_class)` where it is `super_classes`.
        eigenvalues: whether it needs all eigenvalues of a covariance `[d d]`; not computed where `d` is large.
        power: of the unit of the features that the results are in: 0 for those without unit, 2 for squared distances.
    """

    function: Function
    inputs: Inputs
    outputs: Mapping[str, MetricInfo]
    sums: Function | None = None
    eigenvalues: bool = False
    power: int = 0

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of labels that it is measured at."""
        if self.inputs in ("statistics", "classifier"):
            return ("coarse", "fine")
        return ("all",) if self.inputs == "all" else ("within",)
