# SPDX-License-Identifier: Apache-2.0
"""Images per second of training: one member, and all members of a run at once, compared with PyTorch."""

import dataclasses
import math
import tempfile
from pathlib import Path

from ncjax.bench.interleave import Peer, interleave
from ncjax.bench.result import BenchResult, BenchRow, Pair, bench_result, fastest, row_of
from ncjax.bench.training import leave_memory, our_peer
from ncjax.config import Config, MeshConfig, TorchMode, to_dict
from ncjax.errors import UserError

UNIT = "images/s"
OURS, ALONE = "ncjax", "ncjax, one after the other"


def bench_train(
    config: Config, command: str, *, rounds: int, until: float = math.inf, modes: tuple[TorchMode, ...] = ()
) -> BenchResult:
    """The first member of a config alone, with ncjax and in every way of running PyTorch in the same precision.

    Args:
        config: of the training.
        command: kept with the result.
        rounds: how often each is measured.
        until: when to stop, as for `interleave`.
        modes: of PyTorch's compilation; none: all that the device has.

    Raises:
        UserError: the config does not fit its data, or asks for several devices.
    """
    alone = _first_member(config)
    rows, notes = _measured({OURS: our_peer(alone)}, alone, rounds, until, modes)
    return _result(config, command, rows, [(OURS, fastest(rows[1:]))], notes, title(alone, 1))


def bench_ensemble(
    config: Config, command: str, *, rounds: int, until: float = math.inf, modes: tuple[TorchMode, ...] = ()
) -> BenchResult:
    """All members of a config at once; for comparison one after the other, with ncjax and with PyTorch.

    One after the other, `S` runs have the images/s of one run alone: that is what is measured.

    Args:
        config: of the training.
        command: as for `bench_train`.
        rounds: as for `bench_train`.
        until: as for `bench_train`.
        modes: as for `bench_train`.

    Raises:
        UserError: the config does not fit its data, or asks for several devices.
    """
    from ncjax.data import load_dataset
    from ncjax.training.members import list_members

    alone, count = _first_member(config), len(list_members(config, load_dataset(config.data)))
    at_once = f"ncjax, {count} at once"
    rows, notes = _measured({at_once: our_peer(config), ALONE: our_peer(alone)}, alone, rounds, until, modes)
    return _result(config, command, rows, [(at_once, fastest(rows[2:])), (at_once, ALONE)], notes, title(config, count))


def _result(
    config: Config,
    command: str,
    rows: list[BenchRow],
    pairs: list[tuple[str, str | None]],
    notes: list[str],
    title: str,
) -> BenchResult:
    compared = [Pair(title, ours, theirs) for ours, theirs in pairs if theirs]
    return bench_result(command, rows, compared, notes, to_dict(config))


def _measured(
    ours: dict[str, Peer], alone: Config, rounds: int, until: float, modes: tuple[TorchMode, ...]
) -> tuple[list[BenchRow], list[str]]:
    """Rows of our peers, then of PyTorch's, and notes."""
    leave_memory()
    with tempfile.TemporaryDirectory() as folder:
        theirs, notes = _torch_peers(alone, Path(folder) / "batches.npz", modes)
        fastest_first = dict(reversed(theirs.items()))  # what time does not reach is left out
        measured = interleave(ours | fastest_first, rounds=rounds, until=until)
    return [row_of(name, UNIT, found) for name, found in measured.items()], notes


def _torch_peers(alone: Config, batches: Path, modes: tuple[TorchMode, ...]) -> tuple[dict[str, Peer], list[str]]:
    try:
        from ncjax.bench.torch_training import save_batches, torch_options, torch_peers
    except UserError as error:
        return {}, [f"PyTorch is not measured: {error}"]
    save_batches(alone, batches)
    options = tuple(o for o in torch_options(alone, modes) if o.precision == alone.optim.precision)
    peers = {f"PyTorch {name}": peer for name, peer in torch_peers(alone, batches, options).items()}
    return peers, ["PyTorch's batches lie ready on its device; ours are drawn and augmented in the measured program."]


def _first_member(config: Config) -> Config:
    if config.mesh != MeshConfig():
        raise UserError("mesh.member and mesh.data must be 1 in this benchmark: PyTorch trains on one device")
    if config.data.streamed:
        raise UserError("data.streamed must be no in this benchmark; ncjax bench input measures streaming")
    optim = dataclasses.replace(config.optim, lr=config.optim.lr[:1], weight_decay=config.optim.weight_decay[:1])
    return dataclasses.replace(config, labels=config.labels[:1], seeds=1, optim=optim)


def title(config: Config, members: int) -> str:
    """What is trained, in one line of a table."""
    augmented = ", augmented" if config.data.crop_padding or config.data.flip else ""
    network = f"{config.model.name} of width {config.model.width}, batch {config.optim.batch}, {config.optim.precision}"
    return f"{config.name}: {members} x {network}{augmented}"
