# SPDX-License-Identifier: Apache-2.0
"""One experiment twice: with ncjax and with PyTorch, from the same weights, on the same batches, by one evaluator."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from ncjax.bench.apart import apart
from ncjax.bench.interleave import Measured, interleave
from ncjax.bench.torch_training import save_batches, torch_options, torch_peers
from ncjax.bench.training import our_peer
from ncjax.config import Config, MeshConfig, TorchMode, to_dict
from ncjax.data import load_dataset
from ncjax.distributed.environment import environment
from ncjax.errors import UserError
from ncjax.features.store import describe_members, read_parts, write_members
from ncjax.features.writing import save_features
from ncjax.pipeline import evaluate_run, train
from ncjax.report.read import read_comparison
from ncjax.results import Comparison, Evaluation, Provenance, Row, Speed, TimeToAccuracy, TrainingSummary
from ncjax.storage.atomic import write_json
from ncjax.storage.metrics import read_records
from ncjax.storage.workdir import CONFIG, open_workdir
from ncjax.torch_port import train as torch_train
from ncjax.torch_port.step import TorchOptions, read_options
from ncjax.training.loop import prepare
from ncjax.training.members import list_members
from ncjax.typed_json import unstructure

ROUNDS = 5
SPEED_SHARE = 0.4  # of the budget, for measuring speed
TRAINING_SHARE = 0.75  # of what is left then, for both trainings; the rest is for evaluating them
OURS, THEIRS = "ncjax", "PyTorch"
AGAIN = "move it away and compare again"


def compare_with_torch(
    config: Config, workdir: Path, command: str, *, budget_minutes: float, modes: tuple[TorchMode, ...] = ()
) -> Comparison:
    """Measures speed, trains on both sides, evaluates both; writes results/comparison.json after each of these.

    The work directory is that of our run; WORKDIR/torch is one of the PyTorch run. An interrupted comparison goes on
    when the same command is run again. Each stage has a process of its own, which gives its device back at its end.

    Args:
        config: the experiment, on a mesh of one device.
        workdir: of the comparison.
        command: kept with the results.
        budget_minutes: of all of it: speed gets up to 40 %, and the number of epochs is lowered until both trainings
            fit 75 % of what is left then. PyTorch's side is left out where the budget is over before it begins.
        modes: of PyTorch's compilation; none: all that the device has.

    Returns:
        What was found, with a line for what was left out.

    Raises:
        UserError: the config does not fit its data or the work directory, or asks for several devices.
    """
    if config.mesh != MeshConfig():
        raise UserError("mesh.member and mesh.data must be 1 in a comparison: PyTorch trains on one device")
    if config.data.streamed:
        raise UserError("data.streamed must be no in a comparison: both sides hold the data set on the device")
    import_module("ncjax.torch_port")  # says what is missing before anything is done
    started = time.monotonic()
    end = started + 60 * budget_minutes
    found = _kept(workdir, _speed_of(workdir, config, modes, budget_minutes, started))
    config = _shorter(config, found.epochs)
    provenance = apart(_train, config, workdir, command)
    found = _write(workdir, dataclasses.replace(found, provenance=provenance))
    folders = {OURS: workdir, THEIRS: workdir / "torch"}
    if not _is_trained(folders[THEIRS]) and time.monotonic() < end:
        options = read_options(found.torch_options, "torch_options")
        apart(_train_with_torch, config, folders[THEIRS], command, options)
    if _is_trained(folders[THEIRS]):
        found = dataclasses.replace(found, time_to_accuracy=_time_to_accuracy(found, folders))
        _write(workdir, found)
    for side, folder in folders.items():
        if side == THEIRS and not (_is_trained(folder) and time.monotonic() < end):
            return _write(workdir, dataclasses.replace(found, left_out=(_left_out(folder, budget_minutes),)))
        apart(_evaluate, folder, side == OURS)
        found = dataclasses.replace(found, rows={**found.rows, side: _last_rows(folder, found.epochs)})
        _write(workdir, found)
    return found


def _kept(workdir: Path, measured: Comparison) -> Comparison:
    """What an earlier start wrote after this measurement of speed, else the measurement."""
    path = workdir / "results" / "comparison.json"
    if not path.exists():
        return measured
    earlier = read_comparison(path, AGAIN)
    same = (earlier.speed, earlier.epochs) == (measured.speed, measured.epochs)
    return dataclasses.replace(earlier, left_out=()) if same else measured


def _is_trained(workdir: Path) -> bool:
    return (workdir / "results" / "training.json").exists()


def _left_out(theirs: Path, budget_minutes: float) -> str:
    what = "evaluation of the PyTorch run" if _is_trained(theirs) else "training with PyTorch"
    return f"The {what} is left out: the {budget_minutes:g} minutes were over; the same command again goes on."


def _write(workdir: Path, found: Comparison) -> Comparison:
    write_json(workdir / "results" / "comparison.json", unstructure(found))
    return found


def _speed_of(
    workdir: Path, config: Config, modes: tuple[TorchMode, ...], budget_minutes: float, started: float
) -> Comparison:
    """Measures speed, or reads what an earlier start measured."""
    members = len(list_members(config, load_dataset(config.data)))
    _check_members(workdir, members)
    path = workdir / "results" / "speed.json"
    if not path.exists():
        write_json(path, unstructure(_measure_speed(config, members, modes, budget_minutes, started)))
    measured = read_comparison(path, AGAIN)
    read_options(measured.torch_options, f"{path} does not fit; {AGAIN}: torch_options")
    if measured.asked_epochs != config.optim.epochs:
        raise UserError(
            f"{workdir} holds a comparison of {measured.asked_epochs} epochs, not {config.optim.epochs}; "
            "choose another --workdir"
        )
    return measured


def _check_members(workdir: Path, members: int) -> None:
    """Refuses runs that have grown or would grow: the sides are compared on members that train at once."""
    there = [len(part.members) for part in read_parts(workdir)] if (workdir / CONFIG).exists() else [members]
    if there != [members]:
        raise UserError(
            f"{workdir} holds a run of {' + '.join(map(str, there))} members, but {members} that train at once are "
            "compared; choose another --workdir"
        )


def _measure_speed(
    config: Config, members: int, modes: tuple[TorchMode, ...], budget_minutes: float, started: float
) -> Comparison:
    """Images per second of both sides, PyTorch's fastest way in the config's precision, and the epochs that fit."""
    options = torch_options(config, modes)
    with tempfile.TemporaryDirectory() as folder:
        batches = Path(folder) / "batches.npz"
        apart(save_batches, config, batches)
        peers = {OURS: our_peer(config)} | torch_peers(config, batches, options)
        measured = interleave(peers, rounds=ROUNDS, until=started + 60 * SPEED_SHARE * budget_minutes)
    rates = {o: _median(measured[str(o)].values) for o in options if o.precision == config.optim.precision}
    fastest, ours = max(rates, key=lambda options: rates[options]), _median(measured[OURS].values)
    if not (rates[fastest] and ours):
        errors = "; ".join(f"{name}: {m.error}" for name, m in measured.items() if m.error)
        raise UserError(f"the training step cannot be measured: {errors}")
    per_epoch = len(load_dataset(config.data).train.labels) // config.optim.batch * config.optim.batch * members
    epoch_secs = per_epoch / ours + per_epoch / rates[fastest]
    left = 60 * budget_minutes - (time.monotonic() - started)
    return Comparison(
        members=members,
        images_per_epoch=per_epoch,
        asked_epochs=config.optim.epochs,
        epochs=max(1, min(config.optim.epochs, int(TRAINING_SHARE * left / epoch_secs))),
        budget_minutes=budget_minutes,
        torch_options=dataclasses.asdict(fastest),
        torch_chosen=str(fastest),
        speed={name: _to_speed(m) for name, m in measured.items()},
    )


def _median(values: tuple[float, ...]) -> float:
    return statistics.median(values) if values else 0.0


def _to_speed(measured: Measured) -> Speed:
    return Speed(
        images_per_sec=tuple(round(value, 1) for value in measured.values),
        setup_secs=round(measured.setup_secs, 2),
        peak_mib=round(measured.peak_bytes / 2**20, 1),
        error=measured.error,
    )


def _shorter(config: Config, epochs: int) -> Config:
    kept = tuple(epoch for epoch in config.evaluate.epochs if epoch < epochs)
    return dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, epochs=epochs),
        evaluate=dataclasses.replace(config.evaluate, epochs=kept),
    )


def _train(config: Config, workdir: Path, command: str) -> Provenance:
    train(config, workdir=workdir, command=command)
    return _provenance(config, command)


def _evaluate(workdir: Path, controls: bool) -> None:
    evaluate_run(workdir, controls=controls)


def _train_with_torch(config: Config, workdir: Path, command: str, options: TorchOptions) -> None:
    """JAX only makes the batches there, on the CPU."""
    jax.config.update("jax_platforms", "cpu")
    dataset = load_dataset(config.data)
    run = prepare(config, dataset)
    kept = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, epochs=()))  # besides the last
    open_workdir(workdir, kept, command, environment())
    write_members(workdir, describe_members(config, dataset, from_memory=False))
    started = time.perf_counter()
    save_features(workdir, torch_train.fit(run, dataset, workdir, options))
    summary = TrainingSummary(compile_secs=None, train_secs=round(time.perf_counter() - started, 2))
    write_json(workdir / "results" / "training.json", unstructure(summary))


def _time_to_accuracy(measured: Comparison, folders: Mapping[str, Path]) -> TimeToAccuracy:
    """When every member is as good as both sides end up: our members train at once, theirs one after the other."""
    histories = _histories({side: folder / "metrics.jsonl" for side, folder in folders.items()}, measured.epochs)
    target = np.minimum(*(history[-1] for history in histories.values()))
    epochs = {side: 1 + (history >= target).argmax(axis=0) for side, history in histories.items()}
    one_member = measured.images_per_epoch / measured.members
    sides = {OURS: OURS, THEIRS: measured.torch_chosen}
    rate = {side: _median(measured.speed[name].images_per_sec) for side, name in sides.items()}
    return TimeToAccuracy(
        accuracy=tuple(target.round(6).tolist()),
        epochs={side: tuple(counts.tolist()) for side, counts in epochs.items()},
        secs={
            OURS: round(float(epochs[OURS].max() * measured.images_per_epoch / rate[OURS]), 2),
            THEIRS: round(float(epochs[THEIRS].sum() * one_member / rate[THEIRS]), 2),
        },
    )


def _histories(files: Mapping[str, Path], epochs: int) -> dict[str, Float[np.ndarray, "t s"]]:
    """Accuracy on the test labels that each member was trained with; 0 where its loss was not finite.

    Raises:
        UserError: a file does not hold it of every epoch.
    """
    known = {}
    for side, path in files.items():
        known[side] = [record.values.get("test_accuracy", {}) for record in read_records(path)]
        if len(known[side]) != epochs or not all(known[side]):
            raise UserError(f"{path} holds no test accuracy of each of the {epochs} epochs; compare in another folder")
    members = list(known[OURS][0])
    return {side: np.array([[one.get(name) or 0.0 for name in members] for one in of]) for side, of in known.items()}


def _last_rows(workdir: Path, epochs: int) -> tuple[Row, ...]:
    path = workdir / "results" / "evaluation.json"
    rows = Evaluation.from_json(path.read_bytes(), str(path)).rows
    return tuple(row for row in rows if row.member is not None and row.epoch == epochs)


def _provenance(config: Config, command: str) -> Provenance:
    where = environment()
    return Provenance(
        name=config.name,
        command=command,
        config=to_dict(config),
        versions={**where.versions, "torch": version("torch")},
        commit=where.commit,
        device=where.device,
    )
