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

from modelyard.kit.errors import Fault, Invalid, UserError
from modelyard.objectstore.port import StoreUnreachable
from modelyard.web import form_faults
from modelyard.wire import blocked_by

log = logging.getLogger(__name__)

_POSTGRESQL_DISK_FULL = "53100"  # SQLSTATE disk_full
_POSTGRESQL_UNSTORABLE = ("22021", "22P05")  # character_not_in_repertoire, untranslatable_character
_POSTGRESQL_COLLISIONS = ("40001", "40P01")  # serialization_failure, deadlock_detected
_SENTENCES = {
    404: "there is nothing at this path; /docs lists what there is",
    400: "the body is no JSON that can be read: it is no UTF-8 text, is nested too deeply, or has a number of thousands of digits",
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
    status: int,
    code: int,
    message: str,
    faults: Sequence[Fault] = (),
    headers: dict[str, str] | None = None,
    *,
    more: dict[str, Any] | None = None,
) -> Response:
    """An unsuccessful answer in the envelope; `more` stands beside its head."""
    content: dict[str, Any] = {"header": {"isSuccessful": False, "resultCode": code, "resultMessage": message}}
    content |= more or {}
    if faults:
        content["faults"] = [{"field": fault.field, "message": fault.message} for fault in faults]
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


async def _on_user_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, UserError)  # what it is registered for
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    blocked = blocked_by(error).model_dump(by_alias=True) if error.blockers else None
    return problem(error.status, error.code, error.message, error.faults, headers, more=blocked)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # what it is registered for
    invalid = Invalid(form_faults(error.errors()))
    return problem(invalid.status, invalid.code, invalid.message, invalid.faults)


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
    if getattr(cause, "sqlstate", None) in _POSTGRESQL_UNSTORABLE:
        # SQLite finds nothing by such a text; PostgreSQL doesn't even look.
        return problem(400, 400001, "a value has a NUL character, which no name, id or text of the platform can have")
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
