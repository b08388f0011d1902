"""What both doors share of httpx: certificates, time limits, proxies and the form of answers and errors."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from modelyard.sdk.door import Answer, Call

NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)
CONNECT_TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 32


class LazyContext:
    """The TLS context, made on first use: loading certificates takes longer than a call over plain HTTP."""

    def __init__(self, ca_file: Path | None) -> None:
        self._ca_file = ca_file
        self._context: ssl.SSLContext | None = None

    def of(self, is_secure: bool) -> ssl.SSLContext | bool:
        """What httpx wants as `verify`."""
        if not is_secure:
            return False  # no TLS is spoken by this client
        if self._context is None:
            self._context = ssl.create_default_context()
            if self._ca_file is not None:
                self._context.load_verify_locations(self._ca_file)
        return self._context


def limits() -> httpx.Limits:
    """Connections kept: enough for parallel transfers."""
    return httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)


def direct_mounts(transport: object) -> Mapping[str, Any] | None:
    """A proxy in the environment is never asked for this machine's own addresses."""
    if transport is not None:
        return None
    return {"all://127.0.0.1": None, "all://localhost": None, "all://*.localhost": None}


def timeout_of(call: Call) -> httpx.Timeout:
    """A call's time limits."""
    return httpx.Timeout(call.timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS)


def answer_of(response: httpx.Response, body: bytes) -> Answer:
    """An httpx answer in the SDK's own form."""
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)


def why(error: httpx.TransportError) -> str:
    """An httpx error as the end of a sentence."""
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"its certificate is not trusted ({text}); name the platform's CA file"
    if isinstance(error, httpx.ConnectError):
        return f"{text or 'connection refused'} (is the platform up?)"
    return text or type(error).__name__
