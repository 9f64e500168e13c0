# SPDX-License-Identifier: Apache-2.0
"""Arrays that may lie on disk."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int, Shaped

from ncjax.errors import UserError, first_line
from ncjax.storage.bounded import check_memory

P = ParamSpec("P")
T = TypeVar("T")


@runtime_checkable
class Rows(Protocol):
    """An array `[n d]` that is read where it is indexed: of NumPy, numpy.memmap, TensorStore, h5py and such."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any) -> Any: ...


def is_tensor(array: Any) -> bool:
    """Whether an array is a tensor of PyTorch, which is not imported."""
    return hasattr(array, "detach")


def tensor_to_numpy(name: str, tensor: Any) -> np.ndarray:
    """The numbers of a tensor of PyTorch on any device; bfloat16 becomes float32, all others keep their type.

    Args:
        name: of the tensor, for messages.
        tensor: of `torch.Tensor`.

    Raises:
        UserError: it holds no plain numbers: it is sparse, nested, quantised, float8, or has no data; or more of them
            than the memory; says what to do.
    """
    if reason := _why_no_numbers(tensor):
        raise UserError(f"{name} is {reason}")
    check_memory(tensor.numel() * tensor.element_size(), name, "give fewer numbers")  # a view may repeat one number
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    try:
        return np.asarray((tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy())
    except (TypeError, RuntimeError) as error:
        kind = str(tensor.dtype)
        raise UserError(f"{name} is {kind}, which cannot be read as numbers ({first_line(error)})") from error


def takes_tensors(function: Callable[P, T]) -> Callable[P, T]:
    """A function whose arguments may be tensors of PyTorch: it is passed their numbers, half precision as float32.

    What holds no plain numbers is a UserError that names the argument, as `tensor_to_numpy` says.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if not any(map(is_tensor, (*args, *kwargs.values()))):
            return function(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if is_tensor(value):
                numbers = tensor_to_numpy(f"{function.__name__}: {name}", value)
                bound.arguments[name] = numbers.astype(np.float32) if numbers.dtype == np.float16 else numbers
        return function(*bound.args, **bound.kwargs)

    return call


def _why_no_numbers(tensor: Any) -> str:
    """What a tensor is instead of plain numbers, and what to do; empty where it holds them."""
    dtype, layout = str(tensor.dtype), str(tensor.layout)
    if tensor.is_nested:
        return "a nested tensor; give a plain one, such as tensor.to_padded_tensor(0.0)"
    if layout != "torch.strided":
        return f"{layout}, but must be a dense tensor; save tensor.to_dense()"
    if tensor.is_meta:
        return "a meta tensor, which has a shape and no numbers; save it from the device that holds them"
    if tensor.is_quantized:
        return f"quantised ({dtype}); save tensor.dequantize()"
    if dtype.startswith(("torch.float8", "torch.float4")):
        return f"{dtype}, whose scale is not known; save it as float32, multiplied by its scale"
    return ""


class Frame(NamedTuple):
    """Units in which float32 is long enough for some features: `(features - origin) / scale`.

    Attributes:
        origin: a point near the data where they are far from 0, by feature; 0 elsewhere.
        scale: a power of two near their deviation.
    """

    origin: Float64[np.ndarray, "d"]
    scale: float = 1.0

    @property
    def is_identity(self) -> bool:
        """Whether features in these units are the features as they are."""
        return self.scale == 1 and not self.origin.any()


@dataclass(frozen=True)
class FramedRows:
    """Rows in the units of a frame, float32; they are subtracted and divided in float64 where they are read."""

    rows: Rows
    frame: Frame

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    def __getitem__(self, rows: Any) -> Float32[np.ndarray, "..."]:
        part = np.asarray(self.rows[rows])
        if self.frame.is_identity:
            return part.astype(np.float32, copy=False)
        return ((part.astype(np.float64) - self.frame.origin) / self.frame.scale).astype(np.float32)


@dataclass(frozen=True)
class ChosenRows:
    """Some rows, in an order of their own; read where they are indexed."""

    rows: Rows
    chosen: Int[np.ndarray, "n"]

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.chosen), *self.rows.shape[1:]

    def __getitem__(self, rows: Any) -> Shaped[np.ndarray, "..."]:
        return np.asarray(self.rows[self.chosen[rows]])


def frame_of(rows: Rows) -> Frame:
    """The units of some rows: their frame, or what they are."""
    return rows.frame if isinstance(rows, FramedRows) else Frame(np.zeros(rows.shape[1]))
