"""The HTTP door: paths, limits and answers around one model, as the application of `http1`.

The door answers probes and metadata itself, from the event loop; predictions go to the desk. Until a model is given it says that it is
alive and not ready.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import Any
from urllib.parse import unquote

from modelyard.serving.config import ServingConfig
from modelyard.serving.desk import Desk
from modelyard.serving.errors import BodyEncoded, BodyTooLarge, NotReady, NotServed, Refusal
from modelyard.serving.http1 import Request
from modelyard.serving.inference_log import REQUEST, RESPONSE, InferenceIds, InferenceLog, Record
from modelyard.serving.merged import OWN, ask_others, merge
from modelyard.serving.metrics import Metrics
from modelyard.serving.paths import ServedName, Verb, resolve
from modelyard.serving.protocol import v1, v2
from modelyard.serving.protocol.json_text import write_json
from modelyard.serving.service import JSON, Answer, Service

_PREDICTIONS = (Verb.V1_PREDICT, Verb.V2_INFER)
# Inside a sandbox the package around this one need not be whole.
_VERSION = str(getattr(import_module("modelyard"), "__version__", "unknown"))
INFERENCE_ID = "x-inference-id"
_ASKED_PATH = "x-envoy-original-path"  # what the gateway says of the path before it rewrote it
_FOR_ROWS = ("content-type", v2.HEADER_LENGTH)


class Door:
    """Answers requests for one model.

    Args:
        config: names and limits.
        desk: where predictions are made.
        log: where inferences are written down; None for nowhere.
    """

    def __init__(self, config: ServingConfig, desk: Desk, log: InferenceLog | None = None) -> None:
        self._limit = config.max_body_bytes
        self._peers = config.peers
        self._own_socket = config.listen
        self._desk = desk
        self._served = ServedName(config.model_name, config.model_version)
        self._service: Service | None = None
        self._is_draining = False
        self._metrics = Metrics(config.model_name)
        self._verbs: dict[tuple[str, str], Verb] = {}
        self._ids = InferenceIds()
        self._log = log or InferenceLog(sample_rate=0, max_bytes=0)

    @property
    def is_ready(self) -> bool:
        """Whether predictions are answered: loaded, not going away, and not stuck."""
        return self._service is not None and not self._is_draining and not self._desk.is_stuck

    def open(self, service: Service) -> None:
        """Answer predictions from now on."""
        self._verbs.clear()
        self._served = service.served
        self._service = service

    def close(self) -> None:
        """Close the model. Nothing may be in flight."""
        if self._service is not None:
            self._service.close()
            self._service = None

    def drain(self) -> None:
        """Say "not ready" from now on; what still comes in is answered."""
        self._is_draining = True

    async def answer(self, request: Request) -> None:
        """Answer a request."""
        started = perf_counter()
        verb: Verb | None = None
        inference: _Inference | None = None
        try:
            verb = self._verb(request)
            if verb in _PREDICTIONS:
                inference = _Inference(self._ids.id_for(request.headers.get(INFERENCE_ID)), self._log.takes_next())
                answer = await self._predict(verb, inference, request)
            else:
                answer = self._tell(verb)
                if verb is Verb.METRICS and self._peers and request.headers.get(OWN) is None:
                    others = await ask_others(self._peers, self._own_socket)
                    answer = replace(answer, body=merge([answer.body, *others]))
        except Refusal as refusal:
            answer = Answer(
                refusal.status, [("content-type", JSON), *refusal.headers], write_json({"error": refusal.message})
            )
        except Exception as error:
            traceback.print_exception(error)
            answer = Answer(500, [("content-type", JSON)], write_json({"error": f"the model server failed: {error}"}))
        if inference is not None:
            seconds = perf_counter() - started
            self._metrics.note(answer.status, seconds)
            answer.headers.append((INFERENCE_ID, inference.id))
            if self._is_draining:
                answer.headers.append(("connection", "close"))
            if inference.is_logged:
                self._note_answer(inference.id, answer, seconds)
        if answer.tail:
            await request.respond_in_pieces(answer.status, answer.headers, (answer.body, *answer.tail))
        else:
            request.respond(answer.status, answer.headers, answer.body)

    def _verb(self, request: Request) -> Verb:
        method, path = request.method, request.path
        verb = self._verbs.get((method, path))
        if verb is None:  # only paths that exist are remembered, and of those there are few
            asked = request.headers.get(_ASKED_PATH)
            asked = None if asked is None else unquote(asked.partition("?")[0])
            verb = self._verbs[method, path] = resolve(method, path, self._served, asked)
        return verb

    async def _predict(self, verb: Verb, inference: _Inference, request: Request) -> Answer:
        body = await self._read(request)
        if inference.is_logged:
            self._log.note(Record(REQUEST, inference.id, body, request.headers.get("content-type") or ""))
        service = self._service
        if service is None:
            raise NotReady("the model is still being loaded")
        if service.signature is None:
            headers: Mapping[str, str] = {**request.headers, INFERENCE_ID: inference.id}
        else:
            headers = _picked(request.headers)
        ask = service.answer_v1 if verb is Verb.V1_PREDICT else service.answer_v2
        return await self._desk.run(partial(ask, body, headers), len(body))

    def _note_answer(self, inference_id: str, answer: Answer, seconds: float) -> None:
        kind = next((value for name, value in answer.headers if name == "content-type"), "")
        self._log.note(Record(RESPONSE, inference_id, answer.body, kind, answer.status, seconds))

    async def _read(self, request: Request) -> bytes:
        encoding = request.headers.get("content-encoding")
        if encoding and encoding.lower() != "identity":
            raise BodyEncoded(encoding)
        return await request.read(self._limit, lambda: BodyTooLarge(self._limit))

    def _tell(self, verb: Verb) -> Answer:
        if verb is Verb.METRICS:
            desk = self._desk
            text = self._metrics.render(
                self._counters(), in_flight=desk.in_flight, waiting=desk.waiting, is_ready=self.is_ready
            )
            return Answer(200, [("content-type", "text/plain; version=0.0.4; charset=utf-8")], text)
        status = 200
        if verb in (Verb.READY, Verb.V2_READY, Verb.V2_MODEL_READY) and not self.is_ready:
            status = 503
        return Answer(status, [("content-type", JSON)], write_json(self._told(verb)))

    def _counters(self) -> dict[str, int]:
        """Counts that others keep."""
        counters = {"inference_log_lines": self._log.written_count, "inference_log_dropped": self._log.dropped_count}
        batcher = self._service.batcher if self._service is not None else None
        if batcher is not None:
            counters |= {"batches": batcher.batch_count, "batched_rows": batcher.row_count}
        return counters

    def _told(self, verb: Verb) -> Any:
        name, version = self._served.name, self._served.version
        if verb is Verb.ALIVE:
            return {"status": "alive"}
        if verb is Verb.V2_ALIVE:
            return {"live": True}
        if verb in (Verb.READY, Verb.V2_READY):
            return {"ready": self.is_ready}
        if verb is Verb.V2_SERVER:
            return {"name": "modelyard", "version": _VERSION, "extensions": ["binary_tensor_data"]}
        if verb is Verb.V1_LIST:
            return {"models": [name]}
        if verb is Verb.V1_STATUS:
            return v1.status(name, version, is_ready=self.is_ready)
        if verb is Verb.V2_MODEL_READY:
            return {"name": name, "ready": self.is_ready}
        if self._service is None:
            raise NotReady("the model is still being loaded")
        if verb is Verb.V1_METADATA:
            return self._service.v1_metadata()
        if verb is Verb.V2_MODEL:
            return v2.describe(name, version, self._service.platform, self._service.signature)
        raise NotServed(f"nothing answers {verb.value}")


class _Inference:
    """A prediction under way."""

    __slots__ = ("id", "is_logged")

    def __init__(self, id: str, is_logged: bool) -> None:
        self.id = id
        self.is_logged = is_logged


def _picked(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The few headers that tensor models need, so that none else reaches them."""
    return {name: value for name in _FOR_ROWS if (value := headers.get(name)) is not None}
