# SPDX-License-Identifier: Apache-2.0
"""Features of a run's members: the forward pass of all of them in eval mode."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int32

from ncjax.data import Dataset, Split, Streamed
from ncjax.distributed.processes import is_distributed, to_host
from ncjax.errors import UserError
from ncjax.features.feature_set import FEATURES, FeatureSet, Heads, SplitFeatures
from ncjax.features.joined import join_features
from ncjax.features.run import Run, prepare_again, state_of
from ncjax.features.store import AGAIN, RunMembers, describe_members, label_features, load_features
from ncjax.models import Variables
from ncjax.ops.xla import compiler_options
from ncjax.training.forward import forward, forward_batches
from ncjax.training.loop import PreparedRun
from ncjax.training.state import TrainState, init_state
from ncjax.training.streaming import batches

Outputs = Mapping[str, np.ndarray]  # by the name of the tensor, `[s n x]`


def extract_features(
    run: Run, dataset: Dataset | None = None, *, epoch: int = -1, layers: Sequence[str] = (FEATURES,)
) -> FeatureSet:
    """Features of all members of a run on both splits, in eval mode; images are not augmented.

    Args:
        run: a run; those features that it kept are read, others are computed from its checkpoints.
        dataset: other images of the same size and classes, normalized as the run's own; None: those.
        epoch: after which the features are taken; -1: the last one; 0: random initialization.
        layers: names of the network's tensors, such as `features` (the input of the final linear layer) and `stage1`.

    Raises:
        UserError: the run kept neither features nor a checkpoint of that epoch, or the network has no such layer.

    Example:
        `extract_features(ncjax.Run.open("runs/demo"), epoch=-1, layers=("stage1", "features"))`
    """
    epoch = run.last_epoch if epoch == -1 else epoch
    if dataset is None and all(epoch in part.epochs for part in run.parts):
        kept = load_or_extract(run, epoch).features
        if kept.names == tuple(run.described.members) and set(layers) <= set(kept.layers):
            return kept.choose_layers(layers)
    images = dataset or run.dataset
    found = [_extract_part(part, run.dataset, images, layers, epoch) for part in run.parts]
    return join_features(found, run.described)


def _extract_part(part: Run, own: Dataset, images: Dataset, layers: Sequence[str], epoch: int) -> FeatureSet:
    prepared = prepare_again(part, own)
    return extract(prepared, state_of(part, prepared, epoch), images, layers, epoch, part.described)


class Found(NamedTuple):
    """Features of an epoch, and what is to be said of them."""

    features: FeatureSet
    notes: tuple[str, ...] = ()  # none: they are those that training kept


def load_or_extract(run: Run, epoch: int, *, on_disk: bool = False) -> Found:
    """The features that a run kept after an epoch; where they are missing or damaged, those of its checkpoint.

    Nothing is written; with `on_disk`, those that were kept are read where they are indexed. Of a run that has grown,
    members of a part that should have no features of that epoch yet, or has none and no checkpoint, are left out; of
    the latter a note says so.

    Raises:
        UserError: they cannot be read, and there is no checkpoint of that epoch, or no data set to extract them of.
    """
    reached = [part for part in run.grown if epoch in (*part.epochs, *part.expected_epochs)] or run.parts
    found, lost = list[Found](), list[UserError]()
    for part in reached:
        try:
            found.append(_load_or_extract(part, run, epoch, on_disk))
        except UserError as error:
            lost.append(error)
    if not found:
        raise lost[0]
    notes = [note for one in found for note in one.notes]
    notes += [f"Epoch {epoch} is missing of some members: {error}." for error in lost]
    return Found(join_features([one.features for one in found], run.described), tuple(notes))


def _load_or_extract(part: Run, run: Run, epoch: int, on_disk: bool) -> Found:
    """`load_or_extract` of a part of a run; layers that were not kept are extracted too."""
    kept, wanted = None, run.config.evaluate.layers
    try:
        kept = load_features(part.workdir, epoch, on_disk=on_disk, config=run.config)
        lacking = [layer for layer in wanted if layer not in kept.layers]
        if not lacking:
            return Found(kept)
        reason = f"{', '.join(lacking)} were not kept in {part.workdir}"
    except UserError as error:
        reason = str(error).removesuffix(AGAIN)
    try:
        found = _extract_again(part, run, epoch)
    except UserError as error:
        reason = f"{reason}; they cannot be made again: {error}"
        if kept is None:
            raise UserError(reason) from error
        return Found(kept, (f"Layers of epoch {epoch} are missing: {reason}.",))
    return Found(found, (f"Features of epoch {epoch} were made again from its checkpoint: {reason}.",))


def _extract_again(part: Run, run: Run, epoch: int) -> FeatureSet:
    if is_distributed():
        raise UserError("several processes do not; run this command in one process")
    check_can_extract_again(part)
    found = _extract_part(part, run.dataset, run.dataset, run.config.evaluate.layers, epoch)
    return dataclasses.replace(found, mesh=run.config.mesh)


def check_can_extract_again(run: Run) -> None:
    """Refuses runs that an earlier version imported: how their images were normalised is not kept.

    Raises:
        UserError: the weights of the run were imported, and it does not say how the images were normalised.
    """
    if run.has_ended and run.training.imported and not run.training.mean:
        raise UserError("its weights were imported by an earlier version; import them into another work directory")


def extract(
    prepared: PreparedRun,
    state: TrainState,
    dataset: Dataset,
    layers: Sequence[str] = (FEATURES,),
    epoch: int | None = None,
    described: RunMembers | None = None,
) -> FeatureSet:
    """Features and logits of all members on both splits, and their classifiers; they come to the host whole.

    Args:
        prepared: the run.
        state: of all members.
        dataset: whose images are seen; the run's own lie on the devices already.
        layers: names of tensors.
        epoch: of the state.
        described: the members as members.json has them; none: made here.
    """
    own, count = dataset is prepared.dataset, len(prepared.members)

    def split(name: str) -> SplitFeatures:
        source: Split = getattr(dataset, name)
        pixels = getattr(prepared.images, name) if own and prepared.feed is None else None
        found = _outputs(prepared, state, source, pixels, tuple(layers))
        return SplitFeatures(
            layers={layer: found[layer][:count] for layer in layers},
            labels=source.labels,
            logits=found["logits"][:count],
            targets=_targets(prepared, source, name),
        )

    described = described or describe_members(prepared.config, dataset, from_memory=False)
    return label_features(
        described, prepared.config.mesh, epoch, split("train"), split("test"), _heads(prepared, state)
    )


def _heads(prepared: PreparedRun, state: TrainState) -> Heads | None:
    """The classifiers of all members; None: the network gives none."""
    spec, members = prepared.spec, state.members
    if spec.functions.network.classifier is None:
        return None
    variables = Variables(members.params, members.batch_stats, spec.graph)
    weights, bias = to_host(_classifiers(spec.functions.network.classifier)(variables))
    if weights.ndim != 3 or bias.shape != (weights.shape[0], weights.shape[2]):
        name, shapes = spec.functions.network.name, f"{weights.shape[1:]} and {bias.shape[1:]}"
        raise UserError(f"network {name}: the classifier is {shapes}, but must be weights [d c] and bias [c]")
    return Heads(*(np.asarray(x[: len(prepared.members)], np.float32) for x in (weights, bias)))


@cache
def _classifiers(classifier: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(jax.vmap(classifier))


def _targets(prepared: PreparedRun, source: Split, name: str) -> Int32[np.ndarray, "s n"]:
    return np.stack([member.label_map.targets(source.labels, name) for member in prepared.members])  # type: ignore[arg-type]


def check_layers(prepared: PreparedRun, layers: Sequence[str]) -> None:
    """Refuses layers that the network does not name; computes nothing.

    Raises:
        UserError: naming the first unknown layer, and those that there are.
    """
    if set(layers) <= {FEATURES}:
        return
    spec, images = prepared.spec, prepared.images
    pixels = jax.ShapeDtypeStruct((1, *spec.image_shape), np.uint8)
    state = jax.eval_shape(lambda: init_state(spec, prepared.ensemble))
    jax.eval_shape(partial(forward, spec, layers=tuple(layers)), state, pixels, images.mean, images.std)


def _outputs(
    prepared: PreparedRun, state: TrainState, source: Split, pixels: Array | None, layers: tuple[str, ...]
) -> Outputs:
    if prepared.feed is not None or isinstance(source.images, Streamed):
        return _streamed(prepared, state, source, layers)
    images = prepared.images
    whole = pixels if pixels is not None else np.asarray(source.images)
    program = _compiled(forward, layers, prepared.config.deterministic)
    return to_host(program(prepared.spec, state, whole, images.mean, images.std))


def _streamed(prepared: PreparedRun, state: TrainState, source: Split, layers: tuple[str, ...]) -> Outputs:
    spec, images, count = prepared.spec, prepared.images, len(source.labels)
    program = _compiled(forward_batches, layers, spec.config.deterministic)
    whole: dict[str, np.ndarray] = {}
    at = 0
    with closing(batches(source.images, spec.config.optim.batch, spec.mesh)) as blocks:
        for pixels in blocks:
            found = to_host(program(spec, state, pixels, images.mean, images.std))
            size = found["logits"].shape[1]
            for name, part in found.items():
                if name not in whole:
                    whole[name] = np.empty((part.shape[0], count, part.shape[2]), part.dtype)
                whole[name][:, at : at + size] = part[:, : count - at]
            at += size
    return whole


@cache
def _compiled(function: Callable[..., Any], layers: tuple[str, ...], deterministic: bool) -> Callable[..., Any]:
    options = compiler_options(deterministic)
    return jax.jit(partial(function, layers=layers), static_argnums=0, compiler_options=options)
