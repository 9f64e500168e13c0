# SPDX-License-Identifier: Apache-2.0
"""The same training in PyTorch: our config, our batches, our schedule, from our initial weights."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax
from jaxtyping import Array, Float32, Int32
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ncjax.data import Dataset
from ncjax.training.augmentation import normalise
from ncjax.features.extraction import FeatureSet, SplitFeatures
from ncjax.torch_port.networks import logits_and_features, make_network
from ncjax.torch_port.step import TorchOptions, make_step, synchronise, to_images, torch_device
from ncjax.torch_port.weights import to_state_dict
from ncjax.training import metrics
from ncjax.training.members import Ensemble, Images, example_order
from ncjax.training.loop import Run
from ncjax.training.schedules import schedule_factor
from ncjax.training.step import Batch, Spec, TrainState, init_state, make_batch


class SplitOutputs(NamedTuple):
    """One member's view of one split, in evaluation mode."""

    logits: Float32[np.ndarray, "n c"]
    features: Float32[np.ndarray, "n d"]


class EpochRecord(NamedTuple):
    """One epoch of one member."""

    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    step_secs: float  # of the steps alone: their batches are ready, tests are apart


class MemberHistory(NamedTuple):
    """One member's training and what it sees after the last epoch."""

    epochs: list[EpochRecord]
    train: SplitOutputs
    test: SplitOutputs


def train(run: Run, dataset: Dataset, workdir: Path, options: TorchOptions) -> FeatureSet:
    """Train the members of a run one after another with PyTorch, as `ncjax.training.loop.train` does at once.

    Writes metrics.jsonl: `wall_secs` counts the steps of all members up to that epoch and nothing else.

    Args:
        run: what `ncjax.training.loop.prepare` made, on a mesh of one device.
        dataset: what `run` was prepared from.
        workdir: gets metrics.jsonl.
        options: how PyTorch computes.

    Returns:
        Features and logits after the last epoch.
    """
    state = init_state(run.spec, run.ensemble)
    histories = [train_member(run, index, network_of(run, state, index), options) for index in range(len(run.members))]
    wall_secs = 0.0
    (workdir / "metrics.jsonl").unlink(missing_ok=True)
    with metrics.open_metrics(workdir, tensorboard=run.config.tensorboard) as write:
        for epoch, records in enumerate(zip(*(history.epochs for history in histories), strict=True), start=1):
            *values, step_secs = zip(*records, strict=True)
            wall_secs += sum(step_secs)
            record = {"step": epoch * run.spec.steps_per_epoch, "epoch": epoch, "wall_secs": round(wall_secs, 3)}
            write(record | {name: list(v) for name, v in zip(EpochRecord._fields[:4], values, strict=True)})
    return _feature_set(run, dataset, histories)


def network_of(run: Run, state: TrainState, member: int) -> nn.Module:
    """The PyTorch twin of one member, with its weights."""
    model, image_shape = run.config.model, run.spec.image_shape
    params, batch_stats = jax.tree.map(lambda x: np.asarray(x[member]), (state.params, state.batch_stats))
    network = make_network(model, image_shape, run.spec.classes)
    weights = to_state_dict(model, image_shape, params, batch_stats)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    return network


def train_member(run: Run, member: int, network: nn.Module, options: TorchOptions) -> MemberHistory:
    """Train one member of a run; `network` is changed in place."""
    spec, config, who = run.spec, run.config, run.members[member]
    step = make_step(network, config.optim, who.weight_decay, who.label_map.classes, options)
    rates = who.lr * schedule_factors(run)
    epochs = []
    with tqdm(total=spec.total_steps * config.optim.batch, unit="image", unit_scale=True, desc="PyTorch") as bar:
        for epoch in range(config.optim.epochs):
            secs, seen = 0.0, []
            for first, images, targets in epoch_batches(run, member, epoch):
                chunk = [(to_images(x, options), y) for x, y in zip(images, targets, strict=True)]
                started = time.perf_counter()
                seen += [step(*batch, float(rates[first + place])) for place, batch in enumerate(chunk)]
                synchronise()
                secs += time.perf_counter() - started
                bar.update(len(chunk) * config.optim.batch)
            loss, accuracy = torch.tensor(seen).mean(dim=0).tolist()
            epochs.append(EpochRecord(loss, accuracy, *_test(run, member, network), secs))
    return MemberHistory(epochs, *(see(run, network, pixels) for pixels in (run.images.train, run.images.test)))


def schedule_factors(run: Run) -> Float32[np.ndarray, "t"]:
    """Learning rate of every step, as a factor of the peak rate."""
    factor = partial(schedule_factor, run.config.optim.schedule, run.spec.total_steps)
    return np.asarray(jax.vmap(factor)(jnp.arange(run.spec.total_steps)))


def epoch_batches(run: Run, member: int, epoch: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The batches that JAX trains this member on in an epoch: same order, crops, flips and normalisation, bit for bit.

    Yields:
        Number of the first step, images `[t b h w ch]` and targets `[t b]` of up to `chunk_steps` steps, on the device.
    """
    ensemble = jax.tree.map(lambda x: x[member : member + 1], run.ensemble)
    end = (epoch + 1) * run.spec.steps_per_epoch
    for first in range(epoch * run.spec.steps_per_epoch, end, run.config.chunk_steps):
        count = min(run.config.chunk_steps, end - first)
        batch = _batches(run.spec, run.images, ensemble, jnp.asarray(first, jnp.int32), count)
        images, targets = (torch.from_dlpack(x[:, 0]) for x in batch)
        yield first, images.to(torch_device()), targets.long().to(torch_device())


@partial(jax.jit, static_argnums=(0, 4))
def _batches(spec: Spec, images: Images, ensemble: Ensemble, first: Int32[Array, ""], count: int) -> Batch:
    order = example_order(ensemble.seed, first // spec.steps_per_epoch, images.train.shape[0])
    return lax.map(lambda i: make_batch(spec, images, ensemble, order, first + i), jnp.arange(count, dtype=jnp.int32))


def see(run: Run, network: nn.Module, pixels: Array) -> SplitOutputs:
    """Logits and features of images as they are, in evaluation mode; batches of the training size."""
    network.eval()
    size, parts = run.config.optim.batch, []
    with torch.no_grad():
        for start in range(0, pixels.shape[0], size):
            batch = torch.from_dlpack(_normalise(pixels[start : start + size], run.images.mean, run.images.std))
            logits, features = logits_and_features(network, to_images(batch, TorchOptions()))
            parts.append((logits.float().cpu().numpy(), features.float().cpu().numpy()))
    network.train()
    return SplitOutputs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


_normalise = jax.jit(normalise)


def _test(run: Run, member: int, network: nn.Module) -> tuple[float, float]:
    logits = torch.from_numpy(see(run, network, run.images.test).logits)[:, : run.members[member].label_map.classes]
    targets = torch.from_numpy(np.array(run.ensemble.test_targets[member])).long()
    return float(functional.cross_entropy(logits, targets)), float((logits.argmax(1) == targets).float().mean())


def _feature_set(run: Run, dataset: Dataset, histories: list[MemberHistory]) -> FeatureSet:
    def split(outputs: list[SplitOutputs], fine: np.ndarray, coarse: Array) -> SplitFeatures:
        logits, features = (np.stack(arrays) for arrays in zip(*outputs, strict=True))
        return SplitFeatures(features, logits, fine, np.asarray(coarse))

    return FeatureSet(
        train=split([h.train for h in histories], dataset.train.labels, run.ensemble.train_targets),
        test=split([h.test for h in histories], dataset.test.labels, run.ensemble.test_targets),
    )
