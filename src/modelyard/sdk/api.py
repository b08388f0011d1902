"""The REST API's manners: addresses, credentials, the envelope, errors and trying again.

A call is tried again when it certainly did not arrive, or when doing it twice does no harm: everything but POST is so by itself, and a
POST that creates carries an `Idempotency-Key` by which the platform recognises the second try.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from modelyard import __version__
from modelyard.kit.backoff import Backoff
from modelyard.kit.errors import Blocker, Fault
from modelyard.kit.ids import MAX_IDEMPOTENCY_KEY_CHARACTERS
from modelyard.sdk.connection import Connection
from modelyard.sdk.door import Answer, Broken, Call, Door, NotSent
from modelyard.sdk.errors import ApiError, BadRequest, ConnectionFailed, UnexpectedAnswer, api_error
from modelyard.wire import Wire, plain

W = TypeVar("W", bound=Wire)

Params = Mapping[str, "str | int | Sequence[str] | None"]
_TRY_AGAIN = frozenset({429, 502, 503, 504})
_INVALID = 400001


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try again, in seconds.

    A platform that was never reached by this client is given up sooner (`first_seconds`) than one that has answered before and may just be
    restarting (`seconds`).
    """

    seconds: float = 60.0
    first_seconds: float = 2.0
    backoff: Backoff = field(default_factory=lambda: Backoff(base_seconds=0.2, limit_seconds=5.0))


class Api:
    """Speaks to one project of one platform through a door."""

    def __init__(self, connection: Connection, door: Door, patience: Patience | None = None) -> None:
        self.connection = connection
        self.door = door
        self._patience = patience or Patience()
        self._was_reached = False
        self._base = f"{connection.api_url}/v1.0/appkeys/{connection.app_key}"

    async def ask(
        self,
        shape: type[W],
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: Wire | None = None,
        idempotency_key: str | None = None,
        is_platform_wide: bool = False,
        timeout_seconds: float = 30.0,
    ) -> W:
        """Call `path` (below the app key) and read the answer as `shape`.

        `is_platform_wide`: the path is not below an app key. `idempotency_key` names a request that creates; without one, each call of
        this method is a request of its own.
        Raises `ApiError` and its kin, `ConnectionFailed`, `UnexpectedAnswer`.
        """
        headers = {
            "x-nhn-authorization": f"Bearer {self.connection.access_token}",
            "Accept": "application/json",
            "User-Agent": f"modelyard-sdk/{__version__}",
        }
        content = None
        if body is not None:
            content = body.model_dump_json(by_alias=True, exclude_unset=True).encode()
            headers["Content-Type"] = "application/json"
        if method == "POST":
            headers["Idempotency-Key"] = str(uuid.uuid4()) if idempotency_key is None else _sendable(idempotency_key)
        base = f"{self.connection.api_url}/v1.0" if is_platform_wide else self._base
        call = Call(method, base + path, _flat(params), headers, content, timeout_seconds=timeout_seconds)
        answer = await self.send(call)
        if not 200 <= answer.status < 300:
            raise error_of(answer, call)
        try:
            return shape.model_validate_json(answer.body)
        except ValidationError as error:
            raise UnexpectedAnswer(
                f"the answer of {call.url} is not what this version of the SDK ({__version__}) reads: {_first(error)}"
            ) from error

    async def send(self, call: Call, write: Callable[[bytes], object] | None = None) -> Answer:
        """Do any call, again where that helps. `write` takes the body piece by piece; a call with it is the caller's to repeat.

        Raises `ConnectionFailed`; every status that stays is an answer.
        """
        started = monotonic()
        attempts = 0
        while True:
            attempts += 1
            try:
                answer = await (self.door.send(call) if write is None else self.door.receive(call, write))
            except NotSent as error:
                if not self._may_wait(started):
                    raise ConnectionFailed(call.url, str(error)) from error
                await self.pause(attempts)
                continue
            except Broken as error:
                if not call.is_repeatable or write is not None or not self._may_wait(started):
                    raise ConnectionFailed(call.url, str(error)) from error
                await self.pause(attempts)
                continue
            if answer.status in _TRY_AGAIN and call.is_repeatable and self._may_wait(started):
                await self.pause(attempts, _retry_after(answer))
                continue
            self._was_reached = self._was_reached or answer.status not in _TRY_AGAIN
            return answer

    async def pause(self, attempts: int, asked_seconds: float = 0.0) -> None:
        """Wait before the next try after so many failures, and as long as the platform asked for."""
        delay = self._patience.backoff.delay_seconds(attempts)
        # Many clients of one platform must not come back in step.
        spread = delay * random.uniform(0.75, 1.25)  # noqa: S311 - no secret is drawn
        await self.door.sleep(max(spread, min(asked_seconds, self._patience.backoff.limit_seconds)))

    def _may_wait(self, started: float) -> bool:
        limit = self._patience.seconds if self._was_reached else self._patience.first_seconds
        return monotonic() - started < limit


