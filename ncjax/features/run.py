# SPDX-License-Identifier: Apache-2.0
"""A run as its work directory has it: finished, stopped, or still running."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ncjax.config import Config, LossConfig, MeshConfig, from_dict_of
from ncjax.data import Dataset, load_dataset
from ncjax.data.record import check_record
from ncjax.distributed.processes import is_distributed, to_host
from ncjax.errors import UserError
from ncjax.features.feature_set import FeatureSet
from ncjax.features.joined import join_features, join_states, join_summaries
from ncjax.features.store import RunMembers, join_members, load_features, read_parts, saved_epochs
from ncjax.models import Network
from ncjax.paths import user_path
from ncjax.results import TrainingSummary
from ncjax.storage.metrics import METRICS, join_records, read_records
from ncjax.storage.temporary import TemporaryFolder
from ncjax.storage.workdir import CONFIG, OTHER_VERSION, TRAINING, cohort_folder, read_json, read_run_file
from ncjax.training.checkpoints import read_state
from ncjax.training.functions import NO_OWN, OwnFunctions, name_functions
from ncjax.training.loop import PreparedRun, prepare
from ncjax.training.lowerings import kept_lowerings
from ncjax.training.members import Member, with_statistics
from ncjax.training.optimizers import Optimizer
from ncjax.training.state import TrainState, blank_state, init_state
from ncjax.typed_json import structure


class MetricPoint(NamedTuple):
    """One number of one member after one epoch; `pandas.DataFrame(run.metrics())` makes a table of them."""

    member: str
    epoch: int
    step: int
    metric: str
    value: float | None  # None where it was not finite


class Live(NamedTuple):
    """The state after an epoch that has just ended; it is donated to the next step."""

    epoch: int
    state: TrainState


@dataclass(frozen=True)
class Run:
    """A training of an ensemble of members, read from its work directory; nothing there is written, moved or deleted.

    Attributes:
        workdir: holds config.json, members.json, metrics.jsonl, checkpoints/ and features/.
        config: as it was resolved.
        described: what members.json says.
        in_memory: the data set, where this process trained the run.
        own: functions in place of those that the config names.
        live: the state of a run that is being trained, for its callbacks.
        folder: a temporary work directory, deleted when no run uses it any more.
        grown: the parts of a run that has grown, a run each; none: it has one part.
        outputs: of the network of a part; 0: as many as the classes of the member that has most.
    """

    workdir: Path
    config: Config
    described: RunMembers
    in_memory: Dataset | None = field(default=None, repr=False, compare=False)
    folder: TemporaryFolder | None = field(default=None, repr=False, compare=False)
    own: OwnFunctions = field(default=NO_OWN, repr=False, compare=False)
    live: Live | None = field(default=None, repr=False, compare=False)
    grown: tuple["Run", ...] = field(default=(), repr=False)
    outputs: int = 0

    @classmethod
    def open(
        cls,
        workdir: str | Path,
        dataset: Dataset | None = None,
        *,
        network: Network | None = None,
        optimizer: Optimizer | None = None,
    ) -> "Run":
        """The run in a work directory, also one that is still being trained.

        Args:
            workdir: of the run.
            dataset: that the run was trained on, where it was made of arrays in memory; None: what the config names.
            network: what was passed to `ncjax.train` as network; what reads checkpoints needs it.
            optimizer: the same.

        Raises:
            UserError: there is none, another version of ncjax wrote it, or it was trained with another network or
                optimizer, or on other data.

        Example:
            `ncjax.Run.open("runs/demo").metrics()`
        """
        path, own = user_path(workdir).absolute(), OwnFunctions(network=network, optimizer=optimizer)
        written = read_run_file(path)
        config = from_dict_of(Config, written.config, f"{path / CONFIG} {OTHER_VERSION}")
        for there, now in zip(_names(config), _names(name_functions(config, own)), strict=True):
            if there != now:
                raise UserError(f"{path} was trained with {there!r}, not with {now!r}; pass what it was trained with")
        if dataset is not None:
            check_record(path, dataset)
        parts = read_parts(path)
        run = cls(path, config, join_members(parts, written.members), dataset, own=own)
        return in_parts(run, parts)

    @property
    def parts(self) -> tuple["Run", ...]:
        """The members that the run began with, then each cohort that was added; of most runs the run itself alone."""
        return self.grown or (self,)

    @property
    def members(self) -> tuple[Member, ...]:
        """Label map, learning rate, weight decay and seed of each member; `.name` is its name everywhere."""
        return tuple(self.described.members.values())

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs whose features were kept, of some members at least."""
        return tuple(sorted({epoch for part in self.parts for epoch in saved_epochs(part.workdir)}))

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
                f"{self.workdir} was trained on arrays from memory, which are not kept; give the data set again: "
                "Run.open(workdir, dataset)"
            )
        found = load_dataset(self.config.data)
        check_record(self.workdir, found)
        return found

    def metrics(self) -> tuple[MetricPoint, ...]:
        """Everything that training wrote to metrics.jsonl so far, in long form: one point a member, epoch and metric.

        Raises:
            UserError: the file is damaged.
        """
        files = [read_records(part.workdir / METRICS, tuple(part.described.members)) for part in self.parts]
        place = {name: number for number, name in enumerate(self.described.members)}
        return tuple(
            MetricPoint(member, record.epoch, record.step, metric, of_members[member])
            for record in join_records(files)
            for metric, of_members in record.values.items()
            for member in sorted(of_members, key=lambda name: place.get(name, len(place)))
        )

    @property
    def training(self) -> TrainingSummary:
        """How long training took, and which members met numbers that were not finite.

        Raises:
            UserError: training has not ended yet, or the file is damaged.
        """
        paths = [part.workdir / TRAINING for part in self.parts]
        found = [structure(TrainingSummary, read_json(path), f"{path} does not fit") for path in paths]
        return found[0] if len(found) == 1 else join_summaries(found)

    @property
    def has_ended(self) -> bool:
        """Whether training, or an import, has come to its end."""
        return all((part.workdir / TRAINING).exists() for part in self.parts)

    @property
    def expected_epochs(self) -> tuple[int, ...]:
        """The epochs whose features should be there by now: of a run that has not ended, those before the last line.

        Raises:
            UserError: metrics.jsonl or results/training.json is damaged.
        """
        if self.grown:
            return tuple(sorted({epoch for part in self.grown for epoch in part.expected_epochs}))
        last = self.config.optim.epochs
        if self.has_ended:
            return tuple(sorted({last} if self.training.imported else {*self.config.evaluate.epochs, last}))
        records = read_records(self.workdir / METRICS)
        reached = records[-1].epoch if records else 0
        return tuple(sorted({epoch for epoch in self.config.evaluate.epochs if epoch < reached}))

    def features(self, epoch: int = -1) -> FeatureSet:
        """The features that were kept after an epoch; -1: the last kept.

        Members of a cohort that is still being trained, and has not come to that epoch, are left out.

        Raises:
            UserError: none were kept of that epoch; `ncjax.extract_features` computes them from a checkpoint.
        """
        epoch = self.last_epoch if epoch == -1 else epoch
        reached = [part for part in self.parts if part.has_ended or epoch in part.epochs] or self.parts
        kept = [load_features(part.workdir, epoch, config=part.config) for part in reached]
        return join_features(kept, self.described)

    def state(self, epoch: int = -1) -> TrainState:
        """Weights, optimizer and step of all members at a checkpoint, on one device; -1: the newest; 0: initial.

        In a callback, -1 is the state after the epoch that has just ended.

        Raises:
            UserError: there is no checkpoint of that epoch, none can be read, or `Run.open` was not passed the network
                or the optimizer that `ncjax.train` was; or the parts of a run that has grown are at different steps, or
                of networks with different numbers of outputs (`run.parts[0].state()` is that of the first part).
        """
        states = {str(part.workdir): state_of(part, prepare_part(part, self.dataset), epoch) for part in self.parts}
        if not self.grown:
            return states[str(self.workdir)]
        names = [name for part in self.parts for name in part.described.members]
        return join_states(states, [names.index(name) for name in self.described.members])


