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
from tqdm import tqdm

from ncjax.data import Dataset
from ncjax.features.feature_set import FEATURES, FeatureSet, SplitFeatures
from ncjax.features.store import describe_members, label_features
from ncjax.storage.metrics import Record
from ncjax.torch_port.networks import logits_and_features, make_network
from ncjax.torch_port.step import TorchOptions, make_loss, make_step, synchronize, to_images, torch_device
from ncjax.torch_port.weights import to_state_dict
from ncjax.training.augmentation import normalise
from ncjax.training.batch import Batch, make_batch
from ncjax.training.loop import PreparedRun
from ncjax.training.members import Ensemble, Images, example_order
from ncjax.training.metrics import by_member, open_metrics
from ncjax.training.state import Spec, TrainState, init_state


class SplitOutputs(NamedTuple):
    """What one member's network returns for one split, in eval mode."""

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
    """One member's training, and its outputs after the last epoch."""

    epochs: list[EpochRecord]
    train: SplitOutputs
    test: SplitOutputs


def fit(prepared: PreparedRun, dataset: Dataset, workdir: Path, options: TorchOptions) -> FeatureSet:
    """Train the members of a run one after another with PyTorch, as `ncjax.training.loop.fit` does at once.

    Writes metrics.jsonl: `wall_secs` counts the steps of all members up to that epoch and nothing else.

    Args:
        prepared: what `ncjax.training.loop.prepare` made, on a mesh of one device.
        dataset: what `prepared` was made of.
        workdir: metrics.jsonl is written there.
        options: how PyTorch computes.

    Returns:
        Features and logits after the last epoch.
    """
    state = init_state(prepared.spec, prepared.ensemble)
    networks = (network_of(prepared, state, index) for index in range(len(prepared.members)))
    histories = [train_member(prepared, index, network, options) for index, network in enumerate(networks)]
    wall_secs = 0.0
    (workdir / "metrics.jsonl").unlink(missing_ok=True)
    with open_metrics(workdir, tensorboard=prepared.config.tensorboard) as write:
        for epoch, records in enumerate(zip(*(history.epochs for history in histories), strict=True), start=1):
            *numbers, step_secs = zip(*records, strict=True)
            wall_secs += sum(step_secs)
            values = {
                name: by_member(prepared.members, of_members)
                for name, of_members in zip(EpochRecord._fields[:4], numbers, strict=True)
            }
            step = epoch * prepared.spec.steps_per_epoch
            write(Record(step=step, epoch=epoch, wall_secs=round(wall_secs, 3), values=values))
    return _feature_set(prepared, dataset, histories)


def network_of(prepared: PreparedRun, state: TrainState, member: int) -> nn.Module:
    """The PyTorch twin of one member, with its weights."""
    model, image_shape = prepared.config.model, prepared.spec.image_shape
    params, batch_stats = jax.tree.map(
        lambda x: np.asarray(x[member]), (state.members.params, state.members.batch_stats)
    )
    network = make_network(model, image_shape, prepared.spec.classes)
    weights = to_state_dict(model, image_shape, params, batch_stats)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    return network


def train_member(prepared: PreparedRun, member: int, network: nn.Module, options: TorchOptions) -> MemberHistory:
    """Train one member of a run; `network` is changed in place."""
    spec, config, who = prepared.spec, prepared.config, prepared.members[member]
    step = make_step(network, config.optim, who.weight_decay, who.label_map.classes, options, config.loss)
    rates = who.lr * schedule_factors(prepared)
    epochs = []
    with tqdm(total=spec.total_steps * config.optim.batch, unit="image", unit_scale=True, desc="PyTorch") as bar:
        for epoch in range(config.optim.epochs):
            secs, results = 0.0, []
            for first, images, targets in epoch_batches(prepared, member, epoch):
                chunk = [(to_images(x, options), y) for x, y in zip(images, targets, strict=True)]
                started = time.perf_counter()
                results += [step(*batch, float(rates[first + i])) for i, batch in enumerate(chunk)]
                synchronize()
                secs += time.perf_counter() - started
                bar.update(len(chunk) * config.optim.batch)
            loss, accuracy = torch.tensor(results).mean(dim=0).tolist()
            epochs.append(EpochRecord(loss, accuracy, *_test(prepared, member, network), secs))
    return MemberHistory(
        epochs, *(outputs_of(prepared, network, pixels) for pixels in (prepared.images.train, prepared.images.test))
    )


