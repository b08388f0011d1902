"""Plain requests to the REST API, and what every answer must be."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from journey_platform import RunningPlatform

UNKNOWN_ID = str(uuid.UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0001))


@dataclass(frozen=True)
class Operation:
    """A method on a path of the OpenAPI document, e.g. `/v1.0/appkeys/{appkey}/trainings/{training_id}`."""

    method: str
    path: str

    @property
    def has_key(self) -> bool:
        """Whether it belongs to a project."""
        return "{appkey}" in self.path

    @property
    def id_name(self) -> str | None:
        """The path's parameter beside the app key."""
        names = [name for name in re.findall(r"{(\w+)}", self.path) if name.endswith("_id")]
        return names[0] if names else None

    def filled(self, app_key: str, id: str = UNKNOWN_ID) -> str:
        """The path with the parameters in it."""
        path = re.sub(r"{\w+_id}", id, self.path.replace("{appkey}", app_key))
        return re.sub(r"{\w+}", "x", path)


class Rest:
    """The REST API of a platform, called without the SDK."""

    def __init__(self, platform: RunningPlatform) -> None:
        self._platform = platform
        self._http = httpx.Client(base_url=platform.credentials["apiUrl"], timeout=60.0)

    def __enter__(self) -> Rest:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """A request with the project's credentials to a path below the app key."""
        options.setdefault("headers", self._platform.headers)
        if body is not None:
            options["content"] = body if isinstance(body, bytes) else json.dumps(body).encode()
            options["headers"] = {"Content-Type": "application/json", **options["headers"]}
        return self.send(method, f"/v1.0/appkeys/{self._platform.credentials['appKey']}{path}", **options)

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any request to the front door."""
        return self._http.request(method, path, **options)

    def operations(self) -> Iterator[Operation]:
        """All that the OpenAPI document names."""
        document = self.send("GET", "/openapi.json").json()
        for path, methods in document["paths"].items():
            for method in methods:
                yield Operation(method.upper(), path)


def refused(answer: httpx.Response, *statuses: int) -> str:
    """The sentence of an answer that must be a refusal of one of these statuses, in the envelope."""
    assert answer.status_code in statuses, (
        f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:500]}"
    )
    header = answer.json()["header"]
    assert header["isSuccessful"] is False
    assert header["resultCode"] // 1000 == answer.status_code
    assert header["resultMessage"]
    assert "Traceback" not in answer.text
    return str(header["resultMessage"])


def faults(answer: httpx.Response) -> Mapping[str, str]:
    """The fields that a 400 names, with the sentence for each."""
    refused(answer, 400)
    return {fault["field"]: fault["message"] for fault in answer.json()["faults"]}
