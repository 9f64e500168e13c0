# SPDX-License-Identifier: Apache-2.0
"""What happens to a batch of uint8 images before the network, inside the compiled step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, UInt8

from ncjax.errors import UserError
from ncjax.tables import find_named

Pixels = UInt8[Array, "b h w ch"] | Float[Array, "b h w ch"]
Augment = Callable[[Key[Array, ""], UInt8[Array, "b h w ch"]], Pixels]

REFLECTED = 4  # pixels on each side


def reflect_crop(key: Key[Array, ""], images: UInt8[Array, "b h w ch"]) -> UInt8[Array, "b h w ch"]:
    """A random crop after padding of `REFLECTED` pixels that mirrors the border, where `data.crop_padding` pads zeros.

    Raises:
        UserError: the images are too small to be mirrored so far.
    """
    if min(images.shape[1:3]) <= REFLECTED:
        raise UserError(f"data.augment reflect_crop needs images of more than {REFLECTED} pixels a side")
    pads = ((0, 0), (REFLECTED, REFLECTED), (REFLECTED, REFLECTED), (0, 0))
    return _crop(key, jnp.pad(images, pads, mode="reflect"), images.shape[1:])


AUGMENTATIONS: dict[str, Augment] = {"reflect_crop": reflect_crop}  # besides crop and flip, which `augment` does


def find_augmentation(name: str) -> Augment | None:
    """The augmentation of this name, a function `(key, images) -> images`; None: the name is empty.

    It keeps the shape; pixels may become floating-point numbers, from 0 to 255.

    Raises:
        UserError: there is none of this name.
    """
    return find_named(AUGMENTATIONS, name, "data.augment") if name else None


def augment(
    key: Key[Array, ""], images: UInt8[Array, "b h w ch"], *, crop_padding: int, flip: bool
) -> UInt8[Array, "b h w ch"]:
    """A random crop after zero padding, then a mirror image with probability 1/2, independent over images.

    Args:
        key: randomness of this batch.
        images: the batch.
        crop_padding: zeros on each side before the crop, in pixels; 0 crops nothing.
        flip: whether to mirror.
    """
    crop_key, flip_key = jax.random.split(key)
    if crop_padding:
        pad = crop_padding
        images = _crop(crop_key, jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0))), images.shape[1:])
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(images.shape[0],))
        images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    return images


def _crop(key: Key[Array, ""], padded: UInt8[Array, "b y x ch"], shape: tuple[int, ...]) -> UInt8[Array, "b h w ch"]:
    """A random part of each image, of a shape `(h, w, ch)`; the padding is alike on all sides."""
    most = padded.shape[1] - shape[0] + 1
    corners = jax.random.randint(key, (padded.shape[0], 2), 0, most, dtype=jnp.int32)
    return jax.vmap(lambda image, corner: lax.dynamic_slice(image, (corner[0], corner[1], jnp.int32(0)), shape))(
        padded, corners
    )


def normalise(images: Pixels, mean: Float[Array, "ch"], std: Float[Array, "ch"]) -> Float[Array, "b h w ch"]:
    """`(image / 255 - mean) / std` per channel, in float32; mean and std are in units of the full scale."""
    return (images.astype(jnp.float32) / 255.0 - mean[None, None, None, :]) / std[None, None, None, :]
