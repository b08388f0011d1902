"""What the door needs of a model, whatever made it.

There are two kinds. A `TensorRuntime` maps named arrays to named arrays: a SavedModel, a TorchScript or exported program, an
ONNX graph, a scikit-learn estimator. A `RowRuntime` is a program of the user's that gets rows and answers rows: a PyTorch
archive with its handler. The protocols are translated for both, so every client can talk to every model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Tensors = Mapping[str, Array]

STRING = "string"
"""The dtype word of text and bytes; such arrays have numpy's dtype `object` and hold `bytes`."""


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output.

    Attributes:
        name: the name that callers use.
        dtype: numpy's name (`float32`), `bfloat16`, `string`, or None where the model does not say.
        shape: one entry per dimension, None where it may vary; None as a whole where even the rank is not known.
        open_dtype: what numbers with a fraction become where the model does not say its dtype.
    """

    name: str
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    open_dtype: str = "float32"

    def __str__(self) -> str:
        shape = (
            "any shape"
            if self.shape is None
            else "[" + ", ".join("*" if d is None else str(d) for d in self.shape) + "]"
        )
        return f"'{self.name}' {self.dtype or 'any type'} {shape}"


@dataclass(frozen=True)
class Signature:
    """One way to call a model.

    Attributes:
        name: the name that callers use.
        inputs, outputs: what goes in and comes out; outputs may be empty where the model does not tell them.
        is_table: the inputs are the columns of one table, so that rows may also be lists in the columns' order.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    is_table: bool = False
    by_name: Mapping[str, TensorSpec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {spec.name: spec for spec in self.inputs})

    def __str__(self) -> str:
        return f"signature '{self.name}' wants " + (", ".join(str(spec) for spec in self.inputs) or "no input")


class TensorRuntime(Protocol):
    """A loaded model that maps arrays to arrays; safe to call from several threads at once.

    Attributes:
        signatures: by name, never empty.
        default_signature: the one that is used where the caller names none.
    """

    signatures: Mapping[str, Signature]
    default_signature: str

    @property
    def platform(self) -> str:
        """The word of the Open Inference Protocol for what answers, e.g. `tensorflow_savedmodel`."""
        ...

    def predict(self, signature: Signature, inputs: Tensors) -> Tensors:
        """Outputs for inputs that fit the signature. Raises `BadRequest` for values that the model refuses."""
        ...

    def close(self) -> None:
        """Give back what the model holds."""
        ...


@dataclass(frozen=True)
class Reply:
    """What a row runtime answers to one request.

    Attributes:
        rows: one answer per row that came in.
        status: an HTTP status that the user's code has set, or None.
        headers: headers that the user's code has set, among them perhaps `content-type`.
    """

    rows: Sequence[Any]
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


class RowRuntime(Protocol):
    """A program of the user's: rows in, rows out. Called from one thread only, as such programs expect.

    Attributes:
        platform: e.g. `pytorch_archive`.
        unpacks_instances: whether `{"instances": [...]}` becomes one row per instance (True), or the whole body is one row.
    """

    platform: str
    unpacks_instances: bool

    def answer(self, rows: Sequence[Any], headers: Mapping[str, str]) -> Reply:
        """The program's answer. `headers` are the request's, lower case."""
        ...

    def close(self) -> None:
        """Give back what the program holds."""
        ...


def zeros(spec: TensorSpec) -> Array:
    """An array that fits the spec, with 1 for each dimension that may vary."""
    shape = tuple(1 if size is None else size for size in spec.shape or ())
    if spec.dtype == STRING:
        return np.full(shape, b"", dtype=object)
    return np.zeros(shape, dtype=np.float32 if spec.dtype in (None, "bfloat16") else spec.dtype)
