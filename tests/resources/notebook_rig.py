"""Notebooks on a control loop that is stepped by hand, over a compute and a gateway that are all in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from modelyard.compute.port import Capacity, Environment
from modelyard.control.reconciler import Again, Reconciler
from modelyard.control.work import Finished, Lease, WorkQueue
from modelyard.db.engine import Database
from modelyard.db.migrate import upgrade
from modelyard.kit.errors import RetryLater
from modelyard.kit.paging import PageRequest
from modelyard.objectstore.hosts import StoreHosts
from modelyard.resources.flavors.service import Flavors
from modelyard.resources.images.service import Images
from modelyard.resources.notebooks.instances import NotebookSite
from modelyard.resources.notebooks.model import SpareSettings
from modelyard.resources.notebooks.reconciler import NotebookReconciler
from modelyard.resources.notebooks.repository import NotebookFilter
from modelyard.resources.notebooks.schemas import NotebookCreate, NotebookOut
from modelyard.resources.notebooks.service import Notebooks
from modelyard.resources.notebooks.spare_reconciler import SpareReconciler
from modelyard.resources.projects.model import Caller, TokenKind
from modelyard.resources.projects.service import Projects, new_project_keys
from modelyard.resources.projects.tokens import TokenSigner
from modelyard.resources.routes.reconciler import RouteReconciler
from modelyard.resources.routes.service import Routes
from modelyard.resources.sessions.origins import Origins
from modelyard.resources.storages.service import Storages
from modelyard.resources.workloads import probe
from modelyard.resources.workloads.observer import WorkloadObserver
from modelyard.resources.workloads.reconciler import WorkloadReconciler
from modelyard.resources.workloads.service import Workloads
from modelyard.resources.workloads.volumes import VolumeReconciler
from modelyard.server import schema
from modelyard.testing.clock import ShiftedClock
from modelyard.testing.compute import FakeCompute
from modelyard.testing.gateway import FakeGateway

HTTP, HTTPS = "http://127.0.0.1:1", "https://127.0.0.1:2"


class Rig:
    """Notebooks over fakes. `answers` says whether Jupyter does."""

    def __init__(self, database: Database, directory: Path, spares: SpareSettings, capacity: Capacity | None) -> None:
        self.clock = ShiftedClock()
        self.compute = FakeCompute(capacity, clock=self.clock)
        self.gateway = FakeGateway()
        self.database = database
        self.answers: Callable[[], bool] = lambda: True
        self.has_image = True
        origins = Origins(HTTP, HTTPS)
        self.projects = Projects(database, TokenSigner(b"k" * 32))
        images = Images(database, directory / "none.yaml", self._is_present)
        flavors = Flavors(directory / "none-flavors.yaml")
        storages = Storages(database, StoreHosts(None, frozenset(), {}), door_url=HTTP, volumes_root=directory)  # type: ignore[arg-type]
        self.workloads = Workloads(database, self.compute)
        routes = Routes(self.gateway)
        self.notebooks = Notebooks(database, images, flavors, storages, self.workloads, origins, self.clock, spares)
        reconcilers: list[Reconciler] = [
            WorkloadReconciler(database, self.compute, self._token, clock=self.clock),
            VolumeReconciler(self.compute),
            RouteReconciler(database, self.gateway),
            NotebookReconciler(
                database, self.projects, images, flavors, storages, self.workloads, routes,
                NotebookSite("kr1", origins), self.clock,
            ),
        ]  # fmt: skip

        def spare_reconciler(settings: SpareSettings, region: str = "kr1") -> SpareReconciler:
            site = NotebookSite(region, origins)
            return SpareReconciler(database, self.projects, images, flavors, self.workloads, site, settings, self.clock)

        self.spare_reconciler = spare_reconciler
        reconcilers.append(spare_reconciler(spares))
        self.reconcilers = {each.kind: each for each in reconcilers}
        self.queue = WorkQueue(database, "test", clock=self.clock)
        self.observer = WorkloadObserver(database, self.compute, self.workloads)
        self.caller: Caller

    async def make(self, **changes: Any) -> str:
        """A notebook; its id."""
        request = {
            "notebookName": "first", "imageId": "Ubuntu 22.04 CPU Python Notebook", "flavorId": "m2.c1m2",
            "bootStorageSize": 10, "dataStorageSize": 20,
        } | changes  # fmt: skip
        return (await self.notebooks.create(self.caller, NotebookCreate.model_validate(request))).notebook_id

    async def get(self, notebook_id: str) -> NotebookOut:
        return await self.notebooks.get(self.caller, notebook_id)

    async def state(self, notebook_id: str) -> str:
        return (await self.get(notebook_id)).notebook_status_code

    async def count(self) -> int:
        return (await self.notebooks.list(self.caller, NotebookFilter(), PageRequest(1, None))).total_count

    async def settle(self) -> None:
        """Do all that is due now."""
        for _ in range(300):
            with suppress(RetryLater):
                await self.observer.look(await self.workloads.live())
            items = await self.queue.claim(list(self.reconcilers), 20)
            if not items:
                return
            for item in items:
                await self.queue.claim((), 0, finished=[await self.reconcile(item)])
        raise AssertionError("the loop does not settle")

    async def until(self, notebook_id: str, state: str) -> None:
        """Let time pass until it is in this state."""
        for _ in range(60):
            await self.settle()
            if await self.state(notebook_id) == state:
                return
            self.clock.advance(1.0)
        raise AssertionError(f"{await self.get(notebook_id)}")

    async def reconcile(self, item: Any) -> Finished:
        try:
            outcome = await self.reconcilers[item.kind].reconcile(item.key, Lease(item))
        except RetryLater as later:
            return Finished(item, 0.5, str(later))
        return Finished(item, outcome.after_seconds if isinstance(outcome, Again) else None)

    def _is_present(self, _environment: Environment) -> bool:
        return self.has_image

    async def _token(self, _workload: Any) -> str:
        return "token"


@asynccontextmanager
async def rig_on(
    database_url: str,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    spares: SpareSettings | None = None,
    capacity: Capacity | None = None,
) -> AsyncIterator[Rig]:
    """Notebooks of an empty platform; Jupyter answers as `Rig.answers` says."""
    schema.all_metadata()
    database = Database(database_url)
    await upgrade(database)
    made = Rig(database, directory, spares or SpareSettings(), capacity)
    project = await made.projects.ensure("default", new_project_keys())
    made.caller = Caller(project, "user:test", TokenKind.ACCESS)

    async def is_ready(_socket: str, path: str, **_: Any) -> bool:
        assert path == "/api"
        return made.answers()

    monkeypatch.setattr(probe, "is_ready", is_ready)
    try:
        yield made
    finally:
        await database.close()
