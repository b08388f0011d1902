"""HTTP door of storage: NAS volumes, and whom to grant access to objects."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from modelyard.resources.projects.access import Access, project_router
from modelyard.resources.projects.model import Caller
from modelyard.resources.storages.schemas import (
    NasVolumeCreate,
    NasVolumeList,
    NasVolumeOne,
    StorageAccountOne,
    StorageAccountOut,
)
from modelyard.resources.storages.service import Storages
from modelyard.web import whole
from modelyard.wire import Empty


def create_router(storages: Storages, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = project_router(access, "storages")

    @router.get("/storage-account")
    async def get_storage_account(caller: Caller = Depends(access)) -> StorageAccountOne:
        """The system account that users grant access to their containers, and the project's own object store."""
        return StorageAccountOne(
            storage_account=StorageAccountOut(
                tenant_id=caller.project.tenant_id,
                api_user_id=caller.project.api_user_id,
                object_store_url=storages.object_store_url(caller.project),
            )
        )

    @router.get("/nas-volumes")
    async def list_volumes(caller: Caller = Depends(access)) -> NasVolumeList:
        """All NAS volumes of the project."""
        items = await storages.list_volumes(caller)
        return NasVolumeList(nas_volume_list=items, paging=whole(len(items)))

    @router.post("/nas-volumes")
    async def create_volume(body: NasVolumeCreate, caller: Caller = Depends(access)) -> NasVolumeOne:
        """A new, empty NAS volume."""
        return NasVolumeOne(nas_volume=await storages.create_volume(caller, body))

    @router.get("/nas-volumes/{volume_id}")
    async def get_volume(volume_id: str, caller: Caller = Depends(access)) -> NasVolumeOne:
        """One NAS volume."""
        return NasVolumeOne(nas_volume=await storages.get_volume(caller, volume_id))

    @router.delete("/nas-volumes/{volume_id}")
    async def delete_volume(volume_id: str, caller: Caller = Depends(access)) -> Empty:
        """Delete an empty NAS volume."""
        await storages.delete_volume(caller, volume_id)
        return Empty()

    return router
