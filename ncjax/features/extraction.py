# SPDX-License-Identifier: Apache-2.0
"""Last-layer features of a run's members, and their files."""

from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, Float32, Int32

from ncjax.data import Dataset, Split
from ncjax.errors import UserError
from ncjax.ops.xla import compiler_options
from ncjax.distributed.processes import is_main_process, lost_peer, to_host
from ncjax.storage.checksums import broken_seal, write_seal
from ncjax.training.streaming import batches
from ncjax.training.loop import Run
from ncjax.training.step import TrainState, forward, forward_batches

CHUNK_BYTES = 2**24  # of an array on disk: what is read at least, where only some rows are


class SplitFeatures(NamedTuple):
    """One split, seen by every member in evaluation mode, images not augmented."""

    features: Float32[np.ndarray, "s n d"]
    logits: Float32[np.ndarray, "s n c"]
    fine: Int32[np.ndarray, "n"]
    coarse: Int32[np.ndarray, "s n"]  # the labels that the member was trained on


class Heads(NamedTuple):
    """The final linear layer of every member: logits are `features @ weights + bias`."""

    weights: Float32[np.ndarray, "s d c"]
    bias: Float32[np.ndarray, "s c"]


class FeatureSet(NamedTuple):
    """Both splits at one epoch, and the classifiers that the features were made for."""

    train: SplitFeatures
    test: SplitFeatures
    classifier: Heads | None = None  # None: not kept, as by earlier versions


@cache
def _compiled(see: Callable[..., tuple[Array, Array]]) -> Callable[..., tuple[Array, Array]]:
    return jax.jit(see, static_argnums=0, compiler_options=compiler_options())


def extract(run: Run, state: TrainState, dataset: Dataset) -> FeatureSet:
    """Features and logits of all members on both splits, and their classifiers; they come to the host whole."""

    def split(resident: Array, source: Split, targets: Array) -> SplitFeatures:
        seen = _resident(run, state, resident) if run.feed is None else _streamed(run, state, source)
        features, logits, coarse = (array[: len(run.members)] for array in (*seen, to_host(targets)))
        return SplitFeatures(features, logits, source.labels, coarse)

    linear = to_host(state.params["head"]["linear"])
    return FeatureSet(
        train=split(run.images.train, dataset.train, run.ensemble.train_targets),
        test=split(run.images.test, dataset.test, run.ensemble.test_targets),
        classifier=Heads(*(linear[name][: len(run.members)] for name in ("kernel", "bias"))),
    )


def _resident(run: Run, state: TrainState, images: Array) -> tuple[np.ndarray, np.ndarray]:
    features, logits = to_host(_compiled(forward)(run.spec, state, images, run.images.mean, run.images.std))
    return features, logits


def _streamed(run: Run, state: TrainState, split: Split) -> tuple[np.ndarray, np.ndarray]:
    count, at, seen = len(split.labels), 0, None
    with closing(batches(split.images, run.config.optim.batch, run.spec.mesh)) as blocks:
        for pixels in blocks:
            parts = to_host(_compiled(forward_batches)(run.spec, state, pixels, run.images.mean, run.images.std))
            if seen is None:
                seen = tuple(np.empty((part.shape[0], count, part.shape[2]), part.dtype) for part in parts)
            for whole, part in zip(seen, parts, strict=True):
                whole[:, at : at + part.shape[1]] = part[:, : count - at]
            at += parts[0].shape[1]
    assert seen is not None
    return seen[0], seen[1]


def save_features(workdir: Path, epoch: int, features: FeatureSet) -> None:
    """Write features/EPOCH with Orbax, whole or not at all; an older one of that epoch is replaced.

    Raises:
        UserError: they cannot be written.
    """
    content = {name: part._asdict() for name, part in features._asdict().items() if part is not None}
    in_chunks = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES), content)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(_folder(workdir, epoch), content, save_args=in_chunks, force=True)
        if is_main_process():
            write_seal(_folder(workdir, epoch))
    except (ValueError, OSError) as error:
        if lost_peer(error):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(
            f"features cannot be written to {_folder(workdir, epoch)} ({reason}); is the disk full?"
        ) from error


def load_features(workdir: Path, epoch: int) -> FeatureSet:
    """Read features/EPOCH.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    folder = _folder(workdir, epoch)
    if not folder.is_dir():
        kept = ", ".join(map(str, saved_epochs(workdir))) or "none"
        raise UserError(f"no features of epoch {epoch} in {workdir} (kept: {kept}); set --evaluate.epochs and train")
    damage = broken_seal(folder)
    if damage:
        raise UserError(f"features in {folder} cannot be read ({damage}); delete that folder and train again")
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            content = checkpointer.restore(folder)
        content = jax.tree.map(np.asarray, content)
        classifier = Heads(**content["classifier"]) if "classifier" in content else None
        return FeatureSet(SplitFeatures(**content["train"]), SplitFeatures(**content["test"]), classifier)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"features in {folder} cannot be read ({error}); delete that folder and train again") from error


def open_features(workdir: Path, epoch: int, split: str = "train", member: int = 0) -> Any:
    """One member's features `[n d]`, read from disk where they are indexed: for `stream_kmeans`.

    Raises:
        UserError: there are none of that epoch, split or member.
    """
    import tensorstore

    files = {"driver": "ocdbt", "base": _folder(workdir, epoch).as_uri(), "path": f"{split}.features/"}
    try:
        array = tensorstore.open({"driver": "zarr", "kvstore": files}).result()
    except ValueError as error:
        raise UserError(f"no {split} features of epoch {epoch} in {workdir}; train with --evaluate.epochs") from error
    if not 0 <= member < array.shape[0]:
        raise UserError(f"no member {member} in {workdir}: there are {array.shape[0]}")
    return array[member]


def saved_epochs(workdir: Path) -> tuple[int, ...]:
    """The epochs whose features a work directory holds, in order."""
    folders = (workdir / "features").glob("*")
    return tuple(sorted(int(folder.name) for folder in folders if folder.name.isdigit()))


def export_npz(workdir: Path, epoch: int) -> Path:
    """Write features/EPOCH.npz: arrays `train_features [s n d]`, `train_logits`, ... `test_coarse`, `classifier_bias`.

    Raises:
        UserError: there are no features of that epoch.
    """
    arrays = {
        f"{prefix}_{name}": array
        for prefix, part in load_features(workdir, epoch)._asdict().items()
        if part is not None
        for name, array in part._asdict().items()
    }
    path = workdir / "features" / f"{epoch}.npz"
    draft = path.with_suffix(".draft.npz")
    np.savez(draft, **arrays)
    return draft.replace(path)


def _folder(workdir: Path, epoch: int) -> Path:
    return (workdir / "features" / str(epoch)).absolute()
