"""Where the official client's log sender delivers: `POST /v2/log`, one line or a list of them.

At its vendor the sender's own app key (`projectName`) names a project of another service and is all the authority there is. Here lines belong
to the project of the credential that comes along, and `projectName` is a field to search by. A credential that opens several projects needs
the project's app key there. Senders before 1.0.10 bring no credential; they are heard where an admin allows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from modelyard.kit.errors import Fault, Invalid
from modelyard.resources.logs.service import Logs
from modelyard.resources.projects.access import credential_of
from modelyard.resources.projects.errors import NoCredential, NotYourProject
from modelyard.resources.projects.service import Projects
from modelyard.wire import Header

_MAX_LINES = 100_000


def create_router(projects: Projects, logs: Logs, *, hears_app_keys: bool) -> APIRouter:
    """The route. `hears_app_keys`: lines without a credential are kept when `projectName` is a project's app key."""
    router = APIRouter(tags=["doors"])

    @router.post("/v2/log")
    async def take_logs(request: Request) -> JSONResponse:
        """Log lines of the official client's sender: one object, or a list of them."""
        lines = await _lines(request)
        name = str(lines[0].get("projectName") or "") if lines else ""
        await logs.take(await _app_key(request, name), lines)
        results = [{"isSuccessful": True, "resultMessage": "SUCCESS"} for _ in lines]
        return JSONResponse(
            {
                "header": Header().model_dump(by_alias=True),
                "body": {"data": {"total": len(lines), "errors": 0, "resultList": results}},
            }
        )

    async def _app_key(request: Request, name: str) -> str:
        credential = credential_of(request.headers)
        if credential is None:
            if hears_app_keys and name and await projects.has_app_key(name):
                return name
            raise NoCredential
        own = await projects.project_of_credential(credential)
        if own is not None:
            return own.app_key
        if not name:
            raise NotYourProject("")
        return (await projects.authenticate(name, token=credential)).project.app_key

    return router


async def _lines(request: Request) -> list[Mapping[str, Any]]:
    try:
        content: Any = await request.json()
    except (ValueError, RecursionError) as error:  # the latter: nested too deeply
        raise Invalid([Fault("body", f"is not JSON: {error}")]) from None
    items = cast(list[Any], content) if isinstance(content, list) else [content]
    if len(items) > _MAX_LINES or not all(isinstance(item, dict) for item in items):
        raise Invalid([Fault("body", f"must be a log line, or a list of at most {_MAX_LINES} of them")])
    return cast(list[Mapping[str, Any]], items)
