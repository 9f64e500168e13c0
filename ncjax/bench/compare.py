# SPDX-License-Identifier: Apache-2.0
"""One experiment twice: with ncjax and with PyTorch, from the same weights, on the same batches, by one evaluator."""

import dataclasses
import json
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ncjax.bench.interleave import Measured, interleave
from ncjax.bench.torch_training import save_batches, torch_options, torch_peers
from ncjax.bench.training import our_peer
from ncjax.config import Config, MeshConfig
from ncjax.data import load_dataset
from ncjax.errors import UserError
from ncjax.pipeline import evaluate, train
from ncjax.features.extraction import save_features
from ncjax.torch_port import train as torch_train
from ncjax.torch_port.step import TorchOptions
from ncjax.training.members import list_members
from ncjax.training.loop import prepare
from ncjax.storage.workdir import environment, open_workdir, read_json, write_json

ROUNDS = 5
OURS, THEIRS = "ncjax", "PyTorch"


def compare(config: Config, workdir: Path, command: str, *, budget_minutes: float) -> Path:
    """Measure speed, train on both sides, evaluate both; writes results/comparison.json and returns its path.

    The work directory is that of our run; WORKDIR/torch is one of the PyTorch run. An interrupted comparison goes on
    where the same command is given again.

    Args:
        config: the experiment, on a mesh of one device.
        workdir: of the comparison.
        command: kept with the results.
        budget_minutes: of both trainings together, without the measurement of speed and the evaluation; the number of
            epochs is lowered until they fit.

    Raises:
        UserError: the config does not fit its data or the work directory, or asks for several devices.
    """
    if config.mesh != MeshConfig():
        raise UserError("mesh.member and mesh.data must be 1 in a comparison: PyTorch trains on one device")
    if config.data.streamed:
        raise UserError("data.streamed must be no in a comparison: both sides hold the data set on the device")
    members = len(list_members(config, load_dataset(config.data)))
    path = workdir / "results" / "speed.json"
    if not path.exists():
        write_json(path, _speed(config, members, budget_minutes))
    speed = read_json(path)
    if speed["asked_epochs"] != config.optim.epochs:
        raise UserError(
            f"{workdir} holds a comparison of {speed['asked_epochs']} epochs, not {config.optim.epochs}; "
            "choose another --workdir"
        )
    config = _shorter(config, speed["epochs"])
    train(config, workdir, command)
    evaluate(workdir)
    finished = workdir / "torch" / "results" / "training.json"
    if not finished.exists():
        options = TorchOptions(**speed["torch_options"])
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(_train_with_torch, config, workdir / "torch", command, options).result()
    evaluate(workdir / "torch", controls=False)
    result = workdir / "results" / "comparison.json"
    write_json(
        result, speed | _outcome(workdir, speed) | {"command": command, **environment(), "torch": version("torch")}
    )
    return result


def _speed(config: Config, members: int, budget_minutes: float) -> dict[str, Any]:
    """Images per second of both sides, PyTorch's fastest way in the config's number type, and the epochs that fit."""
    with tempfile.TemporaryDirectory() as folder:
        batches = Path(folder) / "batches.npz"
        save_batches(config, batches)
        peers = {OURS: our_peer(config)} | torch_peers(config, batches, torch_options(config))
        measured = interleave(peers, rounds=ROUNDS)
    bfloat16 = config.optim.dtype == "bfloat16"
    rates = {o: _median(measured[str(o)]) for o in torch_options(config) if o.bfloat16 == bfloat16}
    fastest = max(rates, key=lambda options: rates[options])
    if not (rates[fastest] and _median(measured[OURS])):
        errors = "; ".join(f"{name}: {m.error}" for name, m in measured.items() if m.error)
        raise UserError(f"the training step cannot be measured: {errors}")
    per_epoch = len(load_dataset(config.data).train.labels) // config.optim.batch * config.optim.batch * members
    epoch_secs = per_epoch / _median(measured[OURS]) + per_epoch / rates[fastest]
    return {
        "members": members,
        "images_per_epoch": per_epoch,
        "asked_epochs": config.optim.epochs,
        "epochs": max(1, min(config.optim.epochs, int(60 * budget_minutes / epoch_secs))),
        "budget_minutes": budget_minutes,
        "torch_options": dataclasses.asdict(fastest),
        "torch_chosen": str(fastest),
        "speed": {name: _to_json(m) for name, m in measured.items()},
    }


def _median(measured: Measured) -> float:
    return statistics.median(measured.values) if measured.values else 0.0


def _to_json(measured: Measured) -> dict[str, Any]:
    return {
        "images_per_sec": [round(value, 1) for value in measured.values],
        "setup_secs": round(measured.setup_secs, 2),
        "peak_mib": round(measured.peak_bytes / 2**20, 1),
        "error": measured.error,
    }


def _shorter(config: Config, epochs: int) -> Config:
    kept = tuple(epoch for epoch in config.evaluate.epochs if epoch < epochs)
    return dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, epochs=epochs),
        evaluate=dataclasses.replace(config.evaluate, epochs=kept),
    )


def _train_with_torch(config: Config, workdir: Path, command: str, options: TorchOptions) -> None:
    """In a process of its own; JAX only makes the batches there, on the CPU."""
    jax.config.update("jax_platforms", "cpu")
    dataset = load_dataset(config.data)
    run = prepare(config, dataset)
    open_workdir(workdir, config, command)
    started = time.perf_counter()
    features = torch_train.train(run, dataset, workdir, options)
    save_features(workdir, config.optim.epochs, features)
    secs = {"compile_secs": None, "train_secs": round(time.perf_counter() - started, 2)}
    write_json(workdir / "results" / "training.json", secs | {"failures": []})


def _outcome(workdir: Path, speed: dict[str, Any]) -> dict[str, Any]:
    """Rows of the last epoch of both sides, and the time until every member is as good as both sides end up."""
    folders = {OURS: workdir, THEIRS: workdir / "torch"}
    histories = {side: np.array(_test_accuracies(folder)) for side, folder in folders.items()}
    target = np.minimum(*(history[-1] for history in histories.values()))
    epochs = {side: 1 + (history >= target).argmax(axis=0) for side, history in histories.items()}
    one_member = speed["images_per_epoch"] / speed["members"]
    rates = {OURS: OURS, THEIRS: speed["torch_chosen"]}
    rate = {side: statistics.median(speed["speed"][name]["images_per_sec"]) for side, name in rates.items()}
    return {
        "time_to_accuracy": {
            "accuracy": target.round(6).tolist(),
            "epochs": {side: counts.tolist() for side, counts in epochs.items()},
            "secs": {
                OURS: round(float(epochs[OURS].max() * speed["images_per_epoch"] / rate[OURS]), 2),
                THEIRS: round(float(epochs[THEIRS].sum() * one_member / rate[THEIRS]), 2),
            },
        },
        "rows": {
            side: [row for row in read_json(folder / "results" / "evaluation.json")["rows"] if _is_last(row, speed)]
            for side, folder in folders.items()
        },
    }


def _is_last(row: dict[str, Any], speed: dict[str, Any]) -> bool:
    return row["member"] is not None and row["epoch"] == speed["epochs"]


def _test_accuracies(workdir: Path) -> list[list[float]]:
    """`[t s]`, on the labels that each member was trained with."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["test_accuracy"] for line in lines]
