# SPDX-License-Identifier: Apache-2.0
"""One run from its first step, or its last checkpoint, to its end."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int32
from tqdm import tqdm

from ncjax.config import Config
from ncjax.data import Dataset
from ncjax.distributed.mesh import REPLICATED, make_mesh
from ncjax.distributed.processes import is_main_process, on_any_process, to_host
from ncjax.distributed.sharding import put
from ncjax.distributed.signals import patience, stop_requests
from ncjax.distributed.watch import watched
from ncjax.errors import Stopped
from ncjax.ops.xla import compiler_options
from ncjax.storage.metrics import Values, keep_until
from ncjax.training import checkpoints as checkpoint
from ncjax.training.forward import LOGITS, forward, forward_batches, mean_loss_and_accuracy
from ncjax.training.functions import NO_OWN, OwnFunctions, find_functions
from ncjax.training.members import Ensemble, Images, Member, list_members, make_ensemble, put_images
from ncjax.training.metrics import open_metrics
from ncjax.training.monitor import Observe, make_observer
from ncjax.training.reading import Chunk, Measures, Unread
from ncjax.training.state import Spec, StepMetrics, TrainState, init_state, make_spec
from ncjax.training.step import compile_chunk, train_chunk
from ncjax.training.streaming import Feed, batches, chunk_shapes, chunks, make_feed

OnEpoch = Callable[[int, TrainState], Values | None]  # its numbers become columns of metrics.jsonl
Test = Callable[[TrainState], StepMetrics]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """All that a run holds on its devices, apart from the state."""

    config: Config
    spec: Spec
    members: tuple[Member, ...]
    ensemble: Ensemble
    images: Images
    dataset: Dataset
    feed: Feed | None  # of a streamed data set


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    state: TrainState
    compile_secs: float  # of this process
    train_secs: float  # of this process and of those that it went on from, as far as their checkpoints
    failures: tuple[str, ...]  # one line for each member whose loss or gradient was not finite


def prepare(
    config: Config,
    dataset: Dataset,
    own: OwnFunctions = NO_OWN,
    *,
    members: tuple[Member, ...] = (),
    outputs: int = 0,
) -> PreparedRun:
    """Check a config against its data, then put the data and the members on the devices.

    Args:
        config: the experiment.
        dataset: its images.
        own: functions in place of those that the config names.
        members: some of those of the config; none: all.
        outputs: of the network; 0: as many as the classes of the member that has most.

    Raises:
        UserError: a name, the mesh, the batch or a label map does not fit, or a function of `own` is not what it has to
            be.
    """
    find_functions(config, own)
    members = members or list_members(config, dataset)
    mesh = make_mesh(config.mesh, config.optim.batch)
    classes = max(outputs, *(member.label_map.classes for member in members))
    shape, examples = dataset.train.images.shape[1:], dataset.train.images.shape[0]
    ensemble = make_ensemble(members, dataset, mesh, classes)
    images = put_images(dataset, mesh, streamed=config.data.streamed)
    feed = None
    if config.data.streamed:
        sizes = {"batch": config.optim.batch, "chunk_steps": config.chunk_steps}
        feed = make_feed(dataset.train.images, to_host(ensemble.seed), mesh, **sizes)
    spec = make_spec(config, shape, classes, examples, mesh, own)
    images = images if feed is None else images._replace(streamed=chunk_shapes(feed))
    if own != NO_OWN:
        _check_own(spec, images, ensemble)
    return PreparedRun(
        config=config,
        spec=spec,
        members=members,
        ensemble=ensemble,
        images=images,
        dataset=dataset,
        feed=feed,
    )


def _check_own(spec: Spec, images: Images, ensemble: Ensemble) -> None:
    """Traces a chunk of steps, so that functions that do not fit fail before anything is written."""
    state = jax.eval_shape(partial(init_state, spec), ensemble)
    jax.eval_shape(partial(train_chunk, spec), state, images, ensemble, jax.ShapeDtypeStruct((), np.int32))


def fit(run: PreparedRun, workdir: Path, on_epoch: OnEpoch) -> Outcome:
    """Train to the end, from the newest checkpoint where there is one.

    On accelerators the host reads what a chunk of steps left, measures of an epoch included, while the next one is
    computed. So nothing waits, but for `on_epoch` where it reads the state, and for checkpoints.

    Args:
        run: what `prepare` made.
        workdir: metrics.jsonl and checkpoints/ are written there.
        on_epoch: called with (epoch, state) after each epoch and before its checkpoint, and with (0, state) before the
            first epoch; it must not keep the state. What it returns of an epoch is written to metrics.jsonl; the lines
            of earlier epochs are there. After an interruption it may be called for an epoch again.

    Raises:
        Stopped: a signal asked for it; a checkpoint has been written.
        UserError: a checkpoint cannot be read or written.
    """
    spec, state = run.spec, init_state(run.spec, run.ensemble)
    started = time.perf_counter()
    with watched("the compilation of the training step"):
        programs = _compile(run, state)
    compile_secs = time.perf_counter() - started
    keep_steps = run.config.checkpoint_epochs * spec.steps_per_epoch
    with checkpoint.open_checkpoints(workdir, keep_steps) as checkpoints, stop_requests() as asked_to_stop:
        restored = checkpoint.restore_latest(checkpoints, state)
        if restored is None:
            on_epoch(0, state)
        else:
            state = restored
        at = int(state.step)
        earlier_secs = keep_until(workdir / "metrics.jsonl", at) if is_main_process() else 0.0
        started = time.perf_counter() - earlier_secs
        is_due = _clock(run.config.checkpoint_minutes)
        writer, images = open_metrics(workdir, tensorboard=run.config.tensorboard), chunk_images(run, at)
        with writer as write, _progress(run, at) as bar, closing(images):
            unread = Unread(spec, run.members, write, bar, started)
            while at < spec.total_steps:
                state, at = _advance(run, state, programs, at, images, unread, on_epoch)
                stop, due = on_any_process((asked_to_stop(), is_due() and is_main_process()))
                if stop or due or at == spec.total_steps or (keep_steps and at % keep_steps == 0):
                    unread.read()
                    with patience(), watched(f"the checkpoint of step {at}"):
                        checkpoint.save(checkpoints, state)
                        if stop:
                            checkpoint.finish(checkpoints)
                            raise Stopped(f"stopped after step {at} of {spec.total_steps}")
        train_secs = time.perf_counter() - started
        with patience(), watched("the last checkpoint"):
            checkpoint.finish(checkpoints)
    return Outcome(state=state, compile_secs=compile_secs, train_secs=train_secs, failures=_failures(run, state))


class _Programs(NamedTuple):
    """What is compiled before the first step."""

    step_chunk: jax.stages.Compiled
    test: Test
    observe: Observe


def _compile(run: PreparedRun, state: TrainState) -> _Programs:
    return _Programs(
        compile_chunk(run.spec, state, run.images, run.ensemble),
        _make_test(run, state),
        make_observer(run.spec, state, run.dataset, run.ensemble, run.images),
    )


def waits() -> bool:
    """Whether the host waits for each program: on CPUs, where it shares the cores with them.

    There programs of several devices that run beside each other may also find too few threads for their collectives.
    """
    return jax.default_backend() == "cpu"


def chunk_images(run: PreparedRun, first: int) -> Generator[Images, None, None]:
    """The images of each chunk of steps from step `first` on: the whole data set, or what is streamed."""
    if run.feed is None:
        while True:
            yield run.images
    with closing(chunks(run.feed, first, run.spec.total_steps)) as streamed:
        for chunk in streamed:
            yield run.images._replace(streamed=chunk)


def _make_test(run: PreparedRun, state: TrainState) -> Test:
    """A function of the state: loss and accuracy of every member on the test split."""
    spec, images, ensemble = run.spec, run.images, run.ensemble
    options = compiler_options(run.config.deterministic)

    def score(logits: list[Array], ensemble: Ensemble) -> StepMetrics:
        whole = jnp.concatenate(logits, axis=1)[:, : ensemble.test_targets.shape[1]]
        return mean_loss_and_accuracy(spec.functions.loss, whole, ensemble.test_targets, ensemble.class_mask)

    def resident(state: TrainState, images: Images, ensemble: Ensemble) -> StepMetrics:
        return score([forward(spec, state, images.test, images.mean, images.std, ())[LOGITS]], ensemble)

    def block(state: TrainState, pixels: Array, images: Images) -> Array:
        return forward_batches(spec, state, pixels, images.mean, images.std, ())[LOGITS]

    if run.feed is None:
        whole = jax.jit(resident, compiler_options=options).lower(state, images, ensemble).compile()
        return lambda state: whole(state, images, ensemble)
    logits_of, scored = jax.jit(block, compiler_options=options), jax.jit(score)
    images = images._replace(streamed=None)

    def streamed(state: TrainState) -> StepMetrics:
        with closing(batches(run.dataset.test.images, run.config.optim.batch, spec.mesh)) as blocks:
            return scored([logits_of(state, pixels, images) for pixels in blocks], ensemble)

    return streamed


def _clock(minutes: float) -> Callable[[], bool]:
    """A function that says whether so many minutes have passed since it last said so; 0: never."""
    last = time.monotonic()

    def is_due() -> bool:
        nonlocal last
        if not minutes or time.monotonic() - last < 60 * minutes:
            return False
        last = time.monotonic()
        return True

    return is_due


def _progress(run: PreparedRun, step: int) -> tqdm:
    scale = run.config.optim.batch * len(run.members)
    return tqdm(
        total=run.spec.total_steps * scale,
        initial=step * scale,
        unit="image",
        unit_scale=True,
        desc="train",
        disable=not is_main_process(),
    )


def _advance(
    run: PreparedRun,
    state: TrainState,
    programs: _Programs,
    at: int,
    images: Iterator[Images],
    unread: Unread,
    on_epoch: OnEpoch,
) -> tuple[TrainState, int]:
    """A chunk of steps, at most to the end of the epoch, and the step that it ends at."""
    per_epoch = run.spec.steps_per_epoch
    epoch = at // per_epoch + 1
    end = min(epoch * per_epoch, at + run.config.chunk_steps)
    stop = put(np.int32(end), NamedSharding(run.spec.mesh, REPLICATED))
    with patience(), watched(f"the steps after step {at}"):
        state, chunk = _waited_for(programs.step_chunk(state, next(images), run.ensemble, stop))
        unread.read()
    ended: Measures | None = None
    more: Values = {}
    if end % per_epoch == 0:
        with watched(f"the measures of epoch {epoch}"):
            ended = _measured(run, programs, state, end)
        with watched(f"what is kept of epoch {epoch}"):
            more = on_epoch(epoch, state) or {}
    unread.add(Chunk(at, end, chunk.loss, ended, more))
    if waits():
        unread.read()
    return state, end


def _waited_for(found: T) -> T:
    return jax.block_until_ready(found) if waits() else found


def _measured(run: PreparedRun, programs: _Programs, state: TrainState, at: int) -> Measures:
    factor = _factor(run.spec, np.int32(at - 1))
    totals = jax.tree.map(jnp.copy, state.members.totals)  # the state itself is donated to the next steps
    tested = _waited_for(programs.test(state))
    return Measures(factor, totals, tested, _waited_for(programs.observe(at // run.spec.steps_per_epoch, state)))


@partial(jax.jit, static_argnums=0)
def _factor(spec: Spec, step: Int32[Array, ""]) -> Float[Array, ""]:
    return spec.lr_factor(step)


def _failures(run: PreparedRun, state: TrainState) -> tuple[str, ...]:
    steps = to_host(state.members.nan_step)
    return tuple(
        f"member {member.name}: loss or gradient not finite at step {step}; frozen there"
        for member, step in zip(run.members, steps, strict=False)
        if step >= 0
    )
