# SPDX-License-Identifier: Apache-2.0
"""What is measured of a network, and why the rest has no value."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from ncjax.collapse.metrics import select
from ncjax.collapse.programs import Functions
from ncjax.collapse.reading import Classifier
from ncjax.collapse.record import Metric

MOST_FEATURES = 2048  # of whose covariance all eigenvalues are computed
CONSTANT = "all features are the same"
UNDEFINED = "undefined: too few classes, or classes without variance or at one point"
LEVELS = ("coarse", "fine", "within", "all")
NO_CLASSIFIER = "there are no classifier weights"

ClassifierLevel = Literal["coarse", "fine"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The metrics of a network.

    Attributes:
        metrics: by name.
        super_class: coarse label of each fine class.
        features: their number.
        classifier: None too where it fits no level.
        level: of the classifier.
        no_classifier: why NC3 and NC4 have no value, at one level or both.
    """

    metrics: Mapping[str, Metric]
    super_class: tuple[int, ...]
    features: int
    classifier: Classifier | None
    level: ClassifierLevel | None
    no_classifier: str

    @property
    def fine(self) -> int:
        """Number of fine classes."""
        return len(self.super_class)

    @property
    def coarse(self) -> int:
        """Number of coarse classes."""
        return max(self.super_class) + 1

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels of labels that are measured."""
        return LEVELS if self.coarse < self.fine else ("fine", "all")

    @property
    def computed(self) -> tuple[Metric, ...]:
        """The metrics that have a value."""
        return tuple(metric for metric in self.metrics.values() if not self.reason(metric))

    @property
    def functions(self) -> Functions:
        """What programs compute; the same for all networks of the same shapes and metrics."""
        once = dict.fromkeys((metric.inputs, metric.function, metric.sums) for metric in self.computed)
        return Functions(tuple(once), self.coarse, self.level)

    def reason(self, metric: Metric) -> str:
        """Why a metric has no value at any level; empty: it has one."""
        if metric.eigenvalues and self.features > MOST_FEATURES:
            return f"more than {MOST_FEATURES} features ({self.features})"
        if metric.inputs == "classifier" and self.classifier is None:
            return self.no_classifier
        return "" if set(metric.levels) & set(self.levels) else "no label map that merges classes"

    def left_out(self, has_test: bool) -> Iterator[str]:
        """Lines that say which metrics have no value, whatever the features are."""
        merges = self.coarse < self.fine
        if not merges:
            yield "coarse and within: no label map that merges classes"
        if not has_test:
            yield "test: there is no test split"
        if any(metric.inputs == "classifier" for metric in self.metrics.values()):
            if self.level is None:
                yield f"nc3 and nc4: {self.no_classifier}"
            elif merges:
                yield f"nc3 and nc4, {'coarse' if self.level == 'fine' else 'fine'}: {self.no_classifier}"
        if self.features > MOST_FEATURES and any(metric.eigenvalues for metric in self.metrics.values()):
            yield f"vci and effective_rank: more than {MOST_FEATURES} features ({self.features})"

    def why_undefined(self, level: str, counts: Float[np.ndarray, "f"], total: float) -> str:
        """Why some metrics of a level are NaN.

        Args:
            level: one of `levels`.
            counts: examples of each fine class.
            total: 0 where all features are the same.
        """
        owner, present = np.asarray(self.super_class), counts > 0
        classes = owner[present] if level == "coarse" else np.flatnonzero(present)
        if not total > 0:
            return CONSTANT
        if level in ("coarse", "fine") and len(set(classes.tolist())) < 2:
            return "fewer than two classes have examples"
        if level == "within" and np.bincount(owner[present]).max() < 2:
            return "no super-class has two classes with examples"
        return UNDEFINED if counts.max() > 1 else "no class has two examples"


def make_plan(
    metrics: Sequence[str] | None,
    super_class: tuple[int, ...],
    features: int,
    classifier: Classifier | None,
    level: ClassifierLevel | None,
    no_classifier: str,
) -> Plan:
    """The plan for a network with so many features.

    Raises:
        UserError: a metric is unknown.
    """
    fitted, fitted_level, misfit = _fit_classifier(classifier, level, super_class)
    return Plan(
        metrics=select(metrics),
        super_class=super_class,
        features=features,
        classifier=fitted,
        level=fitted_level,
        no_classifier=no_classifier if classifier is None else misfit,
    )


def _fit_classifier(
    classifier: Classifier | None, level: ClassifierLevel | None, super_class: tuple[int, ...]
) -> tuple[Classifier | None, ClassifierLevel | None, str]:
    """A classifier, the level of its classes, and why it has none, or none but this one."""
    coarse, fine = max(super_class) + 1, len(super_class)
    if classifier is None:
        return None, None, NO_CLASSIFIER
    count = len(classifier.weights)
    wanted: dict[ClassifierLevel, int] = {"fine": fine, "coarse": coarse}
    fitting = [name for name in wanted if wanted[name] == count and level in (None, name)]
    if not fitting:
        known = [f"{wanted[name]} {name}" for name in ("coarse", "fine") if level in (None, name)]
        return None, None, f"the classifier has {count} classes, not {' or '.join(known) if coarse < fine else fine}"
    if fitting[0] == "coarse" and coarse == fine:  # the same classes, perhaps in another order
        order = np.asarray(super_class)
        return Classifier(classifier.weights[order], classifier.bias[order]), "fine", ""
    return classifier, fitting[0], f"the classifier has {count} classes"
