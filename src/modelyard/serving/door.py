"""The HTTP door: paths, limits and answers around one model, as an RSGI application.

The door answers probes and metadata itself, from the event loop; predictions go to the desk. Until a model is given it says that it is
alive and not ready.
Source of the interface: https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import Any, Protocol

from modelyard.serving.config import ServingConfig
from modelyard.serving.desk import Desk
from modelyard.serving.errors import BodyEncoded, BodyTooLarge, NotReady, NotServed, Refusal
from modelyard.serving.metrics import Metrics
from modelyard.serving.paths import ServedName, Verb, resolve
from modelyard.serving.protocol import v1, v2
from modelyard.serving.protocol.json_text import write_json
from modelyard.serving.service import JSON, Answer, Service

_PREDICTIONS = (Verb.V1_PREDICT, Verb.V2_INFER)
# Inside a sandbox the package around this one need not be whole.
_VERSION = str(getattr(import_module("modelyard"), "__version__", "unknown"))
_FOR_ROWS = ("content-type", v2.HEADER_LENGTH)


class Door:
    """Answers requests for one model.

    Args:
        config: names and limits.
        desk: where predictions are made.
    """

    def __init__(self, config: ServingConfig, desk: Desk) -> None:
        self._limit = config.max_body_bytes
        self._desk = desk
        self._served = ServedName(config.model_name, config.model_version)
        self._service: Service | None = None
        self._is_draining = False
        self._metrics = Metrics(config.model_name)
        self._verbs: dict[tuple[str, str], Verb] = {}

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

    async def __rsgi__(self, scope: Scope, proto: Exchange) -> None:
        started = perf_counter()
        verb: Verb | None = None
        try:
            verb = self._verb(scope.method, scope.path)
            answer = await self._predict(verb, scope, proto) if verb in _PREDICTIONS else self._tell(verb)
        except Refusal as refusal:
            answer = Answer(
                refusal.status, [("content-type", JSON), *refusal.headers], write_json({"error": refusal.message})
            )
        except Exception as error:
            traceback.print_exception(error)
            answer = Answer(500, [("content-type", JSON)], write_json({"error": f"the model server failed: {error}"}))
        if verb in _PREDICTIONS:
            self._metrics.note(answer.status, perf_counter() - started)
            if self._is_draining:
                answer.headers.append(("connection", "close"))
        proto.response_bytes(answer.status, answer.headers, answer.body)

    def _verb(self, method: str, path: str) -> Verb:
        verb = self._verbs.get((method, path))
        if verb is None:  # only paths that exist are remembered, and of those there are few
            verb = self._verbs[method, path] = resolve(method, path, self._served)
        return verb

    async def _predict(self, verb: Verb, scope: Scope, proto: Exchange) -> Answer:
        body = await self._read(scope.headers, proto)
        service = self._service
        if service is None:
            raise NotReady("the model is still being loaded")
        headers = dict(scope.headers.items()) if service.signature is None else _picked(scope.headers)
        ask = service.answer_v1 if verb is Verb.V1_PREDICT else service.answer_v2
        return await self._desk.run(partial(ask, body, headers), len(body))

    async def _read(self, headers: Headers, proto: Exchange) -> bytes:
        encoding = headers.get("content-encoding")
        if encoding and encoding.lower() != "identity":
            raise BodyEncoded(encoding)
        length = headers.get("content-length")
        if length is not None:
            if int(length) > self._limit:
                raise BodyTooLarge(self._limit)
            return await proto()
        body = bytearray()
        async for chunk in proto:
            body += chunk
            if len(body) > self._limit:
                raise BodyTooLarge(self._limit)
        return bytes(body)

    def _tell(self, verb: Verb) -> Answer:
        if verb is Verb.METRICS:
            desk = self._desk
            text = self._metrics.render(in_flight=desk.in_flight, waiting=desk.waiting, is_ready=self.is_ready)
            return Answer(200, [("content-type", "text/plain; version=0.0.4; charset=utf-8")], text)
        status = 200
        if verb in (Verb.READY, Verb.V2_READY, Verb.V2_MODEL_READY) and not self.is_ready:
            status = 503
        return Answer(status, [("content-type", JSON)], write_json(self._told(verb)))

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


class Headers(Protocol):
    """Request headers, by any case."""

    def get(self, key: str, default: Any = None) -> Any: ...
    def items(self) -> list[tuple[str, str]]: ...


class Scope(Protocol):
    """What RSGI tells about a request."""

    method: str
    path: str
    headers: Headers


class Exchange(Protocol):
    """How RSGI reads a body and writes an answer."""

    async def __call__(self) -> bytes: ...
    def __aiter__(self) -> Any: ...
    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


def _picked(headers: Headers) -> Mapping[str, str]:
    """The few headers that tensor models need; copying all of them costs more than a small model's answer."""
    return {name: value for name in _FOR_ROWS if (value := headers.get(name)) is not None}
