"""Errors → HTTP: every failure leaves in the API's envelope, with a status, a stable code and a sentence; never a traceback."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import DBAPIError, IntegrityError
from starlette.exceptions import HTTPException

from modelyard.kit.errors import Fault, UserError
from modelyard.objectstore.port import StoreUnreachable

log = logging.getLogger(__name__)

_POSTGRESQL_DISK_FULL = "53100"  # SQLSTATE disk_full
_POSTGRESQL_COLLISIONS = ("40001", "40P01")  # serialization_failure, deadlock_detected
_SENTENCES = {
    404: "there is nothing at this path; /docs lists what there is",
    405: "this path does not take this method",
}


def add_problem_handlers(app: FastAPI) -> None:
    """Teach the application to answer errors."""
    app.add_exception_handler(UserError, _on_user_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(StoreUnreachable, _on_unreachable)
    app.add_exception_handler(DBAPIError, _on_database_error)
    app.add_exception_handler(OSError, _on_system_error)
    app.add_exception_handler(Exception, _on_bug)


def problem(
    status: int, code: int, message: str, faults: Sequence[Fault] = (), headers: dict[str, str] | None = None
) -> Response:
    """An unsuccessful answer in the envelope."""
    content: dict[str, Any] = {"header": {"isSuccessful": False, "resultCode": code, "resultMessage": message}}
    if faults:
        content["faults"] = [{"field": fault.field, "message": fault.message} for fault in faults]
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


async def _on_user_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, UserError)  # what it is registered for
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return problem(error.status, error.code, error.message, error.faults, headers)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # what it is registered for
    faults = [_fault(item) for item in error.errors()]
    message = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:10])
    return problem(400, 400001, message, faults)


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # what it is registered for
    message = _SENTENCES.get(error.status_code, str(error.detail))
    return problem(error.status_code, error.status_code * 1000, message, (), dict(error.headers or {}))


async def _on_unreachable(_request: Request, error: Exception) -> Response:
    return problem(424, 424001, f"the object store can't be reached: {error}")


async def _on_database_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DBAPIError)  # what it is registered for
    cause = error.orig
    is_full = getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    if is_full or getattr(cause, "sqlstate", None) == _POSTGRESQL_DISK_FULL:
        return _no_room(request)
    if isinstance(error, IntegrityError) or getattr(cause, "sqlstate", None) in _POSTGRESQL_COLLISIONS:
        # Services look first and answer in better words; this is for two requests that looked at the same moment.
        log.warning("%s %s collided with another request: %s", request.method, request.url.path, cause)
        return problem(409, 409003, "another request has changed the same thing at the same moment; look at it again")
    return await _on_bug(request, error)


async def _on_system_error(request: Request, error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _no_room(request)
    return await _on_bug(request, error)


def _no_room(request: Request) -> Response:
    log.error("%s %s refused: there is no room on the platform's disk", request.method, request.url.path)
    message = "there is no room left on the platform's disk; nothing was changed. Delete what is not needed, or ask an admin for space"
    return problem(507, 507001, message)


async def _on_bug(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(
        500, 500000, "something went wrong inside the platform; its log (logs/server.log in the home) says what"
    )


def _fault(item: dict[str, Any]) -> Fault:
    """One of pydantic's complaints, with the field's path as it stands on the wire."""
    parts = [part for part in item["loc"] if part not in ("body", "query", "path", "header")]
    field = ""
    for part in parts:
        field += f"[{part}]" if isinstance(part, int) else (f".{part}" if field else str(part))
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "missing":
        message = "must be given"
    elif item["type"] == "json_invalid":
        return Fault("body", f"is not JSON: {item.get('ctx', {}).get('error', message)}")
    return Fault(field or "body", message)
