"""Who calls: the dependency that every route of the REST API stands behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from fastapi import APIRouter, Depends, Request

from modelyard.kit.errors import Fault, Invalid
from modelyard.kit.ids import MAX_IDEMPOTENCY_KEY_CHARACTERS, IdempotencyKey
from modelyard.resources.projects.model import Caller
from modelyard.resources.projects.service import Projects
from modelyard.web import WireRoute

PROJECT_PATH = "/v1.0/appkeys/{appkey}"
Access = Callable[[Request, str], Awaitable[Caller]]
"""Answers who calls on the project of the path's app key, or refuses. A router can't be made without one."""


def project_router(access: Access, *tags: str) -> APIRouter:
    """An empty router for paths below a project's; all of it stands behind `access`.

    Its routes know their whole path, so that the application takes them as they are: a router that is included in another builds each of
    its routes once more, and looks for the right one once more with each request.
    """
    return APIRouter(prefix=PROJECT_PATH, route_class=WireRoute, tags=[*tags], dependencies=[Depends(access)])


def project_access(projects: Projects) -> Access:
    """The dependency: reads the credential in any of its three forms (sdk-contract §3) and checks it against the path's app key."""

    async def _access(request: Request, appkey: str) -> Caller:
        caller = await projects.authenticate(appkey, token=credential_of(request.headers))
        key = request.headers.get("idempotency-key")
        if key is None or request.method != "POST":
            return caller
        if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY_CHARACTERS:
            limit = MAX_IDEMPOTENCY_KEY_CHARACTERS
            raise Invalid([Fault("Idempotency-Key", f"must have 1 to {limit} characters")])
        return replace(caller, idempotency_key=IdempotencyKey.of(key, request.url.path, await request.body()))

    return _access


def credential_of(headers: Mapping[str, str]) -> str | None:
    """The credential of a request in any of the forms that clients send it in; inside workloads `X-EasyMaker-Token` stands for all others."""
    token = headers.get("x-easymaker-token") or _bearer(headers.get("x-nhn-authorization"))
    return token or headers.get("x-secret-key") or _bearer(headers.get("authorization"))


def _bearer(header: str | None) -> str | None:
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