def in_parts(run: Run, parts: Sequence[RunMembers]) -> Run:
    """A run with its parts, whose members are described; the same where it has not grown.

    The network of a part has as many outputs as the classes of the member that has most, in this part or one before:
    so it had when it was added.
    """
    if len(parts) == 1 and tuple(parts[0].members) == tuple(run.described.members):
        return run
    folders = (run.workdir, *(cohort_folder(run.workdir, number) for number in range(1, len(parts))))
    most = accumulate((max(one.label_map.classes for one in part.members.values()) for part in parts), max)
    grown = [
        dataclasses.replace(run, workdir=folder, described=part, outputs=outputs)
        for folder, part, outputs in zip(folders, parts, most, strict=True)
    ]
    return dataclasses.replace(run, grown=tuple(grown))


def prepare_part(part: Run, dataset: Dataset) -> PreparedRun:
    """`prepare_run` of a run that has one part, or of a part, on the data set of the run."""
    return prepare_run(part.config, dataset, part.own, members=part.members, outputs=part.outputs)


def prepare_run(
    config: Config,
    dataset: Dataset,
    own: OwnFunctions = NO_OWN,
    *,
    members: tuple[Member, ...] = (),
    outputs: int = 0,
) -> PreparedRun:
    """What `ncjax.training.loop.prepare` makes, on one device: for readers of a run, who need no loss or schedule."""
    data, optim = (
        dataclasses.replace(config.data, augment=""),
        dataclasses.replace(config.optim, schedule="constant"),
    )
    read = dataclasses.replace(config, mesh=MeshConfig(), data=data, optim=optim, loss=LossConfig())
    functions = OwnFunctions(network=own.network, optimizer=own.optimizer)
    return prepare(read, dataset, functions, members=members, outputs=outputs)


def prepare_again(part: Run, dataset: Dataset) -> PreparedRun:
    """`prepare_part`, as `normalised` has it, computed as in training."""
    return kept_lowerings(normalised(part, prepare_part(part, dataset)), part.workdir)


def normalised(run: Run, prepared: PreparedRun) -> PreparedRun:
    """A run whose images are normalised as those of imported weights were; the same where none were imported.

    Raises:
        UserError: results/training.json is damaged.
    """
    training = run.training if run.has_ended else None
    if training is None or not training.mean:
        return prepared
    return dataclasses.replace(prepared, images=with_statistics(prepared.images, training.mean, training.std))


def state_of(run: Run, prepared: PreparedRun, epoch: int = -1) -> TrainState:
    """`Run.state` of a run that is prepared already."""
    if run.live is not None and epoch in (-1, run.live.epoch):
        return _on_one_device(run.live.state, len(run.members))
    if epoch == 0:
        return init_state(prepared.spec, prepared.ensemble)
    step = None if epoch == -1 else epoch * prepared.spec.steps_per_epoch
    return read_state(run.workdir, blank_state(prepared.spec, prepared.ensemble), step)


def _on_one_device(state: TrainState, members: int) -> TrainState:
    if is_distributed():
        raise UserError(
            "with several processes a callback cannot read weights; read what is kept, such as run.metrics()"
        )
    one: TrainState = jax.tree.map(lambda leaf: jnp.asarray(leaf[:members] if leaf.ndim else leaf), to_host(state))
    return one


def _names(config: Config) -> tuple[str, str]:
    return config.model.name, config.optim.name
