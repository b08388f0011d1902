"""HTTP door of a project's members."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from modelyard.kit.paging import PageRequest
from modelyard.resources.members.schemas import MemberCreate, MemberList, MemberOne
from modelyard.resources.members.service import Members
from modelyard.resources.projects.access import Access, project_router
from modelyard.resources.projects.model import Caller
from modelyard.web import page_request, paging_of
from modelyard.wire import Empty


def create_router(members: Members, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`. All are for the project's owners and for admins, by an access token of their own."""
    router = project_router(access, "members")

    @router.get("/members")
    async def list_members(page: PageRequest = Depends(page_request), caller: Caller = Depends(access)) -> MemberList:
        """Who may use the project."""
        found = await members.list(caller, page)
        return MemberList(member_list=list(found.items), paging=paging_of(found))

    @router.post("/members")
    async def add_member(body: MemberCreate, caller: Caller = Depends(access)) -> MemberOne:
        """Make a user a member, or change a member's role. With `password` an admin adds the user to the platform, too."""
        return MemberOne(member=await members.add(caller, body))

    @router.delete("/members/{user_id}")
    async def remove_member(user_id: str, caller: Caller = Depends(access)) -> Empty:
        """Make a user a member no more. What they have open in browsers ends within seconds."""
        await members.remove(caller, user_id)
        return Empty()

    return router
