# SPDX-License-Identifier: Apache-2.0
"""What devices tell each other in a step, read from the compiled program: nothing over `member`."""

import dataclasses
import re

import numpy as np
import pytest

from ncjax.config import MeshConfig, ModelConfig
from ncjax.training.loop import prepare
from ncjax.training.state import init_state
from ncjax.training.step import compile_chunk

KINDS = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all"


def collectives(config, dataset, **mesh):
    """(kind, shapes, groups of devices) of each collective of a chunk of steps, for four members."""
    run = prepare(dataclasses.replace(config, seeds=4, mesh=MeshConfig(**mesh)), dataset)
    program = compile_chunk(run.spec, init_state(run.spec, run.ensemble), run.images, run.ensemble).as_text()
    found = re.findall(rf" = (.*?) ({KINDS})(?:-start)?\(.*?replica_groups=(.*?), [a-z_]+=", program)
    return [(kind, re.findall(r"\w+\[[\d,]*\]", shapes), groups_of(groups)) for shapes, kind, groups in found]


def groups_of(text):
    """`{{0,1},{2,3}}`, or `[2,2]<=[4]`, maybe with `T(1,0)`: so many groups of so many of the devices in order."""
    if text.startswith("{"):
        return [[int(number) for number in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", text)]
    shape, devices, turned = re.fullmatch(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text).groups()
    shape, devices = ([int(number) for number in numbers.split(",")] for numbers in (shape, devices))
    order = np.arange(np.prod(devices)).reshape(devices)
    return order.transpose([int(axis) for axis in turned.split(",")] if turned else None).reshape(shape).tolist()


def values(shapes):
    return sum(int(np.prod([int(n) for n in re.findall(r"\d+", shape.split("[")[1])] or [1])) for shape in shapes)


def test_groups_are_read_as_xla_writes_them():
    assert groups_of("{{0,1},{2,3}}") == groups_of("[2,2]<=[4]") == [[0, 1], [2, 3]]
    assert groups_of("[2,2]<=[2,2]T(1,0)") == [[0, 2], [1, 3]]


def test_one_all_reduce_of_the_gradients_and_none_over_members(config, dataset):
    """A network without BatchNorm on 2 x 4: the gradients of a device's two members, their loss and accuracy."""
    config = dataclasses.replace(config, model=ModelConfig(name="mlp", width=8))
    ((kind, shapes, groups),) = collectives(config, dataset, member=2, data=4)
    assert kind == "all-reduce"
    assert groups == [[0, 1, 2, 3], [4, 5, 6, 7]]
    parameters = (60 * 8 + 8) + (8 * 8 + 8) + (8 * 5 + 5)
    assert values(shapes) == 2 * (parameters + 2)


def test_batchnorm_adds_two_all_reduces_a_layer_and_none_over_members(config, dataset):
    """Three layers: sums forward and backward; the first layer's backward sums travel with the gradients.

    On CPUs members are sequential in the gradient of the first kernel, which is in a loop of its own.
    """
    found = collectives(config, dataset, member=2, data=4)
    assert {kind for kind, _, _ in found} == {"all-reduce"}
    assert all(groups == [[0, 1, 2, 3], [4, 5, 6, 7]] for _, _, groups in found)
    assert len(found) == 1 + (2 * 3 - 1) + 1


def test_members_alone_on_their_devices_tell_each_other_nothing(config, dataset):
    config = dataclasses.replace(config, model=ModelConfig(name="mlp", width=8))
    assert collectives(config, dataset, member=4, data=1) == []


@pytest.mark.slow
def test_sharded_parameters_are_gathered_once_a_step_and_their_gradients_summed_over_data(config, dataset):
    config = dataclasses.replace(config, model=ModelConfig(name="mlp", width=8))
    found = collectives(config, dataset, member=2, data=4, shard_params=True)
    assert all(groups == [[0, 1, 2, 3], [4, 5, 6, 7]] for _, _, groups in found)
    kinds = [kind for kind, _, _ in found]
    assert kinds.count("all-gather") == 5  # kernels and biases whose size four divides; the last bias has five values
    assert kinds.count("all-reduce") == 2  # gradients, and whether all of them are finite
