# SPDX-License-Identifier: Apache-2.0
"""A run as its work directory has it: finished, stopped, or still running."""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ncjax.config import Config, MeshConfig
from ncjax.data import Dataset, load_dataset
from ncjax.data.record import check_record
from ncjax.errors import UserError
from ncjax.features.feature_set import FeatureSet
from ncjax.features.store import RunMembers, load_features, read_members, saved_epochs
from ncjax.paths import user_path
from ncjax.results import TrainingSummary
from ncjax.storage.metrics import read_records
from ncjax.storage.temporary import TemporaryFolder
from ncjax.storage.workdir import read_config, read_json
from ncjax.training.checkpoints import read_state
from ncjax.training.loop import PreparedRun, prepare
from ncjax.training.members import Member, with_statistics
from ncjax.training.state import TrainState, blank_state, init_state
from ncjax.typed_json import structure


class MetricPoint(NamedTuple):
    """One number of one member after one epoch; `pandas.DataFrame(run.metrics())` makes a table of them."""

    member: str
    epoch: int
    step: int
    metric: str
    value: float | None  # None where it was not finite


@dataclass(frozen=True)
class Run:
    """A training of an ensemble of members, read from its work directory; nothing there is written, moved or deleted.

    Attributes:
        workdir: holds config.json, members.json, metrics.jsonl, checkpoints/ and features/.
        config: as it was resolved.
        described: what members.json says.
        in_memory: the data set, where this process trained the run.
        folder: a temporary work directory, deleted when no run uses it any more.
    """

    workdir: Path
    config: Config
    described: RunMembers
    in_memory: Dataset | None = field(default=None, repr=False, compare=False)
    folder: TemporaryFolder | None = field(default=None, repr=False, compare=False)

    @classmethod
    def open(cls, workdir: str | Path) -> "Run":
        """The run in a work directory, also one that is still being trained.

        Raises:
            UserError: there is none, or another version of ncjax wrote it.

        Example:
            `ncjax.Run.open("runs/demo").metrics()`
        """
        path = user_path(workdir).absolute()
        return cls(path, read_config(path), read_members(path))

    @property
    def members(self) -> tuple[Member, ...]:
        """Label map, learning rate, weight decay and seed of each member; `.name` is its name everywhere."""
        return tuple(self.described.members.values())

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs whose features were kept."""
        return saved_epochs(self.workdir)

    @property
    def last_epoch(self) -> int:
        """The last epoch that features were kept of, else the last of the config."""
        return max(self.epochs, default=self.config.optim.epochs)

    @cached_property
    def dataset(self) -> Dataset:
        """The data set that the run was trained on; read once.

        Raises:
            UserError: it cannot be read, has changed since, or was made of arrays that are gone.
        """
        if self.in_memory is not None:
            return self.in_memory
        if self.described.from_memory:
            raise UserError(
                f"{self.workdir} was trained on arrays from memory, which are not kept; give the data set again "
                "(dataset=...)"
            )
        found = load_dataset(self.config.data)
        check_record(self.workdir, found)
        return found

    def metrics(self) -> tuple[MetricPoint, ...]:
        """Everything that training wrote to metrics.jsonl so far, in long form: one point a member, epoch and metric.

        Raises:
            UserError: the file is damaged.
        """
        names = {str(i): name for i, name in enumerate(self.described.members)}  # of lines of earlier versions
        return tuple(
            MetricPoint(names.get(member, member), record.epoch, record.step, metric, value)
            for record in read_records(self.workdir / "metrics.jsonl")
            for metric, of_members in record.values.items()
            for member, value in of_members.items()
        )

    @property
    def training(self) -> TrainingSummary:
        """How long training took, and which members met numbers that were not finite.

        Raises:
            UserError: training has not ended yet, or the file is damaged.
        """
        path = self.workdir / "results" / "training.json"
        return structure(TrainingSummary, read_json(path), f"{path} does not fit")

    @property
    def has_ended(self) -> bool:
        """Whether training, or an import, has come to its end."""
        return (self.workdir / "results" / "training.json").exists()

    @property
    def expected_epochs(self) -> tuple[int, ...]:
        """The epochs whose features should be there by now: of a run that has not ended, those before the last line.

        Raises:
            UserError: metrics.jsonl or results/training.json is damaged.
        """
        last = self.config.optim.epochs
        if self.has_ended:
            return tuple(sorted({last} if self.training.imported else {*self.config.evaluate.epochs, last}))
        records = read_records(self.workdir / "metrics.jsonl")
        reached = records[-1].epoch if records else 0
        return tuple(sorted({epoch for epoch in self.config.evaluate.epochs if epoch < reached}))

    def features(self, epoch: int = -1) -> FeatureSet:
        """The features that were kept after an epoch; -1: the last kept.

        Raises:
            UserError: none were kept of that epoch; `ncjax.extract_features` computes them from a checkpoint.
        """
        return load_features(self.workdir, self.last_epoch if epoch == -1 else epoch)

    def state(self, epoch: int = -1) -> TrainState:
        """Weights, optimizer and step of all members at a checkpoint, on one device; -1: the newest; 0: initial.

        Raises:
            UserError: there is no checkpoint of that epoch, or none can be read.
        """
        return state_of(self.workdir, prepare_run(self.config, self.dataset), epoch)


def prepare_run(config: Config, dataset: Dataset) -> PreparedRun:
    """What `ncjax.training.loop.prepare` makes, on one device: for readers of a run."""
    return prepare(dataclasses.replace(config, mesh=MeshConfig()), dataset)


def prepare_again(run: Run) -> PreparedRun:
    """`prepare_run` of a run, as `normalised` has it."""
    return normalised(run, prepare_run(run.config, run.dataset))


def normalised(run: Run, prepared: PreparedRun) -> PreparedRun:
    """A run whose images are normalised as those of imported weights were; the same where none were imported.

    Raises:
        UserError: results/training.json is damaged.
    """
    training = run.training if run.has_ended else None
    if training is None or not training.mean:
        return prepared
    return dataclasses.replace(prepared, images=with_statistics(prepared.images, training.mean, training.std))


def state_of(workdir: Path, prepared: PreparedRun, epoch: int = -1) -> TrainState:
    """`Run.state` of a run that is prepared already."""
    if epoch == 0:
        return init_state(prepared.spec, prepared.ensemble)
    step = None if epoch == -1 else epoch * prepared.spec.steps_per_epoch
    return read_state(workdir, blank_state(prepared.spec, prepared.ensemble), step)
