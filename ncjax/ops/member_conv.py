# SPDX-License-Identifier: Apache-2.0
"""Convolutions on accelerators, of one member and of several at once, each with images and a kernel of its own.

XLA makes a grouped convolution of `vmap` over kernels, which GPUs compile and run slowly. Here it is one of several
lowerings of the same sum; which is the fastest depends on the device and the shape, so that it is chosen outside
(`use_lowerings`), from measurements, or else by a table.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

from ncjax.ops.plain_conv import conv2d_patches, conv2d_xla
from ncjax.ops.winograd import correlate_winograd

T = TypeVar("T")

TILE = 64  # channels of members side by side, which tensor cores multiply at once
Lowering = Callable[..., Float[Array, "s b p q o"]]  # of images [s b h w i], kernels [s kh kw i o] and a stride


class ConvCase(NamedTuple):
    """All that decides how a convolution of several members is lowered; images are those of one program."""

    members: int
    batch: int
    height: int
    width: int
    channels: int
    filters: int
    kernel_height: int
    kernel_width: int
    stride: int
    dtype: str
    precision: str  # of products, as `jax.default_matmul_precision` names it

    def __str__(self) -> str:
        """Names it in files, such as `16 x 128x32x32x16 * 3x3x16x16 / 1, bfloat16, bfloat16`."""
        images = f"{self.batch}x{self.height}x{self.width}x{self.channels}"
        kernel = f"{self.kernel_height}x{self.kernel_width}x{self.channels}x{self.filters}"
        return f"{self.members} x {images} * {kernel} / {self.stride}, {self.dtype}, {self.precision}"

    @property
    def outputs(self) -> int:
        """Values of the outputs of one member."""
        return self.batch * -(-self.height // self.stride) * -(-self.width // self.stride) * self.filters

    @property
    def products(self) -> int:
        """Multiplications of all members, in the forward pass."""
        return self.members * self.outputs * self.kernel_height * self.kernel_width * self.channels


def grouped(x: Float[Array, "s b h w i"], kernel: Float[Array, "s kh kw i o"], *, stride: int) -> Array:
    """As XLA has it: one convolution in which a group of channels is a member; dense, with zeros, on some devices."""
    return jax.vmap(partial(conv2d_xla, stride=stride))(x, kernel)


def sequential(x: Float[Array, "s b h w i"], kernel: Float[Array, "s kh kw i o"], *, stride: int) -> Array:
    """One member after the other."""
    return lax.map(lambda member: conv2d_xla(*member, stride=stride), (x, kernel))


def patches(x: Float[Array, "s b h w i"], kernel: Float[Array, "s kh kw i o"], *, stride: int) -> Array:
    """One batched product of patches `[s, b p q, kh kw i]` and kernels `[s, kh kw i, o]`."""
    return jax.vmap(partial(conv2d_patches, stride=stride))(x, kernel)


def side_by_side(x: Float[Array, "s b h w i"], kernel: Float[Array, "s kh kw i o"], *, stride: int) -> Array:
    """Dense convolutions of members side by side in `TILE` channels, with kernels that are 0 between two members.

    Of `g` members at once it multiplies `g` times as much as it has to, where tensor cores would idle else.
    """
    members, (channels, filters) = x.shape[0], kernel.shape[-2:]
    at_once = members_of_tile(members, channels, filters)
    count = -(-members // at_once)
    missing = count * at_once - members
    x, kernel = (jnp.pad(a, [(0, missing)] + [(0, 0)] * 4) if missing else a for a in (x, kernel))

    def together(part: tuple[Array, Array]) -> Array:
        images, kernels = part
        wide = images.transpose(1, 2, 3, 0, 4).reshape(*images.shape[1:4], -1)
        same = jnp.eye(at_once, dtype=bool)[None, None, :, None, :, None]
        blocks = jnp.where(same, kernels.transpose(1, 2, 0, 3, 4)[:, :, :, :, None, :], 0)
        y = conv2d_xla(wide, blocks.reshape(*kernels.shape[1:3], at_once * channels, -1), stride=stride)
        return y.reshape(*y.shape[:3], at_once, filters).transpose(3, 0, 1, 2, 4)

    parts = x.reshape(count, at_once, *x.shape[1:]), kernel.reshape(count, at_once, *kernel.shape[1:])
    y = lax.map(together, parts) if count > 1 else together((parts[0][0], parts[1][0]))
    return y.reshape(-1, *y.shape[-4:])[:members]


def winograd(x: Float[Array, "s b h w i"], kernel: Float[Array, "s 3 3 i o"], *, stride: int) -> Array:
    """Batched products of transformed tiles, 4 multiplications where 9 are usual."""
    del stride
    return jax.vmap(correlate_winograd)(x, kernel)


LOWERINGS: dict[str, Lowering] = {
    "side_by_side": side_by_side,
    "patches": patches,
    "winograd": winograd,
    "sequential": sequential,
    "grouped": grouped,
}


MIXING = (side_by_side, grouped)  # a member's number may be multiplied by 0 and added to another's


def _apart(function: Callable[..., T], *arrays: Float[Array, "s ..."]) -> T:
    """`function(*arrays)` of the numbers that are finite; members that have others get NaN, and nobody else."""
    finite = [jnp.isfinite(x) for x in arrays]
    found = function(*(jnp.where(f, x, 0) for f, x in zip(finite, arrays, strict=True)))
    whole = jnp.stack([f.reshape(f.shape[0], -1).all(axis=1) for f in finite]).all(axis=0)
    return jax.tree.map(lambda y: jnp.where(whole.reshape(-1, *[1] * (y.ndim - 1)), y, jnp.nan), found)


def _keep_apart(lowering: Lowering, function: Callable[..., T], *arrays: Array) -> T:
    return _apart(function, *arrays) if lowering in MIXING else function(*arrays)


def members_of_tile(members: int, channels: int, filters: int) -> int:
    """How many members `side_by_side` takes at once."""
    return max(1, min(members, TILE // max(channels, filters)))


def fits(case: ConvCase, lowering: str) -> bool:
    """Whether a lowering can compute a convolution, and is not another one under this name."""
    if lowering == "winograd":
        small = (case.kernel_height, case.kernel_width, case.stride) == (3, 3, 1)
        return small and case.height % 2 == case.width % 2 == 0 and case.dtype == "float32"
    if lowering == "side_by_side":
        return members_of_tile(case.members, case.channels, case.filters) > 1
    return lowering in LOWERINGS


def by_table(case: ConvCase, platform: str) -> str:
    """The lowering where nothing was measured, on a platform such as `gpu`.

    On GPUs it is that with the least memory traffic among those whose products fill tensor cores, by arithmetic, not by
    measurement; elsewhere it is XLA's own.
    """
    if platform != "gpu":
        return "grouped"
    pointwise = case.kernel_height == case.kernel_width == 1
    return "side_by_side" if fits(case, "side_by_side") and not pointwise else "patches"


_chosen: ContextVar[Mapping[str, str]] = ContextVar("lowerings", default={})  # noqa: B039  never changed
_met: ContextVar[list[ConvCase] | None] = ContextVar("cases", default=None)


@contextmanager
def use_lowerings(lowerings: Mapping[str, str]) -> Iterator[None]:
    """A context for tracing: names in `LOWERINGS` by the text of a case; one that is missing has that of the table."""
    token = _chosen.set(lowerings)
    try:
        yield
    finally:
        _chosen.reset(token)


@contextmanager
def record_cases() -> Iterator[list[ConvCase]]:
    """A list that each forward convolution under `vmap` is added to while it is traced, once for each time."""
    met: list[ConvCase] = []
    token = _met.set(met)
    try:
        yield met
    finally:
        _met.reset(token)


def _lowering_of(case: ConvCase) -> Lowering:
    known = _chosen.get().get(str(case), "")
    return LOWERINGS[known if fits(case, known) else by_table(case, jax.default_backend())]


def case_of(x: Array, kernel: Array, stride: int) -> ConvCase:
    """The case of images `[s b h w i]` and kernels `[s kh kw i o]`, in the precision of this context."""
    precision: str | None = getattr(jax.config, "jax_default_matmul_precision")  # noqa: B009  mypy does not know it
    (members, batch, height, width, channels), (rows, columns, _, filters) = x.shape, kernel.shape[1:]
    sizes = (members, batch, height, width, channels, filters, rows, columns)
    return ConvCase(*sizes, stride, str(x.dtype), precision or "default")


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d_accelerator(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"], stride: int
) -> Float[Array, "b p q o"]:
    """`conv2d` as XLA's convolution; under `vmap` over members, with the lowering of their case; reverse mode only."""
    alone = custom_vmap(partial(conv2d_xla, stride=stride))

    @alone.def_vmap
    def _(members: int, batched: list[bool], x: Array, kernel: Array) -> tuple[Array, bool]:
        case, met = case_of(x, kernel, stride) if all(batched) else None, _met.get()
        if case is not None and met is not None:
            met.append(case)
        if case is None or members == 1:
            return _vmapped(partial(conv2d_xla, stride=stride), batched, x, kernel), True
        lowering = _lowering_of(case)
        return _keep_apart(lowering, partial(lowering, stride=stride), x, kernel), True

    return alone(x, kernel)


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return conv2d_accelerator(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    """Gradients of one member at stride 1 are under `vmap`, where XLA for GPUs fuses them with the residual branch.

    It then takes the gradient by `x` for a plain convolution. At stride 2 that one spreads the cotangent with zeros and
    multiplies four times as much; there the member is taken out of `vmap`, for XLA to find cuDNN's kernel.
    """

    def by_both(x: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
        by_x, by_kernel = jax.vjp(partial(conv2d_xla, stride=stride), x, kernel)[1](cotangent)
        return by_x, by_kernel

    alone = custom_vmap(by_both)

    @alone.def_vmap
    def _(members: int, batched: list[bool], *inputs: Array) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
        if members == 1 and stride > 1:
            found = by_both(*(x[0] if one else x for x, one in zip(inputs, batched, strict=True)))
            return (found[0][None], found[1][None]), (True, True)
        if members == 1 or not all(batched):
            return _vmapped(by_both, batched, *inputs), (True, True)
        x, kernel, cotangent = inputs
        lowering = _lowering_of(case_of(x, kernel, stride))
        if lowering is sequential:
            return lax.map(lambda member: by_both(*member), inputs), (True, True)

        def gradients(x: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
            by_x, by_kernel = jax.vjp(partial(lowering, stride=stride), x, kernel)[1](cotangent)
            return by_x, by_kernel

        return _keep_apart(lowering, gradients, x, kernel, cotangent), (True, True)

    found: tuple[Array, Array] = alone(*saved, cotangent)
    return found


def _vmapped(function: Callable[..., T], batched: list[bool], *inputs: Array) -> T:
    return jax.vmap(function, in_axes=tuple(0 if one else None for one in batched))(*inputs)


conv2d_accelerator.defvjp(_forward, _backward)
