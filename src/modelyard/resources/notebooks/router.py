"""HTTP door of notebooks."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Query, Request

from modelyard.kit.paging import PageRequest
from modelyard.resources.logs.output import events_out, follow, output_out
from modelyard.resources.logs.schemas import EventList, OutputOne
from modelyard.resources.notebooks.repository import NotebookFilter
from modelyard.resources.notebooks.schemas import (
    NotebookChange,
    NotebookCreate,
    NotebookList,
    NotebookOne,
    NotebookResize,
    NotebookStart,
    UsageOne,
)
from modelyard.resources.notebooks.service import Notebooks
from modelyard.resources.projects.access import Access, project_router
from modelyard.resources.projects.model import Caller
from modelyard.web import listed, page_request, paging_of
from modelyard.wire import Empty


def create_router(notebooks: Notebooks, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = project_router(access, "notebooks")

    @router.get("/notebooks")
    async def list_notebooks(
        request: Request, caller: Caller = Depends(access), page: PageRequest = Depends(page_request)
    ) -> NotebookList:
        """Notebooks, newest first; ids, names and states (`…List`) choose."""
        wanted = NotebookFilter(
            ids=listed(request, "notebookIdList"),
            names=listed(request, "notebookNameList"),
            states=listed(request, "notebookStatusCodeList"),
        )
        found = await notebooks.list(caller, wanted, page)
        return NotebookList(notebook_list=list(found.items), paging=paging_of(found))

    @router.post("/notebooks")
    async def create_notebook(body: NotebookCreate, caller: Caller = Depends(access)) -> NotebookOne:
        """A new notebook. Image, instance type, sizes and NAS paths are checked before anything is stored."""
        return NotebookOne(notebook=await notebooks.create(caller, body))

    @router.get("/notebooks/{notebook_id}")
    async def get_notebook(notebook_id: str, caller: Caller = Depends(access)) -> NotebookOne:
        """One notebook."""
        return NotebookOne(notebook=await notebooks.get(caller, notebook_id))

    @router.put("/notebooks/{notebook_id}")
    async def change_notebook(notebook_id: str, body: NotebookChange, caller: Caller = Depends(access)) -> NotebookOne:
        """Change name, description, tags or the idle stop."""
        return NotebookOne(notebook=await notebooks.change(caller, notebook_id, body))

    @router.put("/notebooks/{notebook_id}/stop")
    async def stop_notebook(notebook_id: str, caller: Caller = Depends(access)) -> NotebookOne:
        """Ask for a stop. Data storage stays; boot storage does not."""
        return NotebookOne(notebook=await notebooks.stop(caller, notebook_id))

    @router.put("/notebooks/{notebook_id}/start")
    async def start_notebook(
        notebook_id: str, body: NotebookStart | None = None, caller: Caller = Depends(access)
    ) -> NotebookOne:
        """Start a stopped notebook, with its data storage and fresh boot storage."""
        skips_scripts = body is not None and body.skips_scripts
        return NotebookOne(notebook=await notebooks.start(caller, notebook_id, skips_scripts=skips_scripts))

    @router.put("/notebooks/{notebook_id}/resize")
    async def resize_notebook(notebook_id: str, body: NotebookResize, caller: Caller = Depends(access)) -> NotebookOne:
        """Change the instance type of a stopped notebook, within its core type."""
        return NotebookOne(notebook=await notebooks.resize(caller, notebook_id, body))

    @router.delete("/notebooks/{notebook_id}")
    async def delete_notebook(notebook_id: str, caller: Caller = Depends(access)) -> Empty:
        """Delete a notebook with boot and data storage. NAS content stays."""
        await notebooks.delete(caller, notebook_id)
        return Empty()

    @router.get("/notebooks/{notebook_id}/usage")
    async def read_notebook_usage(notebook_id: str, caller: Caller = Depends(access)) -> UsageOne:
        """What a running notebook takes now: CPU, memory, storage, and when it was last used."""
        return UsageOne(usage=await notebooks.usage(caller, notebook_id))

    @router.get("/notebooks/{notebook_id}/logs")
    async def read_notebook_logs(
        notebook_id: str,
        offset: int = Query(default=0, ge=0),
        limit_bytes: int = Query(default=65536, ge=1, le=1048576, alias="limitBytes"),
        wait_seconds: float = Query(default=0.0, ge=0.0, le=20.0, alias="waitSeconds"),
        caller: Caller = Depends(access),
    ) -> OutputOne:
        """What the newest start has printed, from `offset` on. With `waitSeconds` the answer waits for something new."""
        chunk = await follow(lambda: notebooks.read_output(caller, notebook_id, offset, limit_bytes), wait_seconds)
        return OutputOne(output=output_out(chunk))

    @router.get("/notebooks/{notebook_id}/events")
    async def list_notebook_events(notebook_id: str, caller: Caller = Depends(access)) -> EventList:
        """What has happened to a notebook, oldest first."""
        return EventList(event_list=events_out(await notebooks.events(caller, notebook_id)))

    return router
