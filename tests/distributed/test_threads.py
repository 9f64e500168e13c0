# SPDX-License-Identifier: Apache-2.0
"""Collectives of CPU devices end: the pool has more threads than devices, or the mesh is refused."""

import os
import subprocess
import sys

import pytest

from ncjax.distributed.threads import reserve_threads
from tests.runs import ROOT

FLAG = "--xla_force_host_platform_device_count"
NAMES = ("NPROC", "PJRT_NPROC", "XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "NCJAX_COORDINATOR", "NCJAX_DISTRIBUTED")


@pytest.mark.parametrize(
    ("environment", "cores", "expected"),
    [
        ({}, 1, {}),
        ({"XLA_FLAGS": f"{FLAG}=2"}, 2, {"NPROC": "3"}),
        ({"XLA_FLAGS": f"{FLAG}=4 --xla_dump_to=x {FLAG}=8"}, 2, {"NPROC": "9"}),
        ({"XLA_FLAGS": f"{FLAG}=8"}, 8, {"NPROC": "9"}),
        ({"XLA_FLAGS": f"{FLAG}=8"}, 9, {}),
        ({"XLA_FLAGS": f"{FLAG}=1"}, 1, {}),
        ({"JAX_NUM_CPU_DEVICES": "4"}, 2, {"NPROC": "5"}),
        ({"JAX_NUM_CPU_DEVICES": "many", "XLA_FLAGS": f"{FLAG}=2"}, 2, {"NPROC": "3"}),
        ({"XLA_FLAGS": f"{FLAG}=2", "NPROC": "1"}, 64, {"NPROC": "3"}),
        ({"XLA_FLAGS": f"{FLAG}=2", "NPROC": "5"}, 1, {"NPROC": "5"}),
        ({"XLA_FLAGS": f"{FLAG}=2", "NPROC": "two"}, 2, {"NPROC": "3"}),
        ({"XLA_FLAGS": f"{FLAG}=2", "NPROC": "9", "PJRT_NPROC": "2"}, 2, {"NPROC": "3", "PJRT_NPROC": "3"}),
        ({"NCJAX_COORDINATOR": "localhost:1"}, 1, {"NPROC": "2"}),
        ({"NCJAX_DISTRIBUTED": "auto", "XLA_FLAGS": f"{FLAG}=2"}, 2, {"NPROC": "3"}),
        ({"XLA_FLAGS": "no_such_file"}, 1, {}),
    ],
)
def test_the_pool_is_larger_than_the_number_of_devices(environment, cores, expected, monkeypatch):
    monkeypatch.delitem(sys.modules, "jax")  # else the devices of this process count
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    reserve_threads()
    assert {name: os.environ[name] for name in ("NPROC", "PJRT_NPROC") if name in os.environ} == expected


def test_flags_are_also_read_from_a_file(tmp_path, monkeypatch):
    (tmp_path / "flags").write_text(f"{FLAG}=63\n")
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    monkeypatch.setenv("NPROC", "1")
    reserve_threads()
    assert os.environ["NPROC"] == "64"


MESH = "make_mesh(MeshConfig(data=0), 4); row_mesh(MeshConfig(data=0)); print('made')"
AS_SOON_AS_STARTED = "jax.devices(); import os; os.environ['NPROC'] = '99'; "


@pytest.mark.parametrize(
    ("before", "nproc", "devices", "expected"),
    [
        (AS_SOON_AS_STARTED, 2, 2, "2 CPU devices need 3 threads or more, but JAX has started with 2, "),
        (AS_SOON_AS_STARTED, 1, 4, "4 CPU devices need 5 threads or more, but JAX has started with 4, "),
        (AS_SOON_AS_STARTED, 3, 2, "made"),
        (AS_SOON_AS_STARTED, 1, 1, "made"),
        ("", 2, 2, "made"),
        ("jax.config.update('jax_num_cpu_devices', 4); ", 1, 1, "made"),
    ],
)
def test_the_library_refuses_a_jax_that_has_started_with_too_few_threads(before, nproc, devices, expected):
    code = f"import jax; from ncjax.config import MeshConfig; from ncjax.distributed.mesh import *; {before}{MESH}"
    given = {"NPROC": str(nproc), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    given |= {"JAX_NUM_CPU_DEVICES": str(devices)}
    ended = subprocess.run([sys.executable, "-c", code], env=os.environ | given, capture_output=True, text=True)
    assert expected in (ended.stdout or ended.stderr.splitlines()[-1])
    if expected != "made":
        assert ended.stderr.splitlines()[-1].endswith(
            f"wait for each other for ever; set NPROC={devices + 1} in the environment before JAX starts"
        )
