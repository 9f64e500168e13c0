# SPDX-License-Identifier: Apache-2.0
"""One run from its first step, or its last checkpoint, to its end."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array
from tqdm import tqdm

from ncjax.config import Config
from ncjax.data import Dataset
from ncjax.errors import Stopped
from ncjax.ops.xla import compiler_options
from ncjax.distributed.processes import on_any_process, is_main_process, stop_requests, to_host
from ncjax.training import checkpoints as checkpoint, metrics
from ncjax.training.members import Ensemble, Images, Member, list_members, make_ensemble, put_images
from ncjax.training.streaming import Feed, batches, chunks, fed_like, make_feed
from ncjax.distributed.mesh import EVERYWHERE, make_mesh, put
from ncjax.training.monitor import make_observer
from ncjax.training.schedules import schedule_factor
from ncjax.training.step import (
    Spec,
    StepMetrics,
    TrainState,
    compile_chunk,
    forward,
    forward_batches,
    init_state,
    make_spec,
    mean_loss_and_accuracy,
)

OnEpoch = Callable[[int, TrainState], None]


@dataclass(frozen=True, kw_only=True)
class Run:
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
    failures: tuple[str, ...]  # one line per member that met a loss that was not finite


def prepare(config: Config, dataset: Dataset) -> Run:
    """Check a config against its data, then lay the data and the members over the devices.

    Raises:
        UserError: the mesh, the batch or a label map does not fit.
    """
    members = list_members(config, dataset)
    mesh = make_mesh(config.mesh, config.optim.batch)
    classes = max(member.label_map.classes for member in members)
    shape, examples = dataset.train.images.shape[1:], dataset.train.images.shape[0]
    ensemble, images = make_ensemble(members, dataset, mesh), put_images(dataset, mesh, streamed=config.data.streamed)
    feed = None
    if config.data.streamed:
        sizes = {"batch": config.optim.batch, "chunk_steps": config.chunk_steps}
        feed = make_feed(dataset.train.images, to_host(ensemble.seed), mesh, **sizes)
    return Run(
        config=config,
        spec=make_spec(config, shape, classes, examples, mesh),
        members=members,
        ensemble=ensemble,
        images=images if feed is None else images._replace(fed=fed_like(feed)),
        dataset=dataset,
        feed=feed,
    )


def train(run: Run, workdir: Path, on_epoch: OnEpoch) -> Outcome:
    """Train to the end, from the newest checkpoint where there is one.

    Args:
        run: what `prepare` made.
        workdir: gets metrics.jsonl and checkpoints/.
        on_epoch: called with (epoch, state) after each epoch and before its checkpoint, and with (0, state) before the
            first epoch; it must not keep the state. After an interruption it may see an epoch again.

    Raises:
        Stopped: a signal asked for it; a checkpoint has been written.
        UserError: a checkpoint cannot be read or written.
    """
    spec, state = run.spec, init_state(run.spec, run.ensemble)
    started = time.perf_counter()
    step_chunk = compile_chunk(spec, state, run.images, run.ensemble)
    test, observe = _tester(run), make_observer(spec, run.dataset, run.ensemble, run.images, len(run.members))
    compile_secs = time.perf_counter() - started
    keep_steps = run.config.checkpoint_epochs * spec.steps_per_epoch
    with checkpoint.open_checkpoints(workdir, keep_steps) as checkpoints, stop_requests() as asked_to_stop:
        restored = checkpoint.restore_latest(checkpoints, state)
        if restored is None:
            on_epoch(0, state)
        else:
            state = restored
        at = int(state.step)
        earlier_secs = metrics.keep_until(workdir / "metrics.jsonl", at) if is_main_process() else 0.0
        started = time.perf_counter() - earlier_secs
        is_due = _clock(run.config.checkpoint_minutes)
        writer = metrics.open_metrics(workdir, tensorboard=run.config.tensorboard)
        images = chunk_images(run, at)
        with writer as write, _progress(run, at) as bar, closing(images):
            while at < spec.total_steps:
                state, at = _advance(run, state, step_chunk, at, images, bar)
                ended = at % spec.steps_per_epoch == 0
                if ended:
                    epoch, tested = at // spec.steps_per_epoch, test(state)
                    record = _record(run, state, at, tested, time.perf_counter() - started)
                    write(record | observe(epoch, state))
                    on_epoch(epoch, state)
                stop, due = on_any_process((asked_to_stop(), is_due() and is_main_process()))
                if stop or due or at == spec.total_steps or (keep_steps and at % keep_steps == 0):
                    checkpoint.save(checkpoints, state)
                if stop:
                    checkpoint.finish(checkpoints)
                    raise Stopped(f"stopped after step {at} of {spec.total_steps}")
        train_secs = time.perf_counter() - started
        checkpoint.finish(checkpoints)
    return Outcome(state=state, compile_secs=compile_secs, train_secs=train_secs, failures=_failures(run, state))


def chunk_images(run: Run, first: int) -> Generator[Images, None, None]:
    """What each chunk of steps from step `first` on sees: the data set, or what is streamed to it."""
    if run.feed is None:
        while True:
            yield run.images
    with closing(chunks(run.feed, first, run.spec.total_steps)) as fed:
        for chunk in fed:
            yield run.images._replace(fed=chunk)


def _tester(run: Run) -> Callable[[TrainState], StepMetrics]:
    """Loss and accuracy of every member on the test split."""
    options, spec, images, ensemble = compiler_options(), run.spec, run.images, run.ensemble

    def score(logits: list[Array], ensemble: Ensemble) -> StepMetrics:
        whole = jnp.concatenate(logits, axis=1)[:, : ensemble.test_targets.shape[1]]
        return mean_loss_and_accuracy(whole, ensemble.test_targets, ensemble.class_mask)

    def resident(state: TrainState, images: Images, ensemble: Ensemble) -> StepMetrics:
        return score([forward(spec, state, images.test, images.mean, images.std)[1]], ensemble)

    def block(state: TrainState, pixels: Array, images: Images) -> Array:
        return forward_batches(spec, state, pixels, images.mean, images.std)[1]

    if run.feed is None:
        whole = jax.jit(resident, compiler_options=options)
        return lambda state: whole(state, images, ensemble)
    see, scored = jax.jit(block, compiler_options=options), jax.jit(score)
    images = images._replace(fed=None)

    def streamed(state: TrainState) -> StepMetrics:
        with closing(batches(run.dataset.test.images, run.config.optim.batch, spec.mesh)) as blocks:
            return scored([see(state, pixels, images) for pixels in blocks], ensemble)

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


def _progress(run: Run, step: int) -> tqdm:
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
    run: Run, state: TrainState, step_chunk: jax.stages.Compiled, at: int, images: Iterator[Images], bar: tqdm
) -> tuple[TrainState, int]:
    """A chunk of steps, at most to the end of the epoch, and the step that it ends at."""
    config, per_epoch = run.config, run.spec.steps_per_epoch
    epoch = at // per_epoch + 1
    end = min(epoch * per_epoch, at + config.chunk_steps)
    stop = put(np.int32(end), NamedSharding(run.spec.mesh, EVERYWHERE))
    state, chunk = step_chunk(state, next(images), run.ensemble, stop)
    losses = to_host(chunk.loss)[: end - at, : len(run.members)]
    bar.set_postfix_str(f"epoch {epoch}/{config.optim.epochs}, loss {np.nanmean(losses):.3f}", False)
    bar.update((end - at) * config.optim.batch * len(run.members))
    return state, end


def _record(run: Run, state: TrainState, at: int, tested: StepMetrics, secs: float) -> dict[str, object]:
    optim, per_epoch, members = run.config.optim, run.spec.steps_per_epoch, len(run.members)
    factor = float(_factor(optim.schedule, run.spec.total_steps, np.int32(at - 1)))
    seen, tested = to_host((state.seen, tested))
    return {
        "step": at,
        "epoch": at // per_epoch,
        "wall_secs": round(secs, 3),
        "lr": [member.lr * factor for member in run.members],
        "train_loss": (seen.loss[:members] / per_epoch).tolist(),
        "train_accuracy": (seen.accuracy[:members] / per_epoch).tolist(),
        "test_loss": tested.loss[:members].tolist(),
        "test_accuracy": tested.accuracy[:members].tolist(),
    }


_factor = jax.jit(schedule_factor, static_argnums=(0, 1))


def _failures(run: Run, state: TrainState) -> tuple[str, ...]:
    steps = to_host(state.nan_step)
    return tuple(
        f"member {i} ({m.label_map.name}, lr {m.lr:g}, weight decay {m.weight_decay:g}, seed {m.seed}): loss or "
        f"gradient not finite at step {steps[i]}; frozen there"
        for i, m in enumerate(run.members)
        if steps[i] >= 0
    )
