# SPDX-License-Identifier: Apache-2.0
"""Train, extract, evaluate over a work directory, or files: what the command line calls."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from ncjax.config import Config, to_dict
from ncjax.data import Dataset, load_dataset
from ncjax.data.label_maps import LabelMap
from ncjax.data.record import record_of
from ncjax.distributed.agreement import check_agreement, check_devices, is_joined
from ncjax.distributed.environment import environment, versions
from ncjax.distributed.processes import on_main_process
from ncjax.errors import UserError
from ncjax.evaluation.controls import (
    Part,
    describe_controls,
    distinct_maps,
    initial_parts,
    maps_left_out,
    pixel_parts,
    pixels_left_out,
    trained_parts,
)
from ncjax.evaluation.evaluator import DEFAULT_VIEWS, MOST_NETWORKS, Job, check_views, evaluate, evaluate_jobs
from ncjax.evaluation.store import write_evaluation
from ncjax.evaluation.views import VIEWS
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
from ncjax.results import Evaluation, Event, Provenance, TrainingSummary, join
from ncjax.storage.temporary import TemporaryFolder
from ncjax.storage.workdir import locked, read_run_file
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
        workdir: gets config.json, data.json, members.json, metrics.jsonl, checkpoints/, features/EPOCH/ and
            results/training.json; a stopped run in it goes on, and any run in it may grow. None: a temporary folder,
            deleted when the run is no longer used.
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
    find_functions(config, own)
    check_views(config.evaluate.variants)
    find_named(VIEWS, config.evaluate.headline, "evaluate.headline")
    images = dataset or load_dataset(config.data)
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
        for part in run.parts:
            train_part(part, images, ready.pop(part.workdir, None), callbacks)
    return run


def evaluate_run(
    run: Run | str | Path,
    views: Sequence[str] = (),
    *,
    controls: bool = True,
    control_maps: int | None = None,
    bootstrap: int = 20,
    memory_gib: float | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Evaluation:
    """Evaluates the kept features of a run with its controls.

    The rows, for each distinct label map: raw pixels, and the network at random initialization; then all members at
    every kept epoch, those of fine labels under each label map.
    Features that are missing or damaged are made again from the checkpoint of their epoch, where there is one; notes
    say so, name the epochs that are missing, and say where training has not ended: members of a cohort that is still
    being trained are rows of the epochs that they have come to.
    Writes results/evaluation.json and results/clusters/EPOCH.npz; what they hold of other views is kept.

    Args:
        run: that has been trained, or its work directory.
        views: what k-means sees; none: those of the config.
        controls: whether raw pixels are rows.
        control_maps: how many label maps have controls of their own; None: as many as the config says.
        bootstrap: as for `ncjax.evaluate`.
        memory_gib: as for `ncjax.evaluate`; None: as the config says.
        on_event: as for `ncjax.evaluate`.

    Raises:
        UserError: the work directory holds no features, or its data cannot be read.
    """
    run, started = run if isinstance(run, Run) else Run.open(run), time.perf_counter()
    epochs, training, unfinished = _epochs(run), *_training(run)
    chosen = tuple(views) or run.config.evaluate.variants
    check_views(chosen)
    most = run.config.evaluate.control_maps if control_maps is None else control_maps
    if most < 1:
        raise UserError(f"control_maps is {most}, but must be 1 or more")
    memory = memory_gib or run.config.evaluate.memory_gib or None
    asked = {"views": chosen, "controls": controls, "control_maps": most, "bootstrap": bootstrap, "memory": memory}
    check_agreement({"config": to_dict(run.config), "evaluation": asked, "versions": versions()})
    check_devices()
    maps = distinct_maps(run.described)
    pixels = pixels_left_out(run) if controls else []
    found = _evaluated(run, epochs, chosen, maps[:most], controls and not pixels, bootstrap, memory, on_event)
    if all(row.epoch is None for row in found.rows):
        raise UserError(found.notes[0])
    notes = [*unfinished, *training.failures, *_imported(training), *training.data]
    notes += [*pixels, *maps_left_out(maps, most)]
    secs = {
        "compile": training.compile_secs,
        "train": training.train_secs,
        "evaluate": round(time.perf_counter() - started, 2),
    }
    notes += [*found.notes, *describe_controls(found.rows)]
    found = dataclasses.replace(found, notes=tuple(notes), provenance=_provenance(run, secs))
    on_main_process(lambda: write_evaluation(run.workdir, found))
    return found


def _epochs(run: Run) -> tuple[int, ...]:
    """The epochs that are evaluated: those whose features are there, and those whose features should be."""
    if not (run.epochs or run.has_ended):
        raise UserError(f"{run.workdir} holds no features; run: ncjax train CONFIG --workdir {run.workdir}")
    return tuple(sorted({*run.epochs, *run.expected_epochs}))


def _training(run: Run) -> tuple[TrainingSummary, tuple[str, ...]]:
    """How training went, and a note for each part whose training has not ended."""
    if run.has_ended:
        return run.training, ()
    notes = []
    for number, part in enumerate(run.parts):
        if not part.has_ended:
            of_cohort = f" of the {len(part.members)} members of cohort {number}" if number else ""
            note = f"Training{of_cohort} has not ended: evaluated are the features kept so far, up to epoch "
            notes.append(f"{note}{max(part.epochs, default=0)} of {run.config.optim.epochs}.")
    return TrainingSummary(compile_secs=None, train_secs=None), tuple(notes)


def _imported(training: TrainingSummary) -> tuple[str, ...]:
    """Where weights came from, and how the images that they are measured on were normalised."""
    if not training.mean:
        return training.imported
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (training.mean, training.std))
    return (*training.imported, f"Their images were normalised with mean {mean} and deviation {std} (full scale 1).")


def _evaluated(
    run: Run,
    epochs: Sequence[int],
    views: Sequence[str],
    maps: Sequence[LabelMap | None],
    pixels: bool,
    bootstrap: int,
    memory_gib: float | None,
    on_event: Callable[[Event], None] | None,
) -> Evaluation:
    """Raw pixels, random initialization, then the members at every kept epoch; all together."""
    parts, jobs, notes = list[Part](), list[Job](), list[str]()
    names = tuple(run.described.members)

    def add(more: Sequence[Part], resamples: int) -> None:
        few = sum(len(part.features.names) for part in more) <= MOST_NETWORKS
        parts.extend(more)
        jobs.extend(Job([part.features], resamples if few else 0) for part in more)

    if pixels:
        add(pixel_parts(run.dataset, maps, run.config.mesh), 0)
    for epoch in epochs:
        try:
            features, of_features = load_or_extract(run, epoch, on_disk=True)
        except UserError as error:
            notes.append(f"Epoch {epoch} is missing: {error}.")
            continue
        notes += of_features
        add(trained_parts(features, maps, names) if epoch else initial_parts(features, maps), bootstrap)
    restarts = run.config.evaluate.restarts
    found = (
        evaluate_jobs(jobs, views=views, restarts=restarts, memory_gib=memory_gib, on_event=on_event) if jobs else []
    )
    whole = join([part.name_rows(one, len(maps) > 1) for part, one in zip(parts, found, strict=True)])
    return dataclasses.replace(whole, notes=(*notes, *whole.notes))


def _provenance(run: Run, wall_secs: dict[str, float | None]) -> Provenance:
    written, now = read_run_file(run.workdir), environment()
    return Provenance(
        name=run.config.name,
        dataset=run.described.dataset,
        class_names=run.described.class_names,
        command=written.command,
        config=written.config,
        versions=now.versions,
        commit=now.commit,
        device=now.device,
        wall_secs=wall_secs,
    )


def evaluate_files(
    paths: Sequence[str | Path],
    *,
    labels: str = "",
    test: str = "",
    test_labels: str = "",
    classifier: str = "",
    label_map: str | None = None,
    views: Sequence[str] | None = None,
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
        bootstrap: as for `ncjax.evaluate`.
        memory_gib: as for `ncjax.evaluate`.
        command: kept with the results.

    Raises:
        UserError: a file is missing, unreadable or lacks what is asked for, or its content does not fit.
    """
    asked = {"paths": paths, "views": views, "label_map": label_map, "bootstrap": bootstrap, "memory": memory_gib}
    check_agreement({"evaluation": asked, "versions": versions()})
    check_devices()
    sets = []
    for number, path in enumerate(map(user_path, paths), start=1):
        last = number == len(paths)
        opened = FeatureSet.open(
            path, labels=labels, test=test, test_labels=test_labels, classifier=classifier if last else ""
        )
        sets.append(dataclasses.replace(opened, classifier=opened.classifier if last else None))
    if len({one.class_names for one in sets}) > 1:
        raise UserError("files with different classes cannot be evaluated together; evaluate them one by one")
    named = [_named_layers(one, Path(path).name) for one, path in zip(sets, paths, strict=True)]
    chosen = DEFAULT_VIEWS if views is None else tuple(views)
    found = evaluate(named, label_map=label_map, views=chosen, bootstrap=bootstrap, memory_gib=memory_gib)
    now = environment()
    names = sets[0].class_names if sets else ()
    made = Provenance(class_names=names, command=command, versions=now.versions, commit=now.commit, device=now.device)
    return dataclasses.replace(found, provenance=made)


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
    return tuple(
        load_or_extract(run, epoch).features.save(run.workdir / "features" / f"{epoch}.npz") for epoch in wanted
    )
