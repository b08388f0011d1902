"""A loaded model behind its protocols: bytes in, an answer out. Runs in prediction threads; knows no HTTP server."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.serving.batcher import Batcher
from modelyard.serving.contract import Reply, RowRuntime, Signature, TensorRuntime, Tensors
from modelyard.serving.errors import BadRequest, ModelFailed, Refusal
from modelyard.serving.paths import ServedName
from modelyard.serving.protocol import rows, v1, v2
from modelyard.serving.protocol.json_text import read_json

JSON = "application/json"
OCTETS = "application/octet-stream"
_JOINED_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """An HTTP answer in parts. `tail` are pieces that follow the body: large tensors, sent without being joined."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    tail: tuple[bytes | memoryview, ...] = ()


class TensorService:
    """Translates both protocols for a model that maps arrays to arrays."""

    def __init__(self, runtime: TensorRuntime, served: ServedName) -> None:
        self.runtime = runtime
        self.served = served

    @property
    def platform(self) -> str:
        """What answers, for the model's metadata."""
        return self.runtime.platform

    @property
    def signature(self) -> Signature:
        """The default signature, for the model's metadata."""
        return self.runtime.signatures[self.runtime.default_signature]

    @property
    def batcher(self) -> Batcher[Any, Any] | None:
        """What joins requests, where batching is on."""
        return getattr(self.runtime, "batcher", None)

    def answer_v1(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer to a V1 request; one of V2 that came to this path gets the answer of its own protocol."""
        try:
            value = read_json(body)
        except BadRequest as error:
            raise BadRequest(f"{error.message}. {v1.explain(self.signature)}") from error
        if v2.looks_like_v2(value):
            return self._infer(v2.parse_infer(value, memoryview(b"")))
        request = v1.parse_predict(value, self.runtime)
        outputs = self._predict(request.signature, request.inputs, v1.explain)
        return Answer(200, [("content-type", JSON)], v1.render_predict(request, outputs))

    def answer_v2(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer to a V2 request."""
        return self._infer(v2.parse_body(body, headers.get(v2.HEADER_LENGTH)))

    def v1_metadata(self) -> dict[str, Any]:
        """What V1 tells about the model."""
        return v1.describe(self.served.name, self.served.version, self.runtime)

    def close(self) -> None:
        """Close the model."""
        self.runtime.close()

    def _infer(self, request: v2.V2Request) -> Answer:
        signature, inputs = v2.fit(request, self.runtime)
        return _v2_answer(
            *v2.render_infer(
                request, self._predict(signature, inputs, v2.explain), self.served.name, self.served.version
            )
        )

    def _predict(self, signature: Signature, inputs: Tensors, explain: Callable[[Signature], str]) -> Tensors:
        try:
            return self.runtime.predict(signature, inputs)
        except BadRequest as error:
            raise BadRequest(f"{error.message}. {explain(signature)}") from error
        except Refusal:
            raise
        except Exception as error:
            raise failed("the model", error) from error


class RowService:
    """Translates both protocols for a program that answers rows."""

    def __init__(self, runtime: RowRuntime, served: ServedName) -> None:
        self.runtime = runtime
        self.served = served
        self.platform = runtime.platform
        self.signature: Signature | None = None

    @property
    def batcher(self) -> Batcher[Any, Any] | None:
        """What joins requests, where batching is on."""
        return getattr(self.runtime, "batcher", None)

    def answer_v1(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer of the user's program to a body of any kind."""
        if b'"datatype"' in body and _is_json(headers) and v2.looks_like_v2(value := read_json(body)):
            return self._infer(v2.parse_infer(value, memoryview(b"")), headers)
        unpacks = self.runtime.unpacks_instances
        instances, is_instances = rows.parse_rows(body, headers.get("content-type", ""), unpacks_instances=unpacks)
        reply = self._ask(instances, headers)
        text, content_type = rows.render_rows(reply, is_instances=is_instances)
        own = [(name, value) for name, value in reply.headers]
        if not any(name.lower() == "content-type" for name, _ in own):
            own.append(("content-type", content_type))
        return Answer(reply.status or 200, own, text)

    def answer_v2(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer to a V2 request: its tensors' first dimension are the rows."""
        return self._infer(v2.parse_body(body, headers.get(v2.HEADER_LENGTH)), headers)

    def v1_metadata(self) -> dict[str, Any]:
        """What V1 tells about the model: no signature, because the handler alone knows what it takes."""
        spec = {"name": self.served.name, "signature_name": "", "version": self.served.version}
        return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": {}}}}

    def close(self) -> None:
        """Close the program."""
        self.runtime.close()

    def _infer(self, request: v2.V2Request, headers: Mapping[str, str]) -> Answer:
        reply = self._ask(rows.tensor_rows(request), headers)
        return _v2_answer(*rows.render_row_tensors(request, reply, self.served.name, self.served.version), reply)

    def _ask(self, instances: list[Any], headers: Mapping[str, str]) -> Reply:
        try:
            return self.runtime.answer(instances, headers)
        except Refusal:
            raise
        except Exception as error:
            raise failed("the model's handler", error) from error


Service = TensorService | RowService


def failed(who: str, error: BaseException) -> ModelFailed:
    """What a model raised, as an answer; the traceback goes to the log, where the model's owner reads it."""
    traceback.print_exception(type(error), error, error.__traceback__)
    return ModelFailed(f"{who} raised {type(error).__name__}: {error}"[:2000])


def _is_json(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower().endswith("json")


def _v2_answer(text: bytes, raw: Sequence[bytes | memoryview], reply: Reply | None = None) -> Answer:
    """JSON, and raw tensors after it; small ones in one piece, since pieces cost more than copying so little."""
    status = (reply.status if reply else None) or 200
    if not raw:
        return Answer(status, [("content-type", JSON)], text)
    headers = [("content-type", OCTETS), (v2.HEADER_LENGTH, str(len(text)))]
    if sum(len(piece) for piece in raw) <= _JOINED_BYTES:
        return Answer(status, headers, b"".join([text, *raw]))
    return Answer(status, headers, text, tuple(raw))
