# SPDX-License-Identifier: Apache-2.0
"""Train, extract, evaluate over a work directory, or files: what the command line calls."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from ncjax.buckets import BucketPath
from ncjax.config import Config, to_dict
from ncjax.data import Dataset, load_dataset
from ncjax.data.record import record_of
from ncjax.distributed.agreement import check_agreement, check_devices, is_joined
from ncjax.distributed.environment import environment, versions
from ncjax.distributed.processes import on_main_process
from ncjax.errors import UserError
from ncjax.evaluation.evaluator import DEFAULT_VIEWS, check_views, evaluate
from ncjax.evaluation.examples import choose_examples
from ncjax.evaluation.views import VIEWS
from ncjax.events import stage
from ncjax.features.callbacks import Callback
from ncjax.features.extraction import load_or_extract
from ncjax.features.feature_set import FEATURES, FeatureSet
from ncjax.features.growth import plan_growth, write_plan
from ncjax.features.run import Run, in_parts
from ncjax.features.store import describe_members, join_members
from ncjax.features.train_parts import prepare_next, train_part
from ncjax.models import Network
from ncjax.ops.xla import make_deterministic
from ncjax.paths import user_path
from ncjax.results import Evaluation, Provenance
from ncjax.run_evaluation import evaluate_run as evaluate_run
from ncjax.storage.starts import record_start
from ncjax.storage.temporary import TemporaryFolder
from ncjax.storage.workdir import locked
from ncjax.tables import find_named
from ncjax.training.augmentation import Augment
from ncjax.training.functions import OwnFunctions, find_functions, name_functions
from ncjax.training.losses import Loss
from ncjax.training.optimizers import Optimizer
from ncjax.training.schedules import Schedule
from ncjax.typed_json import unstructure


def train(
    config: Config,
    dataset: Dataset | None = None,
    *,
    network: Network | None = None,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    schedule: Schedule | None = None,
    augment: Augment | None = None,
    callbacks: Sequence[Callback] = (),
    workdir: str | Path | None = None,
    command: str = "",
) -> Run:
    """Trains the members of a config in one compiled program, or goes on from the last checkpoint.

    Members are label maps x learning rates x weight decays x seeds. Features are kept after the epochs in
    `config.evaluate.epochs` and after the last.

    In the work directory of a run, members that the config has and the run has not are trained as a cohort in
    cohorts/N/, and what is there stays as it is. What `config.evaluate` asks for may change; `config.optim.epochs` may
    grow, with a constant schedule or with `config.optim.schedule_epochs` set to the length that it had.

    Args:
        config: the experiment.
        dataset: the images; None: what `config.data` names.
        network: in place of what `config.model` names: `from_nnx(factory)`, `from_linen(module)` or
            `Network(init=..., apply=...)`.
        loss: in place of what `config.loss` names: `(logits [b c], targets [b], class_mask [c]) -> [b]`, of one member;
            the mask says which classes it has.
        optimizer: in place of what `config.optim.name` names: a function of `(learning_rate, weight_decay)`, two traced
            numbers, that returns an `optax.GradientTransformation`.
        schedule: in place of what `config.optim.schedule` names: `(step, total_steps) -> factor` in [0, 1], of the
            learning rate of every member.
        augment: in place of what `config.data.augment` names: `(key, images) -> images` of the same shape
            `[b h w ch]`, from 0 to 255, after crop and flip.
        callbacks: each is called on the main process after each epoch: `(epoch, run) -> metrics or None`. A metric is
            one number, or one for each member in their order or by name; it becomes a column of metrics.jsonl. The run
            has the members that are being trained: of a cohort, those of the cohort.
        workdir: gets config.json, data.json, members.json, metrics.jsonl, starts.jsonl, checkpoints/, features/EPOCH/
            and results/training.json; a stopped run in it goes on, and any run in it may grow. None: a temporary
            folder, deleted when the run is no longer used.
        command: kept in config.json.

    Returns:
        The run: `.members`, `.metrics()`, `.features(epoch)`, `.state(epoch)`.

    Raises:
        UserError: the config does not fit its data, the devices or the work directory, the run began on other data or
            with other functions, or a function does not return what it has to.
        Stopped: a signal asked for the end; a checkpoint was written.

    Example:
        >>> from ncjax import Config, ModelConfig, OptimConfig
        >>> config = Config(model=ModelConfig(name="mlp", width=4), optim=OptimConfig(batch=64, epochs=1, lr=(0.1,)))
        >>> run = train(config)  # of the digits, which need no files
        >>> [member.name for member in run.members]
        ['mod:5/lr=0.1/wd=5e-4/seed=0']
    """
    own = OwnFunctions(network, loss, optimizer, schedule, augment)
    config = name_functions(config, own)
    if workdir is None and is_joined():
        raise UserError("several processes need a work directory that all of them see; give workdir")
    folder = TemporaryFolder() if workdir is None else None
    path = folder.path if folder else user_path(workdir or "").absolute()
    check_agreement({"config": to_dict(config), "workdir": path, "versions": versions()})
    if config.deterministic:
        make_deterministic()
    check_devices()
    _check(config, own, path)
    images = dataset or load_dataset(config.data)
    with stage("prepare", f"{images.name}, {len(config.labels)} label maps"):
        check_agreement({"data": {"name": images.name, **unstructure(record_of(images))}})
        described = describe_members(config, images, from_memory=dataset is not None)
        plan = plan_growth(path, config, described, images)
        whole = join_members(plan.parts, tuple(described.members))
        run = in_parts(Run(path, config, whole, images, folder, own), plan.parts)
        ready = prepare_next(run, images)
    check_agreement({"members": [list(part.members) for part in plan.parts]})  # and all have read before one writes
    with ExitStack() as held:
        on_main_process(lambda: held.enter_context(locked(path)))
        on_main_process(lambda: write_plan(path, config, plan, described, images, command, environment()))
        on_main_process(lambda: _record_starts(run, command))
        for part in run.parts:
            train_part(part, images, ready.pop(part.workdir, None), callbacks)
    return run


def _check(config: Config, own: OwnFunctions, workdir: Path) -> None:
    if config.tensorboard and isinstance(workdir, BucketPath):
        raise UserError(f"tensorboard cannot write events into a bucket ({workdir}); turn it off")
    find_functions(config, own)
    check_views(config.evaluate.variants)
    find_named(VIEWS, config.evaluate.headline, "evaluate.headline")


def _record_starts(run: Run, command: str) -> None:
    for part in run.parts:
        if not part.has_ended:
            record_start(part.workdir, command, environment())


def evaluate_files(
    paths: Sequence[str | Path],
    *,
    labels: str = "",
    test: str = "",
    test_labels: str = "",
    classifier: str = "",
    label_map: str | None = None,
    views: Sequence[str] | None = None,
    member: str = "",
    bootstrap: int = 20,
    memory_gib: float | None = None,
    command: str = "",
) -> Evaluation:
    """Evaluates files or folders of features; several are layers of one network, in order, with the law of separation.

    Args:
        paths: as for `FeatureSet.open`.
        labels: as for `FeatureSet.open`, of every file.
        test: as for `FeatureSet.open`, of every file.
        test_labels: as for `FeatureSet.open`, of every file.
        classifier: as for `FeatureSet.open`, of the last file.
        label_map: as for `ncjax.evaluate`.
        views: as for `ncjax.evaluate`; None: its default.
        member: the name or number of one of several networks in each file, under the label map that its name begins
            with where none is given; empty: all.
        bootstrap: as for `ncjax.evaluate`.
        memory_gib: as for `ncjax.evaluate`.
        command: kept with the results.

    Raises:
        UserError: a file is missing, unreadable or lacks what is asked for, or its content does not fit.
    """
    asked: dict[str, object] = {"paths": paths, "views": views, "label_map": label_map, "member": member}
    asked |= {"bootstrap": bootstrap, "memory": memory_gib}
    check_agreement({"evaluation": asked, "versions": versions()})
    check_devices()
    named_arrays = {"labels": labels, "test": test, "test_labels": test_labels}
    sets = [_open_layer(path, member, named_arrays) for path in map(user_path, paths[:-1])]
    sets += [_open_layer(user_path(path), member, named_arrays, classifier) for path in paths[-1:]]
    if len({one.class_names for one in sets}) > 1:
        raise UserError("files with different classes cannot be evaluated together; evaluate them one by one")
    named = [_named_layers(one, Path(path).name) for one, path in zip(sets, paths, strict=True)]
    chosen = DEFAULT_VIEWS if views is None else tuple(views)
    found = evaluate(named, label_map=label_map, views=chosen, bootstrap=bootstrap, memory_gib=memory_gib)
    now = environment()
    names = sets[0].class_names if sets else ()
    made = Provenance(class_names=names, command=command, versions=now.versions, commit=now.commit, device=now.device)
    examples = choose_examples(named[-1], label_map=label_map)
    return dataclasses.replace(found, provenance=made, examples=examples)


def _open_layer(path: Path, member: str, arrays: Mapping[str, str], classifier: str | None = None) -> FeatureSet:
    """Features of a file, of one member where one is named; those of a last layer have their classifier."""
    opened = FeatureSet.open(path, classifier=classifier or "", **arrays)
    try:
        chosen = opened.choose_member(member) if member else opened
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return chosen if classifier is not None else dataclasses.replace(chosen, classifier=None)


def _named_layers(features: FeatureSet, name: str) -> FeatureSet:
    """Layers by the name of their file."""
    names = {layer: name if layer == FEATURES else f"{name}:{layer}" for layer in features.layers}
    return features.rename_layers(names)


def export_features(workdir: str | Path, epochs: Sequence[int] = ()) -> tuple[Path, ...]:
    """Writes the kept features of a run as features/EPOCH.npz; no epoch named: of all.

    Raises:
        UserError: there are none of an epoch.
    """
    run = Run.open(workdir)
    wanted = tuple(epochs) or run.epochs
    if not wanted:
        raise UserError(f"{workdir} holds no features; run: ncjax train CONFIG --workdir {workdir}")
    paths = []
    with stage("export features", total=len(wanted)) as advance:
        for epoch in wanted:
            paths.append(load_or_extract(run, epoch).features.save(run.workdir / "features" / f"{epoch}.npz"))
            advance(1, f"epoch {epoch}")
    return tuple(paths)
