# SPDX-License-Identifier: Apache-2.0
"""The stages of an experiment, from a config to results: each reads and writes files of the work directory."""

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.collapse.measure import Classifier, Labelled
from ncjax.evaluation.old_results import FeatureArrays, evaluate_features
from ncjax.evaluation.old_table import NO_CLASSIFIER
from ncjax.evaluation.uncertainty import bootstrap as bootstrap_deviations
from ncjax.evaluation.uncertainty import summarise_rows
from ncjax.config import Config, Variant
from ncjax.data import Dataset, Streamed, load_dataset
from ncjax.distributed.sharding import row_mesh
from ncjax.errors import UserError
from ncjax.features.extraction import FeatureSet, extract, load_features, save_features, saved_epochs
from ncjax.data.label_maps import LabelMap, parse_label_maps
from ncjax.distributed.processes import is_main_process, on_main_process
from ncjax.training.members import Member, list_members
from ncjax.training.loop import Outcome, prepare
from ncjax.training.loop import train as train_run
from ncjax.training.step import TrainState
from ncjax.storage.workdir import environment, locked, open_workdir, read_config, read_json, write_json

PIXELS_GIB = 4  # of training pixels of a streamed data set, as features; larger ones are no row
RESAMPLES = 20  # of the examples, for standard deviations where there is one seed
RESAMPLED_MEMBERS = 10  # at most; more of them show by themselves how measures vary
PIXELS_CLUSTER = 0.9  # share of digits that k-means on raw pixels gets right; above it the report warns


def train(config: Config, workdir: Path, command: str) -> None:
    """Train the members of a config, or go on from the last checkpoint, and keep the features asked for.

    Writes config.json, metrics.jsonl, checkpoints/, features/EPOCH/ and results/training.json.

    Raises:
        UserError: the config does not fit its data, the devices or the work directory.
    """
    dataset = load_dataset(config.data)
    run = prepare(config, dataset)
    _evaluation_map(config, dataset)
    kept = {*config.evaluate.epochs, config.optim.epochs}

    def keep_features(epoch: int, state: TrainState) -> None:
        if epoch in kept:
            save_features(workdir, epoch, extract(run, state, dataset))

    with ExitStack() as held:
        on_main_process(lambda: held.enter_context(locked(workdir)))
        on_main_process(lambda: open_workdir(workdir, config, command))
        outcome = train_run(run, workdir, keep_features)
        on_main_process(lambda: _report_training(workdir, outcome))


def _report_training(workdir: Path, outcome: Outcome) -> None:
    for line in outcome.failures:
        print(f"warning: {line}")
    path = workdir / "results" / "training.json"
    earlier = read_json(path) if path.exists() else {}
    write_json(
        path,
        {
            **earlier,
            "compile_secs": round(outcome.compile_secs, 2),
            "train_secs": round(outcome.train_secs, 2),
            "failures": list(outcome.failures),
        },
    )
    print(f"compiled in {outcome.compile_secs:.1f} s, trained in {outcome.train_secs:.1f} s")


def evaluate(
    workdir: Path, variants: tuple[Variant, ...] = (), *, controls: bool = True, bootstrap: int = RESAMPLES
) -> Path:
    """Evaluate the features of a run with its controls; writes results/evaluation.json and returns its path.

    The rows: the members at every kept epoch, the first label map's members at random initialisation, raw pixels.

    Args:
        workdir: of a run that has been trained.
        variants: what k-means sees; none named: those of the config.
        controls: whether raw pixels are a row.
        bootstrap: resamples for standard deviations of up to ten networks where there is one seed; 0: none.

    Raises:
        UserError: the work directory holds no features, or its data cannot be read.
    """
    config, started = read_config(workdir), time.perf_counter()
    dataset = load_dataset(config.data)
    members = list_members(config, dataset)
    epochs = saved_epochs(workdir)
    if not epochs:
        raise UserError(f"{workdir} holds no features; run: ncjax train CONFIG --workdir {workdir}")
    variants = variants or config.evaluate.variants
    default = _evaluation_map(config, dataset)
    resamples = bootstrap if config.seeds == 1 and len(members) <= RESAMPLED_MEMBERS else 0
    evaluation = _Evaluation(config=config, dataset=dataset, default=default, variants=variants, bootstrap=resamples)
    left_out = _pixels_left_out(dataset) if controls else []
    rows = [evaluation.pixels()] if controls and not left_out else []
    for epoch in epochs:
        features = load_features(workdir, epoch)
        wanted = [i for i, m in enumerate(members) if epoch or m.label_map.name == members[0].label_map.name]
        rows += [evaluation.member(features, members[i], i, epoch) for i in wanted]
    training = read_json(workdir / "results" / "training.json")
    written = read_json(workdir / "config.json")
    run = {
        "name": config.name,
        "dataset": dataset.name,
        "command": written["command"],
        "config": written["config"],
        **environment(),
        "wall_secs": {
            "compile": training["compile_secs"],
            "train": training["train_secs"],
            "evaluate": round(time.perf_counter() - started, 2),
        },
    }
    path = workdir / "results" / "evaluation.json"
    notes = [*left_out, *_notes(rows)]
    for note in notes if is_main_process() else ():
        print(f"note: {note}")
    notes = [*training["failures"], *training.get("imported", ()), *notes]
    write_json(path, {"run": run, "rows": rows, "summary": summarise_rows(rows), "notes": notes})
    return path


