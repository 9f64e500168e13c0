# SPDX-License-Identifier: Apache-2.0
"""How the members of a run are computed on accelerators: how many at once, and with which lowerings of convolutions.

What is chosen stays in the work directory, so that a run that goes on has the same programs. One process chooses for
all: processes with different programs would wait for each other for ever.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree

from ncjax.distributed.processes import gather_each, is_main_process, on_main_process
from ncjax.distributed.watch import watched
from ncjax.errors import UserError
from ncjax.ops.lowering_times import Times, fastest, measure_cases
from ncjax.ops.member_conv import LOWERINGS, ConvCase, fits, record_cases
from ncjax.storage.atomic import write_json
from ncjax.storage.caches import cache_folder
from ncjax.storage.workdir import read_json
from ncjax.training.loop import PreparedRun
from ncjax.training.state import Spec, init_state
from ncjax.training.step import train_chunk
from ncjax.typed_json import structure, unstructure

FILE = "lowerings.json"
MEMORY_SHARE = 0.8  # of a device, for states, images and activations
NAMES = tuple(LOWERINGS)


@dataclass(frozen=True, kw_only=True)
class Lowerings:
    """The content of lowerings.json.

    Attributes:
        device: kind of the device that it was chosen on.
        at_once: members of a device that a pass computes together; 0: all.
        convolutions: lowering of each convolution of several members, by the text of its case.
    """

    device: str
    at_once: int
    convolutions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """The content of the cache of one kind of device."""

    milliseconds: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)  # None: it failed


def is_accelerated() -> bool:
    """Whether members have lowerings to choose from; on CPUs ncjax/ops/conv.py chooses by a table."""
    return jax.default_backend() != "cpu"


def choose_lowerings(run: PreparedRun, workdir: Path | None) -> PreparedRun:
    """The run with its lowerings: those of the work directory, where they are; else they are chosen, and kept there.

    Args:
        run: that is about to be compiled.
        workdir: of the run; None: nothing is read or kept but the user's cache.

    Raises:
        UserError: the work directory holds lowerings that cannot be read, or they cannot be written.
    """
    if not is_accelerated() or _of_a_device(run) == 1:
        return run
    kept = _read(workdir) if is_main_process() else None
    (at_once,) = _agreed([kept.at_once if kept else members_that_fit(run)])
    spec = dataclasses.replace(run.spec, at_once=at_once)
    cases = sorted(case for case in cases_of(run, spec) if case.members > 1)
    distinct = list(dict.fromkeys(cases))
    chosen = _chosen(run, cases, kept) if is_main_process() else {}
    numbers = _agreed([NAMES.index(chosen[str(case)]) if chosen else 0 for case in distinct])
    convolutions = {str(case): NAMES[number] for case, number in zip(distinct, numbers, strict=True)}
    if workdir is not None:
        content = Lowerings(device=jax.devices()[0].device_kind, at_once=at_once, convolutions=convolutions)
        on_main_process(lambda: write_json(workdir / FILE, unstructure(content)))
    return _with(run, at_once, convolutions)


def kept_lowerings(run: PreparedRun, workdir: Path) -> PreparedRun:
    """The run with the lowerings that its work directory holds, for readers; nothing is chosen or written.

    Raises:
        UserError: they cannot be read.
    """
    kept = _read(workdir) if is_accelerated() else None
    return run if kept is None else _with(run, kept.at_once, kept.convolutions)


def _of_a_device(run: PreparedRun) -> int:
    """Members, padding included."""
    return int(run.ensemble.seed.shape[0]) // run.spec.mesh.shape["member"]


def _with(run: PreparedRun, at_once: int, convolutions: Mapping[str, str]) -> PreparedRun:
    pairs = tuple(sorted(convolutions.items()))
    return dataclasses.replace(run, spec=dataclasses.replace(run.spec, at_once=at_once, lowerings=pairs))


def _read(workdir: Path | None) -> Lowerings | None:
    path = workdir / FILE if workdir else None
    return structure(Lowerings, read_json(path), f"{path} does not fit") if path and path.exists() else None


def _agreed(numbers: Sequence[int]) -> list[int]:
    """The numbers of the main process, on every process."""
    found: list[int] = gather_each(np.asarray(numbers, np.int32))[0].tolist()
    return found


def cases_of(run: PreparedRun, spec: Spec) -> list[ConvCase]:
    """Each convolution of a step, as one device computes it; the step is traced, not compiled."""
    state = jax.eval_shape(partial(init_state, spec), run.ensemble)
    stop = jax.ShapeDtypeStruct((), np.int32)
    with record_cases() as met:
        jax.eval_shape(partial(train_chunk, spec), state, run.images, run.ensemble, stop)
    return met


def members_that_fit(run: PreparedRun) -> int:
    """How many members of a device are computed together, by its memory; 0: all.

    Activations are estimated as the inputs and outputs of all convolutions. Of all members there are the state, twice,
    the order of the images, as it is sorted, and the batch, before and after its augmentation.
    """
    statistics = jax.local_devices()[0].memory_stats() or {}
    limit, mesh = statistics.get("bytes_limit", 0), run.spec.mesh
    members = _of_a_device(run)
    alone = cases_of(run, dataclasses.replace(run.spec, at_once=1))
    activations = sum(_bytes(case) for case in alone) / mesh.shape["data"]
    if not limit or not activations:
        return 0
    state = jax.eval_shape(partial(init_state, run.spec), run.ensemble)
    batch = 4 * run.config.optim.batch * math.prod(run.spec.image_shape) / mesh.shape["data"]
    of_all = (2 * _size(state) + _size(run.ensemble)) / mesh.shape["member"]
    of_all += members * (2 * batch + 3 * 4 * run.ensemble.train_targets.shape[1])
    return _even(members, max(1, int((MEMORY_SHARE * limit - of_all - _size(run.images)) / activations)))


def _size(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _bytes(case: ConvCase) -> int:
    inputs = case.batch * case.height * case.width * case.channels
    return (inputs + case.outputs) * np.dtype(case.dtype).itemsize


def _even(members: int, most: int) -> int:
    """The largest divisor of `members` of at most `most`, but where it is less than half; 0: all fit."""
    if most >= members:
        return 0
    divisor = next(size for size in range(most, 0, -1) if members % size == 0)
    return divisor if 2 * divisor > most else most


def _chosen(run: PreparedRun, cases: Sequence[ConvCase], kept: Lowerings | None) -> dict[str, str]:
    """The lowering of each case: what was kept, else what the config asks for."""
    asked = "table" if run.config.deterministic else run.config.convolutions
    platform, before = jax.default_backend(), kept.convolutions if kept else {}
    devices = run.spec.mesh.shape["data"]
    found = {str(case): before.get(str(case), "") for case in cases}
    unknown = [case for case in cases if not fits(case, found[str(case)])]
    times: Mapping[str, Times] = {}
    if unknown and asked == "measured":
        with watched("the measurement of convolutions"):
            times = _measured([_share(case, devices) for case in unknown], platform)
    for case in unknown:
        best = fastest(case, times.get(str(_share(case, devices)), {}), platform)
        found[str(case)] = asked if fits(case, asked) else best
    return found


def _share(case: ConvCase, devices: int) -> ConvCase:
    """What one of the devices computes that the batch is sharded over."""
    return case._replace(batch=case.batch // devices)


def _measured(cases: Sequence[ConvCase], platform: str) -> Mapping[str, Times]:
    """Times from the user's cache, and those that are measured now and added to it."""
    path = cache_file(jax.devices()[0].device_kind)
    try:
        known = structure(_Measured, read_json(path), str(path)) if path.exists() else _Measured()
    except UserError:  # it is only a cache
        known = _Measured()
    times = measure_cases(cases, known.milliseconds, platform)
    if any(times[text] != known.milliseconds.get(text) for text in times):
        write_json(path, unstructure(_Measured(milliseconds={**known.milliseconds, **times})))
    return times


def cache_file(device_kind: str) -> Path:
    """Where the times of a kind of device are kept, those of each release of JAX apart."""
    name = re.sub(r"\W+", "_", f"{device_kind}_{version('jaxlib')}")
    return cache_folder() / "lowerings" / f"{name}.json"
