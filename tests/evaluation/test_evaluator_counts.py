# SPDX-License-Identifier: Apache-2.0
"""Programs and runs of them do not become more with networks: counted by JAX's own events."""

import dataclasses
from collections import Counter
from typing import NamedTuple

import jax
import numpy as np
import pytest

from ncjax.evaluation.evaluator import Job, evaluate_jobs
from ncjax.features.feature_set import FeatureSet
from tests.evaluation.arrays import MOD5, arrays_of, pairs

VIEWS = ("raw", "normalised", "residual_pca")


class Counts(NamedTuple):
    """Of an evaluation."""

    compiled: int
    runs: int  # of programs


def networks(members):
    sets = [arrays_of(pairs(4.0, seed=seed)) for seed in range(members)]
    (_, y, _, w), x, z = sets[0], *(np.stack([one[i] for one in sets]) for i in (0, 2))
    order = [np.concatenate([np.flatnonzero(labels == c) for c in range(10)]) for labels in (y, w)]
    return FeatureSet.from_arrays(x[:, order[0]], y[order[0]], z[:, order[1]], w[order[1]])


def epochs(count):
    return [dataclasses.replace(networks(1), epoch=epoch) for epoch in range(1, count + 1)]


def evaluate(sets):
    return evaluate_jobs([Job([one], 0, MOD5) for one in sets], views=VIEWS, restarts=2)


def counted(sets, folder):
    """Compilations of a first evaluation; runs of a second one."""
    compiled = []

    def listen(event, secs, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(secs)

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    evaluate(sets)
    jax.monitoring.unregister_event_duration_listener(listen)
    with jax.profiler.trace(folder):
        evaluate(sets)
    (file,) = folder.glob("**/*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(file)).planes
    names = Counter(
        event.name for plane in planes for line in plane.lines for event in line.events if "::" in event.name
    )
    return Counts(len(compiled), sum(count for name, count in names.items() if "ExecuteHelper" in name))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_counts_do_not_depend_on_members_and_epochs(tmp_path):
    evaluate([networks(2)])  # what a process compiles once, as whether a compiler takes an option
    wanted, *others = [
        counted(sets, tmp_path / str(number))
        for number, sets in enumerate(([networks(2)], [networks(20)], epochs(2), epochs(20)))
    ]
    assert 0 < wanted.compiled <= 40
    assert 0 < wanted.runs <= 50
    assert others == [wanted] * 3
