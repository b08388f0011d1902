"""Runtimes that join requests: they stand before a loaded model and look like it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from modelyard.serving.batcher import Batcher
from modelyard.serving.config import ServingConfig
from modelyard.serving.contract import Array, Reply, RowRuntime, Signature, TensorRuntime, Tensors

InFlight = Callable[[], int]


class BatchedTensors:
    """A tensor runtime whose requests are joined along their first dimension; see `TensorRuntime`.

    What can't be joined (an input without a free first dimension) is predicted alone, and so is every request of a signature whose
    outputs turn out not to have a row for each row.

    Args:
        runtime: the loaded model.
        config: how large batches may become and how long they may wait.
        in_flight: how many requests the server has begun and not finished.
    """

    def __init__(self, runtime: TensorRuntime, config: ServingConfig, in_flight: InFlight) -> None:
        self.signatures = runtime.signatures
        self.default_signature = runtime.default_signature
        self._runtime = runtime
        self._joined = {name for name, signature in runtime.signatures.items() if _has_free_rows(signature)}
        self._batcher = Batcher[Tensors, Tensors](
            self._run,
            max_rows=config.max_batch_size,
            max_delay_seconds=config.max_batch_delay_ms / 1000,
            in_flight=in_flight,
            threads=config.threads or config.processor_count,
        )

    @property
    def platform(self) -> str:
        """What answers, which may change."""
        return self._runtime.platform

    @property
    def batcher(self) -> Batcher[Any, Any]:
        """For its counts."""
        return self._batcher

    def predict(self, signature: Signature, inputs: Tensors) -> Tensors:
        """Outputs for inputs, perhaps predicted together with others'; see `TensorRuntime`."""
        rows = _row_count(inputs) if signature.name in self._joined else None
        if rows is None:
            return self._runtime.predict(signature, inputs)
        shapes = tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(inputs.items()))
        return self._batcher.ask((signature.name, shapes), inputs, rows)

    def close(self) -> None:
        """Close the model."""
        self._batcher.close()
        self._runtime.close()

    def _run(self, key: Hashable, given: Sequence[Tensors]) -> Sequence[Tensors]:
        signature = self.signatures[cast("tuple[str, Any]", key)[0]]
        if len(given) == 1:
            return [self._runtime.predict(signature, given[0])]
        joined = {name: np.concatenate([inputs[name] for inputs in given]) for name in given[0]}
        counts = [_row_count(inputs) or 0 for inputs in given]
        outputs = self._runtime.predict(signature, joined)
        if any(array.ndim == 0 or array.shape[0] != sum(counts) for array in outputs.values()):
            self._joined.discard(signature.name)
            return [self._runtime.predict(signature, inputs) for inputs in given]
        ends = np.cumsum(counts)[:-1]
        pieces: dict[str, list[Array]] = {name: np.split(array, ends) for name, array in outputs.items()}
        return [{name: pieces[name][index] for name in outputs} for index in range(len(given))]


class BatchedRows:
    """A row runtime whose program gets the rows of several requests at once; see `RowRuntime`.

    The headers that the program sees are those of the first of them, and a status or headers that it sets hold for all.

    Args:
        runtime, config, in_flight: as of `BatchedTensors`.
    """

    def __init__(self, runtime: RowRuntime, config: ServingConfig, in_flight: InFlight) -> None:
        self.platform = runtime.platform
        self.unpacks_instances = runtime.unpacks_instances
        self._runtime = runtime
        self._batcher = Batcher[tuple[Sequence[Any], Mapping[str, str]], Reply](
            self._run,
            max_rows=config.max_batch_size,
            max_delay_seconds=config.max_batch_delay_ms / 1000,
            in_flight=in_flight,
            threads=1,
        )

    @property
    def batcher(self) -> Batcher[Any, Any]:
        """For its counts."""
        return self._batcher

    def answer(self, rows: Sequence[Any], headers: Mapping[str, str]) -> Reply:
        """The program's answer; see `RowRuntime`."""
        return self._batcher.ask("rows", (rows, headers), len(rows))

    def close(self) -> None:
        """Close the program."""
        self._batcher.close()
        self._runtime.close()

    def _run(self, key: Hashable, given: Sequence[tuple[Sequence[Any], Mapping[str, str]]]) -> Sequence[Reply]:
        rows = [row for some, _ in given for row in some]
        reply = self._runtime.answer(rows, given[0][1])
        if len(given) == 1:
            return [reply]
        if len(reply.rows) != len(rows):
            raise ValueError(f"the program got {len(rows)} rows and answered {len(reply.rows)}")
        replies: list[Reply] = []
        begin = 0
        for some, _ in given:
            replies.append(Reply(reply.rows[begin : begin + len(some)], reply.status, reply.headers))
            begin += len(some)
        return replies


def _has_free_rows(signature: Signature) -> bool:
    return bool(signature.inputs) and all(
        spec.shape is None or (len(spec.shape) > 0 and spec.shape[0] is None) for spec in signature.inputs
    )


def _row_count(inputs: Tensors) -> int | None:
    counts = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
    count = counts.pop()
    return count if not counts and count > 0 else None
