"""HTTP door of images."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from modelyard.kit.errors import NotFound
from modelyard.resources.images.schemas import ImageList, ImageOne
from modelyard.resources.images.service import Images
from modelyard.resources.projects.access import Access, project_router
from modelyard.resources.projects.model import Caller
from modelyard.web import listed, whole


def create_router(images: Images, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = project_router(access, "images")

    @router.get("/images")
    async def list_images(request: Request) -> ImageList:
        """All images, or those of the groups in `groupTypeCodeList`."""
        groups = set(listed(request, "groupTypeCodeList"))
        items = [image for image in await images.show() if not groups or groups & set(image.group_type_code_list)]
        return ImageList(image_list=items, paging=whole(len(items)))

    @router.get("/images/{image_id}")
    async def get_image(image_id: str) -> ImageOne:
        """One image, by id or name."""
        image = images.find(image_id)
        if image is None:
            raise NotFound("image", image_id)
        return ImageOne(image=(await images.show((image,)))[0])

    @router.post("/images/{image_id}/build")
    async def build_image(image_id: str, caller: Caller = Depends(access)) -> ImageOne:
        """Have the image's environment built now instead of at its first use."""
        return ImageOne(image=await images.build(image_id, actor=caller.actor))

    return router
