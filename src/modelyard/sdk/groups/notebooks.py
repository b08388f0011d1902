"""Notebooks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from modelyard.resources.notebooks.schemas import (
    NotebookChange,
    NotebookCreate,
    NotebookList,
    NotebookOne,
    NotebookOut,
    NotebookResize,
    NotebookStart,
    NotebookUsage,
    UsageOne,
)
from modelyard.resources.sessions.schemas import AccessCodeCreate, AccessCodeOne, AccessCodeOut
from modelyard.sdk.api import Api, checked
from modelyard.sdk.groups.catalogue import AsyncFlavors, AsyncImages
from modelyard.sdk.groups.resource import Kind, LongLived, one_or_many, tag_list

NOTEBOOKS = Kind(
    word="notebook",
    path="/notebooks",
    one=NotebookOne,
    many=NotebookList,
    item=lambda answer: answer.notebook,
    items=lambda answer: (answer.notebook_list, answer.paging.total_count),
    state=lambda notebook: notebook.notebook_status_code,
    name_filter="notebookNameList",
    wanted="ACTIVE_HEALTHY",
)
_KIND = "notebook"


class AsyncNotebooks(LongLived[NotebookOne, NotebookList, NotebookOut]):
    """`client.notebooks`."""

    def __init__(self, api: Api, images: AsyncImages, flavors: AsyncFlavors) -> None:
        super().__init__(api, NOTEBOOKS)
        self._images = images
        self._flavors = flavors

    async def create(
        self,
        name: str,
        *,
        image: str,
        flavor: str,
        boot_storage_size: int,
        data_storage_size: int,
        nas: Mapping[str, str] | None = None,
        idle_stop_minutes: int | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> NotebookOut:
        """Create a notebook; it starts by itself.

        `image` and `flavor` are names or ids. Sizes are in GB, in steps of 10: boot storage is fresh at each start, data storage stays. `nas`
        maps directory names (below `/root/nas`) to `nas://{volume}:/{path}`. Raises `BadRequest` with a fault for each wrong field.
        """
        fields = {
            "notebookName": name,
            "description": description,
            "tagList": tag_list(tags),
            "imageId": await self._images.id_of(image),
            "flavorId": await self._flavors.id_of(flavor),
            "bootStorageSize": boot_storage_size,
            "dataStorageSize": data_storage_size,
            "nasMountList": [
                {"mountDirectoryName": directory, "nasUri": uri} for directory, uri in (nas or {}).items()
            ],
            "idleStopMinutes": idle_stop_minutes,
        }
        return await self._create(NotebookCreate, fields, idempotency_key)

    async def list(
        self,
        *,
        name: str | Sequence[str] | None = None,
        state: str | Sequence[str] | None = None,
        page: int = 1,
        limit: int | None = None,
    ) -> Sequence[NotebookOut]:
        """Notebooks, newest first; all of them, or `limit` of them a page."""
        items, _ = await self._page(_filters(name, state), page, limit)
        return items

    async def iterate(
        self, *, name: str | Sequence[str] | None = None, state: str | Sequence[str] | None = None
    ) -> AsyncIterator[NotebookOut]:
        """All notebooks, fetched page by page."""
        async for notebook in self._each(_filters(name, state)):
            yield notebook

    async def update(
        self,
        key: str,
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        idle_stop_minutes: int | None = None,
    ) -> NotebookOut:
        """Change what is given; the rest stays. `idle_stop_minutes` holds at once; 0 switches the stop off."""
        fields = {
            "notebookName": name,
            "description": description,
            "tagList": tag_list(tags),
            "idleStopMinutes": idle_stop_minutes,
        }
        return await self._change(key, NotebookChange, fields)

    async def stop(self, key: str, *, wait: bool = False, timeout_seconds: float | None = None) -> NotebookOut:
        """Stop a notebook. Its data storage stays; its boot storage does not. With `wait`, come back when it is stopped."""
        id = await self.id_of(key)
        stopping = (await self._api.ask(NotebookOne, "PUT", self._at(id, "/stop"))).notebook
        if not wait:
            return stopping
        return await self._wait(id, lambda notebook: notebook.notebook_status_code == "STOPPED", timeout_seconds)

    async def start(self, key: str, *, skips_scripts: bool = False) -> NotebookOut:
        """Start a stopped notebook, without its start-up scripts if asked: for when one of them breaks the start."""
        body = checked(NotebookStart, {"skipsScripts": skips_scripts})
        answer = await self._api.ask(NotebookOne, "PUT", self._at(await self.id_of(key), "/start"), body=body)
        return answer.notebook

    async def resize(self, key: str, flavor: str) -> NotebookOut:
        """Give a stopped notebook another instance type of the same core type."""
        body = checked(NotebookResize, {"flavorId": await self._flavors.id_of(flavor)})
        answer = await self._api.ask(NotebookOne, "PUT", self._at(await self.id_of(key), "/resize"), body=body)
        return answer.notebook

    async def usage(self, key: str) -> NotebookUsage:
        """What a running notebook takes now."""
        return (await self._api.ask(UsageOne, "GET", self._at(await self.id_of(key), "/usage"))).usage

    async def open(self, key: str, path: str = "/lab") -> AccessCodeOut:
        """An address that lets one browser in, once, within a minute. It is a secret until then."""
        body = checked(AccessCodeCreate, {"kind": _KIND, "id": await self.id_of(key), "path": path})
        return (await self._api.ask(AccessCodeOne, "POST", "/access-codes", body=body)).access_code

    def logs(self, key: str, *, offset: int = 0, follow: bool = False) -> AsyncIterator[str]:
        """The output of the newest start from byte `offset` on, in pieces of text; with `follow`, until it has ended."""
        return self._output(key, 0, offset, follow)


def _filters(
    name: str | Sequence[str] | None, state: str | Sequence[str] | None
) -> dict[str, str | Sequence[str] | None]:
    return {"notebookNameList": one_or_many(name), "notebookStatusCodeList": one_or_many(state)}
