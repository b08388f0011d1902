"""Wire shapes of images."""

from __future__ import annotations

from modelyard.wire import Header, Paging, Wire


class ImageOut(Wire):
    """An image. `imageStatusCode` tells whether its environment is there: NOT_BUILT, BUILDING, READY or BUILD_FAILED."""

    id: str
    name: str
    image_id: str
    image_name: str
    image_type_code: str
    group_type_code: str
    group_type_code_list: list[str]
    core_type_code: str
    framework_code: str
    framework_version: str
    python_version: str
    description: str | None = None
    is_default: bool = False
    image_status_code: str
    status_message: str | None = None
    size_bytes: int | None = None


class ImageList(Wire):
    """`GET /images`."""

    header: Header = Header()
    image_list: list[ImageOut]
    paging: Paging


class ImageOne(Wire):
    """`GET /images/{id}` and `POST /images/{id}/build`."""

    header: Header = Header()
    image: ImageOut
