# SPDX-License-Identifier: Apache-2.0
"""Real processes of the command line, alone or several together, and what they leave behind."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from ncjax.features.feature_set import FeatureSet
from ncjax.features.store import load_features

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "configs" / "digits_demo.py"
TINY = ["--model.name", "mlp", "--model.width", 8, "--optim.epochs", 2, "--seeds", 1, "--data.train-examples", 320]
TINY += ["--data.test-examples", 100, "--evaluate.restarts", 2, "--checkpoint-minutes", 0]
OF_A_PROCESS = ("wall_secs", "device", "command", "mesh")  # what may differ between two ways to run the same


def command(verb: str, workdir: Path, *options: object) -> list[object]:
    """A run of three small members on 320 digits for two epochs of five steps."""
    return [verb, DEMO, "--workdir", workdir, *TINY, *options]


def environment_of_a_user() -> dict[str, str]:
    """That of this process without what tests say about compiled programs."""
    ours = ("JAX_COMPILATION_CACHE", "JAX_ENABLE_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE", "TF_CPP_MIN_LOG_LEVEL")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def start(
    arguments: Sequence[object], *, devices: int = 1, before: str = "", **environment: object
) -> subprocess.Popen:
    """`ncjax ARGUMENTS` in a process with so many fake devices; `before` is run first."""
    flags = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
    }
    ours = {name: value for name, value in os.environ.items() if name != "NPROC"}  # of tests/conftest.py
    return subprocess.Popen(
        [sys.executable, "-c", f"{before}\nfrom ncjax.cli.main import main\nmain()", *map(str, arguments)],
        env=ours | flags | {"PYTHONPATH": str(ROOT)} | {k: str(v) for k, v in environment.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Of the command alone: what a process is started by counts as its own until it runs something else.
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


def measuring_memory(command: Sequence[object], report: Path) -> list[str]:
    """A command that runs this one and leaves its largest resident memory in a file [KiB]."""
    return [sys.executable, "-c", MEASURED, str(report), *map(str, command)]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start_several(arguments: Sequence[object], *, processes: int, devices: int, **options: object) -> list:
    """The same command in several processes that find each other, each with so many devices."""
    given = {"NCJAX_COORDINATOR": f"127.0.0.1:{free_port()}", "NCJAX_PROCESSES": processes}
    given |= {"NCJAX_DEVICES": processes * devices} | options
    return [start(arguments, devices=devices, NCJAX_PROCESS=index, **given) for index in range(processes)]


def messages(said: str) -> list[str]:
    """The lines that a command wrote on stderr, but for those of its progress."""
    return [line for line in said.splitlines() if line.strip() and not line.startswith("[")]


def ended(processes: Sequence[subprocess.Popen], timeout: float = 240) -> list[tuple[int, str]]:
    """Exit code and stderr of each; none of them is left behind."""
    try:
        return [(process.returncode, err) for process in processes for _, err in [process.communicate(timeout=timeout)]]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def records(workdir: Path) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "wall_secs"} for line in lines]


def state_of(workdir: Path, step: int) -> list[np.ndarray]:
    """Every array of a checkpoint, of one process or several, on one device."""
    path, here = (workdir / "checkpoints" / str(step) / "default").absolute(), SingleDeviceSharding(jax.devices()[0])
    with ocp.StandardCheckpointer() as checkpointer:
        written = checkpointer.metadata(path).item_metadata.tree
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), written)
        state = checkpointer.restore(path, target)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def without_what_differs(content: object) -> object:
    """JSON content without times, machines and commands."""
    if isinstance(content, dict):
        return {name: without_what_differs(item) for name, item in content.items() if name not in OF_A_PROCESS}
    return [without_what_differs(item) for item in content] if isinstance(content, list) else content


def assert_close(one: object, other: object, where: str = "", *, atol: float) -> None:
    """The same JSON content, numbers up to `atol`."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_close(one[name], other[name], f"{where}.{name}", atol=atol)
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_close(*pair, f"{where}[{index}]", atol=atol)
    elif isinstance(one, float):
        np.testing.assert_allclose(other, one, atol=atol, rtol=atol, err_msg=where)
    else:
        assert one == other, where


def assert_same_features(one: Path, other: Path, epoch: int, atol: float = 0) -> None:
    ours, theirs = (arrays_of(load_features(folder, epoch)) for folder in (one, other))
    assert len(ours) == len(theirs)
    for one_array, other_array in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one_array, other_array, atol=atol, rtol=0)


def arrays_of(features: FeatureSet) -> list[np.ndarray]:
    """Everything numeric that features hold: layers, logits, labels, targets of both splits, and the heads."""
    parts = [features.classifier]
    for split in (features.train, features.test):
        parts += [*(list(layer) for layer in split.layers.values()), split.labels, split.logits, split.targets]
    return [np.asarray(array) for array in jax.tree.leaves(parts)]