def _evaluation_map(config: Config, dataset: Dataset) -> LabelMap:
    """The label map whose super-classes are used for members that have none of their own."""
    (found,) = parse_label_maps((config.evaluate.labels,), dataset.class_names)
    if found.super_class is None:
        raise UserError(f"evaluate.labels is {config.evaluate.labels}, but must merge classes, such as mod:5")
    return found


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    """Makes rows of the table for one run."""

    config: Config
    dataset: Dataset
    default: LabelMap
    variants: tuple[Variant, ...]
    bootstrap: int

    def pixels(self) -> dict[str, Any]:
        flat = [s.images[:].astype(np.float32).reshape(len(s.labels), -1) / 255 for s in self._splits()]
        return {
            **_row("raw pixels", "raw_pixels", None, None, None, self.default),
            **self._measure(flat[0], flat[1], self.default),
        }

    def member(self, features: FeatureSet, member: Member, index: int, epoch: int) -> dict[str, Any]:
        own = member.label_map
        merges = own.super_class is not None and own.classes < len(self.dataset.class_names)
        kind = "random_init" if epoch == 0 else "trained" if merges else own.name.split(":")[0]
        accuracies = {
            f"coarse_{name}_accuracy": float(
                (part.logits[index, :, : own.classes].argmax(-1) == part.coarse[index]).mean()
            )
            for name, part in (("train", features.train), ("test", features.test))
            if epoch
        }
        classifier, missing = _classifier(features, index, own)
        seen, used = [part.features[index] for part in features[:2]], own if merges else self.default
        measured = self._measure(seen[0], seen[1], used, classifier)
        if self.bootstrap:
            measured |= self._deviations(seen, used, classifier)
        measured["left_out"] = [missing if line == NO_CLASSIFIER else line for line in measured["left_out"]]
        return {
            **_row(own.name if epoch else "random initialisation", kind, index, member, epoch, own),
            **accuracies,
            **measured,
        }

    def _measure(
        self, train: np.ndarray, test: np.ndarray, super_classes: LabelMap, classifier: Classifier | None = None
    ) -> dict[str, Any]:
        fine_train, fine_test = (split.labels for split in self._splits())
        arrays = FeatureArrays(train=train, train_fine=fine_train, test=test, test_fine=fine_test)
        assert super_classes.super_class is not None
        result = evaluate_features(
            jax.random.key(0),
            arrays,
            super_classes.super_class,
            self.variants,
            classifier,
            restarts=self.config.evaluate.restarts,
            mesh=row_mesh(self.config.mesh),
        )
        return result.to_json()

    def _deviations(
        self, seen: list[np.ndarray], super_classes: LabelMap, classifier: Classifier | None
    ) -> dict[str, Any]:
        train, test = (Labelled(rows, part.labels) for rows, part in zip(seen, self._splits(), strict=True))
        assert super_classes.super_class is not None
        spread = bootstrap_deviations(train, test, super_classes.super_class, classifier, self.bootstrap)
        return {"collapse_std": spread, "bootstrap": self.bootstrap}

    def _splits(self) -> tuple[Any, Any]:
        return self.dataset.train, self.dataset.test


def _classifier(features: FeatureSet, index: int, label_map: LabelMap) -> tuple[Classifier | None, str]:
    """The classifier of a member on the classes that it has, or why NC3 and NC4 are left out."""
    if label_map.super_class is None:
        return None, f"nc3 and nc4: the classes of {label_map.name} are no function of the fine labels"
    if features.classifier is None:
        return None, "nc3 and nc4: the classifier was not kept with the features; import or train again"
    weights, bias = (array[index, ..., : label_map.classes] for array in features.classifier)
    return Classifier(jnp.asarray(weights.T), jnp.asarray(bias)), ""


def _row(
    name: str, kind: str, index: int | None, member: Member | None, epoch: int | None, label_map: LabelMap
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "epoch": epoch,
        "member": index,
        "seed": member.seed if member else None,
        "lr": member.lr if member and epoch else None,
        "weight_decay": member.weight_decay if member and epoch else None,
        "label_map": label_map.name if member and epoch else None,
        "coarse_train_accuracy": None,
        "coarse_test_accuracy": None,
    }


def _pixels_left_out(dataset: Dataset) -> list[str]:
    """Why raw pixels are no row of the table; empty where they are one."""
    gib = 4 * math.prod(dataset.train.images.shape) / 2**30
    if not isinstance(dataset.train.images, Streamed) or gib <= PIXELS_GIB:
        return []
    return [f"Raw pixels are no row of the table: as features they would fill {gib:.0f} GiB of memory."]


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    of_pixels = (row["clp"].values() for row in rows if row["kind"] == "raw_pixels")
    pixels = max((clp["cluster_accuracy_train"] for scores in of_pixels for clp in scores), default=0.0)
    if pixels < PIXELS_CLUSTER:
        return []
    return [
        f"Raw pixels of this data set already cluster at {100 * pixels:.0f} % inside the super-classes: here the table "
        "shows that the pipeline works, not that a network hides structure."
    ]