def schedule_factors(prepared: PreparedRun) -> Float32[np.ndarray, "t"]:
    """Learning rate of every step, as a factor of the peak rate."""
    return np.asarray(
        jax.vmap(prepared.spec.lr_factor)(jnp.arange(prepared.spec.total_steps, dtype=jnp.int32)), np.float32
    )


def epoch_batches(prepared: PreparedRun, member: int, epoch: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The batches that JAX trains this member on in an epoch: same order, crops, flips and normalisation, bit for bit.

    Yields:
        Number of the first step, images `[t b h w ch]` and targets `[t b]` of up to `chunk_steps` steps, on the device.
    """
    ensemble = jax.tree.map(lambda x: x[member : member + 1], prepared.ensemble)
    end = (epoch + 1) * prepared.spec.steps_per_epoch
    for first in range(epoch * prepared.spec.steps_per_epoch, end, prepared.config.chunk_steps):
        count = min(prepared.config.chunk_steps, end - first)
        batch = _batches(prepared.spec, prepared.images, ensemble, jnp.asarray(first, jnp.int32), count)
        images, targets = (torch.from_dlpack(x[:, 0]) for x in batch)
        yield first, images.to(torch_device()), targets.long().to(torch_device())


@partial(jax.jit, static_argnums=(0, 4))
def _batches(spec: Spec, images: Images, ensemble: Ensemble, first: Int32[Array, ""], count: int) -> Batch:
    order = example_order(ensemble.seed, first // spec.steps_per_epoch, images.train.shape[0])
    return lax.map(lambda i: make_batch(spec, images, ensemble, order, first + i), jnp.arange(count, dtype=jnp.int32))


def outputs_of(prepared: PreparedRun, network: nn.Module, pixels: Array) -> SplitOutputs:
    """Logits and features of images as they are, in eval mode; batches of the training size."""
    network.eval()
    size, parts = prepared.config.optim.batch, []
    with torch.no_grad():
        for start in range(0, pixels.shape[0], size):
            batch = torch.from_dlpack(
                _normalise(pixels[start : start + size], prepared.images.mean, prepared.images.std)
            )
            logits, features = logits_and_features(network, to_images(batch, TorchOptions()))
            parts.append((logits.float().cpu().numpy(), features.float().cpu().numpy()))
    network.train()
    return SplitOutputs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


_normalise = jax.jit(normalise)


def _test(prepared: PreparedRun, member: int, network: nn.Module) -> tuple[float, float]:
    logits = torch.from_numpy(outputs_of(prepared, network, prepared.images.test).logits)[
        :, : prepared.members[member].label_map.classes
    ]
    targets = torch.from_numpy(np.array(prepared.ensemble.test_targets[member])).long()
    return float(make_loss(prepared.config.loss)(logits, targets)), float((logits.argmax(1) == targets).float().mean())


def _feature_set(prepared: PreparedRun, dataset: Dataset, histories: list[MemberHistory]) -> FeatureSet:
    def split(outputs: list[SplitOutputs], labels: np.ndarray, targets: Array) -> SplitFeatures:
        logits, features = (np.stack(arrays) for arrays in zip(*outputs, strict=True))
        return SplitFeatures(layers={FEATURES: features}, labels=labels, logits=logits, targets=np.asarray(targets))

    return label_features(
        describe_members(prepared.config, dataset, from_memory=False),
        prepared.config.mesh,
        prepared.config.optim.epochs,
        split([h.train for h in histories], dataset.train.labels, prepared.ensemble.train_targets),
        split([h.test for h in histories], dataset.test.labels, prepared.ensemble.test_targets),
        None,
    )