def checked(shape: type[W], fields: Mapping[str, Any], *, has_nulls: bool = False) -> W:
    """Build a request's body from wire names, dropping what is None unless `has_nulls`. Raises `BadRequest` with a fault for each wrong field."""
    try:
        return shape.model_validate({name: value for name, value in fields.items() if has_nulls or value is not None})
    except ValidationError as error:
        faults = [Fault(_path(item["loc"]), plain(item)) for item in error.errors()]
        message = "; ".join(f"{fault.field}: {fault.message}" for fault in faults)
        raise BadRequest(400, _INVALID, message, faults=faults) from None


def error_of(answer: Answer, call: Call) -> ApiError:
    """The error that an answer is: from the envelope, from a model server's `error`, or from the bare status."""
    request_id = answer.headers.get("x-request-id")
    try:
        content: Any = json.loads(answer.body)
    except ValueError:
        content = None
    item = cast(dict[str, Any], content) if isinstance(content, dict) else {}
    header = item.get("header")
    if isinstance(header, dict):
        fields = cast(dict[str, Any], header)
        return api_error(
            answer.status,
            int(fields.get("resultCode") or answer.status * 1000),
            str(fields.get("resultMessage") or f"HTTP {answer.status}"),
            faults=_faults(item.get("faults")),
            blockers=_blockers(item.get("blockerList")),
            request_id=request_id,
        )
    text = item.get("error") or item.get("message") or answer.body.decode(errors="replace").strip()[:300]
    message = f"{call.method} {call.url} answered {answer.status}" + (f": {text}" if text else "")
    return api_error(answer.status, answer.status * 1000, message, request_id=request_id)


def _flat(params: Params | None) -> dict[str, Sequence[str]]:
    flat: dict[str, Sequence[str]] = {}
    for name, value in (params or {}).items():
        if value is None:
            continue
        flat[name] = [str(value)] if isinstance(value, str | int) else list(value)
    return flat


def _sendable(key: str) -> str:
    if (
        not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY_CHARACTERS
        or not key.isascii()
        or not key.isprintable()
        or key != key.strip()
    ):
        limit = MAX_IDEMPOTENCY_KEY_CHARACTERS
        fault = Fault("idempotency_key", f"must have 1 to {limit} printable ASCII characters, and no space at its ends")
        raise BadRequest(400, _INVALID, f"{fault.field}: {fault.message}", faults=[fault])
    return key


def _retry_after(answer: Answer) -> float:
    try:
        return float(answer.headers.get("retry-after", "0"))
    except ValueError:
        return 0.0


def _faults(value: Any) -> list[Fault]:
    return [Fault(str(item.get("field", "")), str(item.get("message", ""))) for item in _objects(value)]


def _blockers(value: Any) -> list[Blocker]:
    return [
        Blocker(str(item.get("resourceType", "")), str(item.get("id", "")), str(item.get("name", "")))
        for item in _objects(value)
    ]


def _objects(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return []
    return [cast(dict[str, Any], item) for item in cast(list[Any], value) if isinstance(item, dict)]


def _first(error: ValidationError) -> str:
    item = error.errors()[0]
    return f"{_path(item['loc'])} {item['msg']}".strip()


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
