# SPDX-License-Identifier: Apache-2.0
"""features/EPOCH is whole or not there: a failure leaves what was before, and no draft."""

import dataclasses

import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.features import writing
from ncjax.features.store import load_features, saved_epochs
from ncjax.features.writing import save_features
from ncjax.storage.workdir import feature_draft, locked
from tests.runs import arrays_of


def changed(features):
    split = dataclasses.replace(features.train, layers={name: -rows for name, rows in features.train.layers.items()})
    return dataclasses.replace(features, train=split)


def assert_same(one, other):
    for ours, theirs in zip(arrays_of(one), arrays_of(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_features_take_the_place_of_older_ones(trained):
    found = trained.features(1)
    save_features(trained.workdir, changed(found))
    assert_same(load_features(trained.workdir, 1), changed(found))
    assert {path.name for path in (trained.workdir / "features").iterdir()} == {"0", "1", "2"}


FAILURES = {
    "write_checksums": OSError(28, "No space left on device"),
    "create_arrays": PermissionError(13, "Permission denied"),
    "open_arrays": ValueError("from TensorStore"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_leaves_the_older_ones_and_no_draft(name, trained, monkeypatch):
    found = trained.features(1)

    def fail(*args, **kwargs):
        raise FAILURES[name]

    monkeypatch.setattr(writing, name, fail)
    with pytest.raises(UserError, match=r"features cannot be written to .*the same command goes on") as error:
        save_features(trained.workdir, changed(found))
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert_same(load_features(trained.workdir, 1), found)
    assert not feature_draft(trained.workdir, 1).exists()


def test_drafts_of_killed_processes_are_no_features_and_go_with_the_next_lock(trained):
    draft = feature_draft(trained.workdir, 7)
    (draft / "0").mkdir(parents=True)
    older = draft.with_name(f"{draft.name}.older")
    older.mkdir()
    assert saved_epochs(trained.workdir) == (0, 1, 2)
    with locked(trained.workdir):
        assert not draft.exists()
        assert not older.exists()
