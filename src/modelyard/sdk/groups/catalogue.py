"""The catalogues: instance types and images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modelyard.resources.flavors.schemas import FlavorList, FlavorOut
from modelyard.resources.images.schemas import ImageList, ImageOne, ImageOut
from modelyard.sdk.api import Api
from modelyard.sdk.groups.resource import Kind, Resources, one_or_many
from modelyard.wire import Wire

IMAGES = Kind(
    word="image",
    path="/images",
    one=ImageOne,
    many=ImageList,
    item=lambda answer: answer.image,
    items=lambda answer: (answer.image_list, answer.paging.total_count),
    state=lambda image: image.image_status_code,
    wanted="READY",
)


class _FlavorOne(Wire):
    """Flavors are only listed; the shape stands where the other kinds have that of one resource."""

    flavor: FlavorOut


FLAVORS = Kind(
    word="flavor",
    path="/flavors",
    one=_FlavorOne,
    many=FlavorList,
    item=lambda answer: answer.flavor,
    items=lambda answer: (answer.flavor_list, answer.paging.total_count),
    state=lambda _: "ACTIVE",
)


class AsyncImages:
    """`client.images`."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._images = Resources(api, IMAGES)

    async def list(self, *, group: str | Sequence[str] | None = None) -> Sequence[ImageOut]:
        """All images, or those for `group` (TRAINING, NOTEBOOK …)."""
        answer = await self._api.ask(ImageList, "GET", "/images", params={"groupTypeCodeList": one_or_many(group)})
        return answer.image_list

    async def get(self, key: str) -> ImageOut:
        """One image, by its id or its name. Raises `NotFound` or `UnknownName`."""
        return await self._images.get(key)

    async def id_of(self, key: str) -> str:
        """The id of an image given by id or name."""
        return await self._images.id_of(key)

    async def build(self, key: str) -> ImageOut:
        """Start building an image's environment, where it isn't there yet."""
        id = await self.id_of(key)
        return (await self._api.ask(ImageOne, "POST", f"/images/{id}/build")).image

    async def wait(
        self,
        key: str,
        *,
        timeout_seconds: float | None = None,
        progress: Callable[[ImageOut], object] | None = None,
    ) -> ImageOut:
        """Wait until an image's environment is READY; see `trainings.wait`."""
        return await self._images.wait(key, timeout_seconds=timeout_seconds, progress=progress)


class AsyncFlavors:
    """`client.flavors`."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._flavors = Resources(api, FLAVORS)

    async def list(self) -> Sequence[FlavorOut]:
        """All instance types."""
        return (await self._api.ask(FlavorList, "GET", "/flavors")).flavor_list

    async def get(self, key: str) -> FlavorOut:
        """One instance type, by its id or its name. Raises `UnknownName`."""
        for flavor in await self.list():
            if flavor.id == key:
                return flavor
        return await self._flavors.find(key)

    async def id_of(self, key: str) -> str:
        """The id of an instance type given by id or name. Raises `UnknownName`."""
        return (await self.get(key)).id
