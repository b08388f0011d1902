"""Any PyTorch module that maps tensors to tensors, behind the runtime contract; how it was loaded is others' work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, cast

import numpy as np

from modelyard.serving.contract import Array, Signature, Tensors, TensorSpec
from modelyard.serving.errors import BadRequest

torch: Any = import_module("torch")

SIGNATURE = "forward"
_WANTS_WHOLE_NUMBERS = ("Long", "Int", "int64", "indices", "index")
_WANTS_FLOATS = ("float", "Float", "same dtype")


class TorchModule:
    """A module with named tensor inputs; see `TensorRuntime`.

    Programs that do not say which dtype they want get the floating point type of their own weights, and whole numbers where they turn
    that down (an embedding's indices); what worked is remembered.

    Args:
        platform: the word of the Open Inference Protocol.
        module: what is called.
        inputs: the inputs in the order of the call.
        keyword_names: those inputs that are passed by name.
    """

    default_signature = SIGNATURE

    def __init__(
        self, platform: str, module: Any, inputs: Sequence[TensorSpec], *, keyword_names: Sequence[str] = ()
    ) -> None:
        self.platform = platform
        self.signatures = {SIGNATURE: Signature(SIGNATURE, tuple(inputs))}
        self._module: Any = module
        self._keywords = frozenset(keyword_names)
        self._wants_whole_numbers = False
        self._float_dtype = _float_dtype(module)

    def predict(self, signature: Signature, inputs: Tensors) -> Tensors:
        """Call the module; see `TensorRuntime`."""
        try:
            result = self._call(signature, inputs, whole=self._wants_whole_numbers)
        except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
            result = self._second_try(signature, inputs, error)
        return named_arrays(result)

    def close(self) -> None:
        """Let the module go."""
        self._module = None

    def _second_try(self, signature: Signature, inputs: Tensors, error: Exception) -> Any:
        reason = last_line(error)
        words = _WANTS_FLOATS if self._wants_whole_numbers else _WANTS_WHOLE_NUMBERS
        open_inputs = [inputs[spec.name] for spec in signature.inputs if spec.dtype is None]
        if any(word in reason for word in words) and any(array.dtype.kind in "iu" for array in open_inputs):
            try:
                result = self._call(signature, inputs, whole=not self._wants_whole_numbers)
            except (RuntimeError, ValueError, IndexError, TypeError) as second:
                raise _refusal(last_line(second), second) from second
            self._wants_whole_numbers = not self._wants_whole_numbers
            return result
        raise _refusal(reason, error) from error

    def _call(self, signature: Signature, inputs: Tensors, *, whole: bool) -> Any:
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for spec in signature.inputs:
            tensor = self._tensor(inputs[spec.name], spec, whole=whole)
            if spec.name in self._keywords:
                named[spec.name] = tensor
            else:
                positional.append(tensor)
        with torch.inference_mode():
            return self._module(*positional, **named)

    def _tensor(self, array: Array, spec: TensorSpec, *, whole: bool) -> Any:
        if array.dtype.kind == "O":
            raise BadRequest(f"the input '{spec.name}' is text, which a PyTorch program can't take")
        if not array.flags.writeable or not array.dtype.isnative or not array.flags.c_contiguous:
            array = np.array(array, dtype=array.dtype.newbyteorder("="))
        tensor = torch.from_numpy(array)
        if spec.dtype == "bfloat16":
            return tensor.to(torch.bfloat16)
        if spec.dtype is not None or array.dtype.kind == "b":
            return tensor
        if whole and array.dtype.kind in "iu":
            return tensor.to(torch.int64)
        return tensor.to(self._float_dtype)


def named_arrays(result: Any) -> dict[str, Array]:
    """A module's result as named arrays: a mapping keeps its keys, everything else becomes `output_0`, `output_1` …"""
    if isinstance(result, Mapping):
        return {str(name): _array(value) for name, value in cast("Mapping[Any, Any]", result).items()}
    if isinstance(result, (tuple, list)):
        names: Any = getattr(cast("Any", result), "_fields", None)  # a named tuple
        values = cast("Sequence[Any]", result)
        names = names or [f"output_{index}" for index in range(len(values))]
        return {str(name): _array(value) for name, value in zip(names, values, strict=True)}
    return {"output_0": _array(result)}


def last_line(error: BaseException) -> str:
    """PyTorch puts the interpreter's traceback before what is wrong; this is what is wrong, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith(("RuntimeError: ", "IndexError: ", "ValueError: ")):
            return line.partition(": ")[2][:500]
    return (lines[0] if lines else type(error).__name__)[:500]


def dtype_word(dtype: Any) -> str | None:
    """The contract's word for a dtype of PyTorch, None for one that arrays can't have."""
    word = str(dtype).removeprefix("torch.")
    return word if word == "bfloat16" or word == "bool" or word.startswith(("float", "int", "uint")) else None


def use_processors(count: int) -> None:
    """Let one prediction use so many threads."""
    torch.set_num_threads(count)


def _array(value: Any) -> Array:
    if isinstance(value, torch.Tensor):
        tensor: Any = value.detach().cpu()
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()
        return tensor.resolve_conj().resolve_neg().numpy()
    array: Array = np.asarray(value)
    if array.dtype.kind in "fiub":
        return array
    if isinstance(value, str):
        return np.array(value.encode(), dtype=object)
    raise TypeError(f"the program answers {type(value).__name__}, which is no tensor")


def _refusal(reason: str, error: Exception) -> Exception:
    """Whether it is the caller's fault can't be told apart in general; running out of memory is the one case that surely is not."""
    return error if "memory" in reason else BadRequest(f"the model refuses the input: {reason}")


def _float_dtype(module: Any) -> Any:
    parameters: Any = getattr(module, "parameters", None)
    if parameters is not None:
        for parameter in parameters():
            if parameter.is_floating_point():
                return parameter.dtype
    return torch.float32
