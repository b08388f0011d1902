"""HTTP door of instance types."""

from __future__ import annotations

from fastapi import APIRouter

from modelyard.resources.flavors.schemas import FlavorList
from modelyard.resources.flavors.service import Flavors, flavor_out
from modelyard.resources.projects.access import Access, project_router
from modelyard.web import whole


def create_router(flavors: Flavors, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = project_router(access, "flavors")

    @router.get("/flavors")
    async def list_flavors() -> FlavorList:
        """All instance types, complete: clients look names up in this list before every create."""
        items = [flavor_out(flavor) for flavor in flavors.list()]
        return FlavorList(flavor_list=items, paging=whole(len(items)))

    return router
