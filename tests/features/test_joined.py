# SPDX-License-Identifier: Apache-2.0
"""Members of several parts in the order of the run, on disk or in memory, with other numbers of classes or layers."""

import dataclasses

import jax
import numpy as np
import pytest

from ncjax.errors import UserError
from ncjax.features.joined import join_features, join_states, join_summaries
from ncjax.features.store import join_members, load_features
from ncjax.results import TrainingSummary
from ncjax.training.losses import LOWEST


def part_of(features, member, classes, layers=("first", "features")):
    """One member of `trained`, with fewer outputs and layers."""
    one = features.select([member]).choose_layers(layers)

    def of_split(split):
        return dataclasses.replace(split, logits=np.stack([rows[:][:, :classes] for rows in split.logits]))

    heads = one.classifier._replace(
        weights=one.classifier.weights[..., :classes], bias=one.classifier.bias[..., :classes]
    )
    return dataclasses.replace(one, train=of_split(one.train), test=of_split(one.test), classifier=heads)


@pytest.mark.parametrize("on_disk", [False, True])
def test_rows_are_in_the_order_of_the_run_and_outputs_padded(trained, on_disk):
    features = load_features(trained.workdir, 2, on_disk=on_disk)
    parts = [part_of(features, 1, 10), part_of(features, 0, 5, ("features",))]
    joined = join_features(parts, trained.described)
    assert joined.names == features.names
    assert joined.members == features.members
    assert joined.layers == ("features",)
    assert isinstance(joined.train.layers["features"], np.ndarray) != on_disk
    for split in ("train", "test"):
        ours, theirs = getattr(joined, split), getattr(features, split)
        for one, other in zip(ours.layers["features"], theirs.layers["features"], strict=True):
            np.testing.assert_array_equal(one[:], other[:])
        np.testing.assert_array_equal(ours.logits[0, :, :5], theirs.logits[0][:][:, :5])
        assert (ours.logits[0, :, 5:] == LOWEST).all()
        np.testing.assert_array_equal(ours.logits[1], theirs.logits[1][:])
        np.testing.assert_array_equal(ours.targets, theirs.targets)
    assert (joined.classifier.weights[0, :, 5:] == 0).all()
    assert (joined.classifier.bias[0, 5:] == LOWEST).all()
    np.testing.assert_array_equal(joined.classifier.weights[1], features.classifier.weights[1])


def test_members_that_no_part_has_are_left_out(trained):
    features = load_features(trained.workdir, 2)
    joined = join_features([features.select([1])], trained.described)
    assert joined.names == features.names[1:]
    assert join_features([features], trained.described) is features


def test_members_are_joined_by_name(trained):
    described = trained.described
    first, second = (dataclasses.replace(described, members=dict([item])) for item in described.members.items())
    assert join_members([second, first], tuple(described.members)) == described
    assert tuple(join_members([second, first], ()).members) == tuple(described.members)[::-1]
    with pytest.raises(UserError, match="do not name the same members: other"):
        join_members([first, second], (*described.members, "other"))


def test_states_are_joined_where_they_fit(trained):
    state = trained.state()

    def of(member):
        return state._replace(members=jax.tree.map(lambda leaf: leaf[member : member + 1], state.members))

    joined = join_states({"a": of(1), "b": of(0)}, [1, 0])
    for one, other in zip(jax.tree.leaves(joined), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match=r"checkpoints are of different steps \(a: 20, b: 10\); ask for an epoch"):
        join_states({"a": of(0), "b": of(1)._replace(step=state.step - 10)}, [0, 1])
    smaller = of(1)._replace(members=jax.tree.map(lambda leaf: leaf[..., :2], of(1).members))
    with pytest.raises(UserError, match="other numbers of classes"):
        join_states({"a": of(0), "b": smaller}, [0, 1])


def test_summaries_are_added():
    one, other = (TrainingSummary(compile_secs=x, train_secs=10.0, failures=(str(x),), data=("d",)) for x in (1.0, 2.0))
    assert join_summaries([one, other]) == TrainingSummary(
        compile_secs=3.0, train_secs=20.0, failures=("1.0", "2.0"), data=("d",)
    )
