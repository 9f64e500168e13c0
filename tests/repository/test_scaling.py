# SPDX-License-Identifier: Apache-2.0
"""The model of docs/scaling.md and the reading of compiled programs, against programs that are compiled here."""

import argparse
import contextlib
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ncjax.cluster import sharded
from ncjax.cluster.in_memory import make_options
from ncjax.cluster.pca import SUBSAMPLE_ROWS
from ncjax.config import ModelConfig
from ncjax.models import make_model
from tests.scripts import load_script

DOCS = Path(__file__).parents[2] / "docs"
LIBTPU = os.environ.get("NCJAX_LIBTPU")  # the folder that it was installed into


model, plan, cost = (load_script(name) for name in ("scaling_model", "tpu_plan", "imagenet_cost"))


@pytest.mark.parametrize(("name", "side"), [("resnet18", 32), ("resnet50", 224)])
@pytest.mark.parametrize("width", [8, 64])
def test_the_model_counts_the_parameters_and_norms_of_the_network(name: str, side: int, width: int) -> None:
    config, ours = ModelConfig(name=name, width=width), getattr(model, name)(width)
    network = nnx.eval_shape(
        lambda: make_model(config, (side, side, 3), ours.classes, jnp.dtype("float32"), nnx.Rngs(params=0))
    )
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(network, nnx.Param))]
    running = [math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(network, nnx.BatchStat))]
    assert ours.parameters() == sum(sizes)
    assert ours.norm_bytes() == 2 * 4 * sum(running)  # mean and variance of each channel, forward and backward
    assert len(ours.layers) == len(running) // 2


def test_the_tables_of_the_page_are_those_of_the_model() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        model.main()
    assert printed.getvalue() in (DOCS / "scaling.md").read_text()


def test_the_cost_of_imagenet_on_the_page_is_that_of_the_formulas() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        cost.main()
    assert printed.getvalue() in (DOCS / "scaling.md").read_text()


def test_the_cost_of_imagenet_follows_from_its_parts() -> None:
    """More devices take less time, but not less money; and the measured step is slower than its bound."""
    pod, slice_of_it = (next(m for m in cost.MACHINES if m.name == name) for name in ("v5e-256", "v5e-16"))
    long, short = (cost.experiment_secs(machine) for machine in (slice_of_it, pod))
    assert 8 < long / short < 16
    assert cost.slower_than_the_model() > 1
    assert cost.all_reduce(pod, 0) == pytest.approx(14e-6)
    for machine in cost.MACHINES:
        assert machine.in_turn * machine.member == cost.MEMBERS
        assert machine.images * machine.data == cost.BATCH
        assert math.prod(machine.sides) == machine.data


def test_reads_the_collectives_of_a_program() -> None:
    program = """
    %a = f32[4,64]{1,0:T(4,128)} all-reduce(%x), channel_id=1, replica_groups={{0,1},{2,3}}, to_apply=%add
    %b = (bf16[3]{0}, f32[]) all-reduce-start(%x, %y), replica_groups=[2,8]<=[16]
    %b2 = (bf16[3]{0}, f32[]) all-reduce-done(%b)
    ROOT %c = u8[2,2]{1,0} all-gather(%z), replica_groups=mesh['axis_0'=2,'axis_1'=16] {'axis_1'}
    %d = f32[4,64]{1,0} all-reduce(%x), channel_id=2, replica_groups={{0,1},{2,3}}, to_apply=%add
    """
    assert list(plan.collectives(program)) == [
        {"what": "all-reduce", "devices": 2, "times": 2, "arrays": 1, "bytes": 1024},
        {"what": "all-reduce", "devices": 8, "times": 1, "arrays": 2, "bytes": 10},
        {"what": "all-gather", "devices": 16, "times": 1, "arrays": 1, "bytes": 4},
    ]


def test_a_step_of_k_means_adds_up_what_the_model_says() -> None:
    """Plain Lloyd: sums and masses of the clusters and the inertia, once a step; nothing the size of the points."""
    mesh, (n, d, k, restarts) = Mesh(np.array(jax.devices()), ("data",)), (4096, 16, 3, 2)
    run = sharded._compiled(mesh, P("data"), make_options(k, "k-means++", restarts, 5, True, "data")[0])
    spread, key = NamedSharding(mesh, P("data")), jax.eval_shape(lambda: jax.random.key(0))
    points, weights = (jax.ShapeDtypeStruct(s, jnp.float32, sharding=spread) for s in ((n, d), (n,)))
    found = list(plan.collectives(run.lower(key, points, weights, None, jnp.float32(1e-4)).compile().as_text()))
    assert {entry["devices"] for entry in found} == {len(jax.devices())}
    assert 4 * (restarts * k * (d + 1) + restarts) in [entry["bytes"] for entry in found]
    assert max(entry["bytes"] for entry in found) < 4 * n


@pytest.mark.slow
def test_programs_of_the_evaluator_exchange_nothing_the_size_of_the_examples() -> None:
    """Sums of the size of weights, centroids and covariances; k-means a sample of a fixed number of examples too."""
    options = argparse.Namespace(points=40_000, dims=32, k=10, groups=5)
    programs = plan.compile_evaluator(options, jax.devices())
    found = {name: list(plan.collectives(program.as_text())) for name, program in programs.items()}
    assert not found["view raw"]
    sums = 4 * 4 * 10 * 32 * 32  # of four labellings a block for each class
    sample = 4 * SUBSAMPLE_ROWS * 32 * 2
    for name, exchanged in found.items():
        most = sums + (sample if name.startswith("k-means") else 0)
        assert max((entry["bytes"] for entry in exchanged), default=0) <= most < 4 * 40_000 * 32, name


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(LIBTPU is None, reason="libtpu is not installed")
def test_the_evaluator_is_compiled_for_tpus() -> None:
    """In a process of its own: JAX would look for a TPU where libtpu is seen."""
    script, environment = DOCS / "scripts" / "tpu_plan.py", dict(os.environ) | {"PYTHONPATH": str(LIBTPU)}
    asked = ["evaluate", "--topology", "v5e:2x2", "--points", "40000", "--dims", "64"]
    command = [sys.executable, script, *asked]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    programs = json.loads(done.stdout)["programs"]
    assert len(programs) == 6
    assert all(one["memory_of_a_device_mib"]["temp"] < 1024 for one in programs.values())
