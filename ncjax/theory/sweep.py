# SPDX-License-Identifier: Apache-2.0
"""Thousands of runs: one compiled program a shape, batches spread over the devices, each written when it is done."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt32
from tqdm import tqdm

from ncjax.distributed.sharding import shard_map
from ncjax.errors import UserError
from ncjax.theory.config import Settings, Shape, TheoryConfig, settings_of, shapes_of
from ncjax.theory.simulate import Run, simulate

CACHE_BYTES = 2**20  # of a core: runs whose step fits it together go side by side on a CPU
MOST_RUNS = {"cpu": 256}  # of a batch; what is written at a go, and lost when a sweep is killed
MOST_RUNS_ELSEWHERE = 4096


class Batch(NamedTuple):
    """Runs of one shape, numbered setting by setting, seed by seed."""

    shape: Shape
    first: int
    runs: int

    def file_name(self) -> str:
        """Names the batch by what it holds: batches of another division are not mistaken for it."""
        return f"d{self.shape.dimension}_n{self.shape.train}_m{self.shape.width}_{self.first}_{self.runs}.npz"


def use_every_core() -> None:
    """On a CPU make each core a device: runs then take turns on their core, with all of a step in its cache.

    For commands, before JAX computes; nothing is done where the number of devices has been chosen.
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
    """What one step of one run reads and writes: inputs, activations and their gradients, weights and theirs."""
    d, n, m = shape
    return 4 * (n * d + 2 * n * m * config.network.depth + 2 * m * (d + (config.network.depth - 1) * m))


def side_by_side(config: TheoryConfig, shape: Shape, batch: int, devices: int) -> int:
    """Runs that a device computes at once: on a CPU those that share a core's cache, elsewhere all that it is given."""
    share = -(-batch // devices)
    if jax.default_backend() != "cpu":
        return share
    return max(1, min(share, CACHE_BYTES // step_bytes(config, shape)))


def list_batches(config: TheoryConfig) -> tuple[Batch, ...]:
    """All batches of a sweep: as many runs as fit the memory, at least one."""
    runs, most = len(settings_of(config)) * config.seeds, MOST_RUNS.get(jax.default_backend(), MOST_RUNS_ELSEWHERE)
    batches = []
    for shape in shapes_of(config):
        size = max(1, min(most, int(config.memory_gib * 2**30) // run_bytes(config, shape)))
        batches += [Batch(shape, first, min(size, runs - first)) for first in range(0, runs, size)]
    return tuple(batches)


def make_program(config: TheoryConfig, shape: Shape, count: int, devices: int | None = None) -> Callable[..., Run]:
    """A compiled program for `count` runs of one shape: settings `[run]`, seeds `[run]` and given means to a `Run`.

    Each device takes an equal share of the runs (the last run is repeated where they do not divide), and of its share
    as many at once as `side_by_side` says.
    """
    mesh = Mesh(np.array(jax.devices()[:devices]), ("run",))
    lanes = side_by_side(config, shape, count, mesh.size)
    runs, everywhere = PartitionSpec("run"), PartitionSpec()

    def share(settings: Settings, seeds: Array, given: Array | None) -> Run:
        def one(run: tuple[Settings, Array]) -> Run:
            return simulate(config, shape, *run, given)

        return lax.map(one, (settings, seeds), batch_size=lanes if lanes > 1 else None)

    program = jax.jit(shard_map(share, mesh=mesh, in_specs=(runs, runs, everywhere), out_specs=runs))

    def compute(settings: Settings, seeds: UInt32[np.ndarray, "run"], given: Float[np.ndarray, "k d"] | None) -> Run:
        padding = -len(seeds) % mesh.size
        padded = jax.tree.map(lambda column: np.pad(column, (0, padding), mode="edge"), (settings, seeds))
        placed = jax.device_put(padded, NamedSharding(mesh, runs))
        return jax.tree.map(lambda column: np.asarray(column)[: len(seeds)], program(*placed, given))

    return compute


def batch_inputs(config: TheoryConfig, batch: Batch) -> tuple[Settings, UInt32[np.ndarray, "run"]]:
    """The settings and seeds of a batch's runs."""
    table = np.array(settings_of(config), np.float32)
    setting, seed = np.divmod(np.arange(batch.first, batch.first + batch.runs), config.seeds)
    return Settings(*table[setting].T), seed.astype(np.uint32)


def sweep(config: TheoryConfig, parts: Path) -> Iterator[Path]:
    """Compute every batch that has no file in `parts` yet; the file of each, in order.

    Raises:
        UserError: the means cannot be read, or do not fit.
    """
    batches = list_batches(config)
    programs: dict[tuple[Shape, int], Callable[..., Run]] = {}
    with tqdm(total=sum(batch.runs for batch in batches), unit="run", desc=config.name, mininterval=1.0) as bar:
        for batch in batches:
            path = parts / batch.file_name()
            if not path.exists():
                key = batch.shape, batch.runs
                if key not in programs:
                    programs = {key: make_program(config, *key)}
                run = programs[key](*batch_inputs(config, batch), read_means(config, batch.shape.dimension))
                save_arrays(path, jax.device_get({**run.metrics, "diverged": run.diverged}))
            bar.update(batch.runs)
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
        means = np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read the means in {path}: {error}; give an array of numbers as .npy") from error
    if means.shape != wanted or not np.isfinite(means).all():
        what = f"has shape {means.shape}" if means.shape != wanted else "holds numbers that are not finite"
        raise UserError(
            f"{path} {what}, but must hold finite means of shape {wanted}: (labels * components, dimension)"
        )
    return means


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an npz file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    os.replace(draft, path)


def read_part(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that this sweep wrote.

    Raises:
        UserError: it is damaged.
    """
    try:
        with np.load(path) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run the same command again") from error


def runs_of(config: TheoryConfig) -> dict[str, np.ndarray]:
    """What every run of a sweep is: a column for each of `Shape` and `Settings`, `seed`, and the number `setting`.

    Settings are numbered shape by shape; runs stand in the order in which batches hold them.
    """
    settings, shapes = np.array(settings_of(config)), np.array(shapes_of(config))
    count = len(settings) * config.seeds
    within = np.arange(count) // config.seeds
    columns = {name: np.repeat(shapes[:, i], count) for i, name in enumerate(Shape._fields)}
    columns |= {name: np.tile(settings[within, i], len(shapes)) for i, name in enumerate(Settings._fields)}
    columns["seed"] = np.tile(np.arange(count) % config.seeds, len(shapes))
    columns["setting"] = np.repeat(np.arange(len(shapes) * len(settings)), config.seeds)
    return columns
