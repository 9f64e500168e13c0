# SPDX-License-Identifier: Apache-2.0
"""One step's batch of every member, made inside the compiled step."""

from typing import NamedTuple

import jax
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int32

from ncjax.distributed.mesh import MEMBER, MEMBER_BATCH
from ncjax.errors import UserError
from ncjax.training.augmentation import augment, normalise
from ncjax.training.members import Ensemble, Images, Stream, step_key, streamed_images
from ncjax.training.state import Spec


class Batch(NamedTuple):
    """One step's images, augmented and normalized, and targets, for every member."""

    images: Float[Array, "*s b h w ch"]
    targets: Int32[Array, "*s b"]


def make_batch(
    spec: Spec, images: Images, ensemble: Ensemble, order: Int32[Array, "s n"] | None, step: Int32[Array, ""]
) -> Batch:
    """Batch `step`: a function of (seed, step) alone.

    Args:
        spec: of the run.
        images: the data set; of a streamed one, the images of this step.
        ensemble: the members.
        order: of the training images in the epoch of this step (`members.example_order`); None: they are streamed.
        step: its number in the run.
    """
    size, data, own = spec.config.optim.batch, spec.config.data, spec.functions.augment
    if images.streamed is not None:
        chosen, pixels = streamed_images(images.streamed)
    else:
        assert order is not None
        chosen = lax.dynamic_slice_in_dim(order, (step % spec.steps_per_epoch) * size, size, axis=1)
        chosen = lax.with_sharding_constraint(chosen, NamedSharding(spec.mesh, MEMBER))
        chosen = lax.with_sharding_constraint(chosen, NamedSharding(spec.mesh, MEMBER_BATCH))
        pixels = images.train[chosen]

    def member(seed: Array, pixels: Array, indices: Array, targets: Array) -> Batch:
        key = step_key(seed, Stream.AUGMENT, step)
        batch = augment(key, pixels, crop_padding=data.crop_padding, flip=data.flip)
        if own is not None:
            batch = own(step_key(seed, Stream.OWN_AUGMENT, step), batch)
            if batch.shape != pixels.shape:
                raise UserError(f"data.augment gives images {batch.shape}, but must keep their shape {pixels.shape}")
        return Batch(normalise(batch, images.mean, images.std), targets[indices])

    return jax.vmap(member)(ensemble.seed, pixels, chosen, ensemble.train_targets)
