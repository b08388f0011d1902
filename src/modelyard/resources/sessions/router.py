"""HTTP door of sign-ins (for admins) and of one-time codes (for whoever may use the project)."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from modelyard.kit.paging import PageRequest
from modelyard.resources.projects.access import Access, credential_of, project_router
from modelyard.resources.projects.errors import NoCredential
from modelyard.resources.projects.model import Caller
from modelyard.resources.sessions.access import Visits
from modelyard.resources.sessions.origins import Origins
from modelyard.resources.sessions.schemas import (
    AccessCodeCreate,
    AccessCodeOne,
    AccessCodeOut,
    SessionList,
    SessionOut,
)
from modelyard.resources.sessions.service import Sessions
from modelyard.resources.users.model import User
from modelyard.web import WireRoute, page_request, paging_of
from modelyard.wire import Empty


def create_router(visits: Visits, origins: Origins, access: Access, *, enter: str) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`. `enter` is the path where codes are taken."""
    router = project_router(access, "sessions")

    @router.post("/access-codes")
    async def create_access_code(body: AccessCodeCreate, caller: Caller = Depends(access)) -> AccessCodeOne:
        """An address that lets one browser into a notebook or a TensorBoard, once, within a minute."""
        code, expires_at = await visits.code_for_caller(caller, body.kind, body.id, body.path)
        url = origins.url(body.kind, body.id, f"{enter}?code={code}")
        return AccessCodeOne(access_code=AccessCodeOut(url=url, expires_datetime=expires_at))

    return router


def create_admin_router(sessions: Sessions) -> APIRouter:
    """Routes below `/v1.0`, for the platform's admins."""

    async def admin(request: Request) -> User:
        token = credential_of(request.headers)
        if token is None:
            raise NoCredential
        return await sessions.require_admin(token)

    router = APIRouter(prefix="/v1.0", route_class=WireRoute, tags=["sessions"], dependencies=[Depends(admin)])

    @router.get("/sessions")
    async def list_sessions(page: PageRequest = Depends(page_request)) -> SessionList:
        """Where people are signed in, newest first. For admins, by an access token of their own (`POST /oauth2/token/create`)."""
        found = await sessions.list(page)
        return SessionList(session_list=[SessionOut.of(item) for item in found.items], paging=paging_of(found))

    @router.delete("/sessions/{session_id}")
    async def revoke_session(session_id: str) -> Empty:
        """End a sign-in; what its browser has open ends within ten seconds."""
        await sessions.revoke(session_id)
        return Empty()

    return router
