"""The doors beside the REST API that the official client knocks at: the probe, and tokens for the object store and the API."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from modelyard.kit.errors import Fault, Invalid
from modelyard.objectstore.access import Principal
from modelyard.resources.projects.access import Access
from modelyard.resources.projects.errors import BadCredential, NoCredential
from modelyard.resources.projects.model import Caller, Project
from modelyard.resources.projects.service import Projects
from modelyard.resources.sessions.errors import SignInFailed
from modelyard.resources.sessions.service import Sessions
from modelyard.server.doors.sign_in import client_address
from modelyard.wire import Empty, Header

_STORE_TOKEN_LIFETIME = timedelta(hours=12)


def create_router(projects: Projects, sessions: Sessions, access: Access, *, object_store_base: str) -> APIRouter:
    """Routes at the root. Those that hand out tokens check a password or a token themselves; the probe tells nothing."""
    router = APIRouter(tags=["doors"])

    @router.get("/nhn-api-gateway")
    async def probe() -> Empty:
        """The official client asks this to learn whether the region exists."""
        return Empty()

    @router.post("/v2.0/tokens")
    async def keystone_token(request: Request) -> JSONResponse:
        """A token for the object store by tenant, user and password (OpenStack Identity API v2.0)."""
        auth = _mapping(_mapping(await _json(request)).get("auth"))
        password = _mapping(auth.get("passwordCredentials"))
        tenant_id, user = str(auth.get("tenantId") or ""), str(password.get("username") or "")
        login = await projects.store_login(tenant_id, user, str(password.get("password") or ""))
        if login is None:
            return JSONResponse(
                {"error": {"code": 401, "title": "Unauthorized", "message": "tenant, user or password is wrong"}}, 401
            )
        token, expires_at, project = login
        return JSONResponse({"access": _access(token, _zulu(expires_at), project, user, object_store_base)})

    @router.get("/token/v1.0/appkeys/{appkey}/groups/{group_id}/iaas-token")
    async def workload_object_token(group_id: str, caller: Caller = Depends(access)) -> JSONResponse:
        """A token for the object store: inside a workload as the project's system account, elsewhere as its user."""
        project = caller.project
        if caller.workload_id is not None:
            expires_at = (datetime.now(UTC) + _STORE_TOKEN_LIFETIME).replace(microsecond=0)
            token = projects.sign_workload(project, caller.workload_id, expires_at)
            user = project.api_user_id
        else:
            token, expires_at = projects.sign_store_user(project, _STORE_TOKEN_LIFETIME)
            user = project.store_user
        content: dict[str, Any] = {
            "header": Header().model_dump(by_alias=True),
            "access": _access(token, _with_offset(expires_at), caller.project, user, object_store_base),
        }
        return JSONResponse(content)

    @router.post("/oauth2/token/create")
    async def create_access_token(request: Request) -> JSONResponse:
        """An access token by user name and password (Basic authentication), valid for a day (RFC 6749, section 4.4)."""
        name, password = _basic(request.headers.get("authorization"))
        form = parse_qs((await request.body()).decode(errors="replace"))
        if form.get("grant_type", ["client_credentials"]) != ["client_credentials"]:
            raise Invalid([Fault("grant_type", "only client_credentials is known")])
        try:
            user = await sessions.check_password(name, password, client_address(request))
        except SignInFailed:
            raise BadCredential from None
        lifetime = timedelta(days=1)
        token, _ = await projects.issue_user_token(user.id, lifetime)
        return JSONResponse(
            {
                "header": Header().model_dump(by_alias=True),
                "grant_type": "client_credentials",
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": int(lifetime.total_seconds()),
            }
        )

    return router


class ObjectAccess:
    """Tells the object store's door who calls, by any token that the platform has given out."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    async def __call__(self, token: str | None) -> Principal | None:
        """The caller, or None for a token that is not ours, has expired, or whose workload has ended."""
        if not token:
            return None
        grant = await self._projects.grant_of(token)
        if grant is not None and grant.use == "object":
            return Principal(tenant_id=grant.tenant_id, user_id=grant.subject, project_id=grant.project_id)
        if grant is not None:
            project = await self._projects.get(grant.project_id)
            return None if project is None else _system(project)
        project = await self._projects.project_of_token(token)
        if project is None:
            return None
        return Principal(tenant_id=project.tenant_id, user_id=project.store_user, project_id=project.id)


def _system(project: Project) -> Principal:
    return Principal(
        tenant_id=project.tenant_id, user_id=project.api_user_id, project_id=project.id, is_system_account=True
    )


def _access(token: str, expires: str, project: Project, user: str, object_store_base: str) -> dict[str, Any]:
    url = f"{object_store_base}/v1/AUTH_{project.tenant_id}"
    return {
        "token": {
            "id": token,
            "expires": expires,
            "issued_at": _zulu(datetime.now(UTC)),
            "tenant": {"id": project.tenant_id, "name": project.name, "enabled": True},
        },
        "serviceCatalog": [
            {
                "type": "object-store",
                "name": "swift",
                "endpoints": [{"publicURL": url, "internalURL": url, "adminURL": url}],
                "endpoints_links": [],
            }
        ],
        "user": {"id": user, "name": user, "username": user, "roles": [], "roles_links": []},
    }


def _zulu(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _with_offset(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


async def _json(request: Request) -> Any:
    try:
        return await request.json()
    except (ValueError, RecursionError) as error:  # the latter: nested too deeply
        raise Invalid([Fault("body", f"is not JSON: {error}")]) from None


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _basic(header: str | None) -> tuple[str, str]:
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        raise NoCredential
    try:
        name, separator, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise BadCredential from None
    if not separator:
        raise BadCredential
    return name, password
