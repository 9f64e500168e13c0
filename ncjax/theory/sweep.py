# SPDX-License-Identifier: Apache-2.0
"""Thousands of runs: one compiled program for each shape; groups of runs, sharded over the devices, are files."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt32

from ncjax.distributed.sharding import shard_map
from ncjax.errors import UserError, first_line
from ncjax.events import stage
from ncjax.paths import user_path
from ncjax.storage.atomic import write_arrays
from ncjax.storage.npy import load_npz, map_npy
from ncjax.theory.config import Settings, Shape, TheoryConfig, settings_of, shapes_of
from ncjax.theory.simulate import Trajectory, simulate

CACHE_BYTES = 2**20  # of a core: runs whose steps fit it together are vectorized on a CPU
MAX_RUNS = {"cpu": 256}  # of a group, by platform; a sweep that is killed loses at most one group
MAX_RUNS_ELSEWHERE = 4096


class RunGroup(NamedTuple):
    """Runs of one shape that are computed and written together, numbered setting by setting, seed by seed."""

    shape: Shape
    first: int
    runs: int

    def file_name(self) -> str:
        """Names the group by its content, so that groups of another division are not mistaken for it."""
        return f"d{self.shape.dimension}_n{self.shape.train}_m{self.shape.width}_{self.first}_{self.runs}.npz"


def use_every_core() -> None:
    """On a CPU make each core a device: it then computes its runs sequentially, with all of a step in its cache.

    For commands, before JAX computes; does nothing where the number of devices has been set.
    """
    devices: int = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
    if devices < 1 and "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", cores)


def run_bytes(config: TheoryConfig, shape: Shape) -> int:
    """Estimate of the memory of one run: examples, activations and their gradients, weights, k-means, in float32."""
    d, n, m = shape
    examples = (n + config.mixture.test) * (2 * d + 4 * m * config.network.depth)
    weights = 4 * m * (d + (config.network.depth - 1) * m)
    clusters = (config.mixture.labels + config.descent.restarts + 2) * n * min(m, 2 * n) + 2 * m * min(m, 2 * n)
    return 4 * (examples + weights + clusters)


def step_bytes(config: TheoryConfig, shape: Shape) -> int:
    """Bytes that one step of one run accesses: inputs, activations, weights, and the gradients of both."""
    d, n, m = shape
    return 4 * (n * d + 2 * n * m * config.network.depth + 2 * m * (d + (config.network.depth - 1) * m))


def vectorized_runs(config: TheoryConfig, shape: Shape, runs: int, devices: int) -> int:
    """Runs that a device computes at once: on a CPU those that fit a core's cache, elsewhere all of its runs."""
    share = -(-runs // devices)
    if jax.default_backend() != "cpu":
        return share
    return max(1, min(share, CACHE_BYTES // step_bytes(config, shape)))


def list_groups(config: TheoryConfig) -> tuple[RunGroup, ...]:
    """All groups of a sweep, each of as many runs as fit the memory, at least one."""
    runs, most = len(settings_of(config)) * config.seeds, MAX_RUNS.get(jax.default_backend(), MAX_RUNS_ELSEWHERE)
    groups = []
    for shape in shapes_of(config):
        size = max(1, min(most, int(config.memory_gib * 2**30) // run_bytes(config, shape)))
        groups += [RunGroup(shape, first, min(size, runs - first)) for first in range(0, runs, size)]
    return tuple(groups)


def make_program(
    config: TheoryConfig, shape: Shape, count: int, devices: int | None = None
) -> Callable[..., Trajectory]:
    """A compiled program for `count` runs of one shape: settings `[run]`, seeds `[run]`, user's means -> `Trajectory`.

    The runs are sharded over the devices (the last run pads them to a multiple); `vectorized_runs` says how many runs
    a device computes at once.
    """
    mesh = Mesh(np.array(jax.devices()[:devices]), ("run",))
    vectorized = vectorized_runs(config, shape, count, mesh.size)
    runs, replicated = PartitionSpec("run"), PartitionSpec()

    def shard(settings: Settings, seeds: Array, user_means: Array | None) -> Trajectory:
        def one(run: tuple[Settings, Array]) -> Trajectory:
            return simulate(config, shape, *run, user_means)

        return lax.map(one, (settings, seeds), batch_size=vectorized if vectorized > 1 else None)

    program = jax.jit(shard_map(shard, mesh=mesh, in_specs=(runs, runs, replicated), out_specs=runs))

    def compute(
        settings: Settings, seeds: UInt32[np.ndarray, "run"], user_means: Float[np.ndarray, "k d"] | None
    ) -> Trajectory:
        padding = -len(seeds) % mesh.size
        padded = jax.tree.map(lambda column: np.pad(column, (0, padding), mode="edge"), (settings, seeds))
        sharded = jax.device_put(padded, NamedSharding(mesh, runs))
        return jax.tree.map(lambda column: np.asarray(column)[: len(seeds)], program(*sharded, user_means))

    return compute


def group_inputs(config: TheoryConfig, group: RunGroup) -> tuple[Settings, UInt32[np.ndarray, "run"]]:
    """The settings and seeds of the runs of a group."""
    table = np.array(settings_of(config), np.float32)
    setting, seed = np.divmod(np.arange(group.first, group.first + group.runs), config.seeds)
    return Settings(*table[setting].T), (config.seed + seed).astype(np.uint32)


def run_sweep(config: TheoryConfig, parts: Path) -> Iterator[Path]:
    """Computes every group that has no file in `parts` yet; yields the file of each group, in order.

    Raises:
        UserError: the means cannot be read, or do not fit.
    """
    groups = list_groups(config)
    programs: dict[tuple[Shape, int], Callable[..., Trajectory]] = {}
    with stage("sweep", config.name, total=sum(group.runs for group in groups), unit="runs") as advance:
        for group in groups:
            path = parts / group.file_name()
            if not path.exists():
                key = group.shape, group.runs
                if key not in programs:
                    programs = {key: make_program(config, *key)}
                found = programs[key](*group_inputs(config, group), read_means(config, group.shape.dimension))
                write_arrays(path, jax.device_get({**found.metrics, "diverged": found.diverged}))
            advance(group.runs)
            yield path


def read_means(config: TheoryConfig, dimension: int) -> Float[np.ndarray, "k d"] | None:
    """The means of `mixture.means_file`, None with other means.

    Raises:
        UserError: the file cannot be read, or has another shape.
    """
    if config.mixture.means != "file":
        return None
    path, wanted = config.mixture.means_file, (config.mixture.labels * config.mixture.components, dimension)
    try:
        means = np.asarray(map_npy(user_path(path)), np.float32)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"cannot read the means in {path}: {first_line(error)}; give an array of numbers as .npy"
        ) from error
    if means.shape != wanted or not np.isfinite(means).all():
        what = f"has shape {means.shape}" if means.shape != wanted else "holds numbers that are not finite"
        raise UserError(
            f"{path} {what}, but must hold finite means of shape {wanted}: (labels * components, dimension)"
        )
    return means


def read_part(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that this sweep wrote.

    Raises:
        UserError: it is damaged.
    """
    try:
        return load_npz(path)
    except UserError as error:
        raise UserError(
            f"{path} is damaged ({first_line(error)}); move it away and run the same command again"
        ) from error


def runs_of(config: TheoryConfig) -> dict[str, np.ndarray]:
    """The table of all runs: a column for each field of `Shape` and `Settings`, `seed`, and the number `setting`.

    Settings are numbered shape by shape; runs are in the order of the groups.
    """
    settings, shapes = np.array(settings_of(config)), np.array(shapes_of(config))
    count = len(settings) * config.seeds
    setting = np.arange(count) // config.seeds
    columns = {name: np.repeat(shapes[:, i], count) for i, name in enumerate(Shape._fields)}
    columns |= {name: np.tile(settings[setting, i], len(shapes)) for i, name in enumerate(Settings._fields)}
    columns["seed"] = np.tile(config.seed + np.arange(count) % config.seeds, len(shapes))
    columns["setting"] = np.repeat(np.arange(len(shapes) * len(settings)), config.seeds)
    return columns
