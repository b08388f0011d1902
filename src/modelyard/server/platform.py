"""A running server: starts everything in order, and lets go of it in two ways.

*Detaching* (a restart, an upgrade, a crash) leaves the gateway and all workloads running; the next server adopts them. *Shutting down*
(`modelyard down`) ends them: first the loops, so that nothing is started again, then workloads, which may still save their work through the front
door, then the door itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError

from modelyard.compute.backends.local.caches import Bounds
from modelyard.compute.backends.local.gpus import find_gpus
from modelyard.control.controller import Controller
from modelyard.control.work import WorkQueue, enqueue
from modelyard.db.engine import Database, sqlite_url
from modelyard.db.fitness import check_schema
from modelyard.db.migrate import upgrade
from modelyard.gateway.port import Route, Rule, Target, Upstream
from modelyard.kit.clock import utc_now
from modelyard.resources.logs.shipper import Shipper, ShippingLoop
from modelyard.resources.metrics.collector import Collector
from modelyard.resources.notebooks.spare_reconciler import POOL, SPARES_KIND
from modelyard.resources.routes.observer import RouteObserver
from modelyard.resources.routes.service import KIND as ROUTE_KIND
from modelyard.resources.sessions.observer import VisitObserver
from modelyard.resources.usage.recorder import Recorder
from modelyard.resources.workloads.observer import WorkloadObserver
from modelyard.resources.workloads.service import KIND as WORKLOAD_KIND
from modelyard.resources.workloads.service import Workloads, environments_needed
from modelyard.resources.workloads.sweeper import OrphanSweeper
from modelyard.server.app import create_app
from modelyard.server.backends import Backends, make_backends, renew_certificates
from modelyard.server.doors.guard import Guard
from modelyard.server.first_project import ensure_first_project
from modelyard.server.home import Home
from modelyard.server.schema import all_metadata
from modelyard.server.services import Services, is_project_of, make_reconcilers, make_services
from modelyard.server.settings import Settings

log = logging.getLogger(__name__)

_KEEP_ALIVE_SECONDS = 3600  # longer than the gateway's own, so that it never writes into a connection that is closing
_HOUSEKEEPING_SECONDS = 60.0
_CACHES_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Seat:
    """Which of how many servers this one is. All share the work of the control loop and of the API; the first one alone holds what there
    is one of: the gateway, the writing end of the logs, the observer of workloads."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the server that holds the gateway and the logs."""
        return self.index == 0


class DatabaseUnusable(Exception):
    """The database can't be had, for now."""

    def __init__(self, url: str, cause: OSError | DBAPIError) -> None:
        reason = cause.orig if isinstance(cause, DBAPIError) else cause
        super().__init__(f"the database {url} can't be used: {reason}")


class Platform:
    """One server process and what it holds."""

    def __init__(self, home: Home, settings: Settings, seat: Seat | None = None) -> None:
        self._home = home
        self._settings = settings
        self._seat = seat or Seat()
        self._database = Database(settings.database_url or sqlite_url(home.database_file))
        self._backends: Backends | None = None
        self._services: Services | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._http: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []
        self._preparing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start everything; returns when requests are answered. Raises the errors of whatever can't be had."""
        try:
            await upgrade(self._database)
            await check_schema(self._database, all_metadata())
        except (OSError, DBAPIError) as error:
            raise DatabaseUnusable(self._database.url.render_as_string(hide_password=True), error) from error
        backends = make_backends(
            self._home,
            self._settings,
            self._database,
            is_log_reader=not self._seat.is_first,
            server_count=self._seat.count,
        )
        self._backends = backends
        has_gpu = bool(find_gpus())
        services = self._services = make_services(self._home, self._settings, self._database, backends, has_gpu=has_gpu)
        self._preparing = asyncio.create_task(_prepare_compute(backends))
        if self._seat.is_first:
            await ensure_first_project(self._home, services.users, services.projects)
        await backends.logs.open()
        if self._seat.is_first:
            # Envoy gets ready while the API's routes are built.
            await asyncio.gather(backends.gateway.start(), self._serve(backends, services))
            await backends.gateway.put_route(_own_route(self._home, self._seat.count))
            await self._resync()
        else:
            await self._serve(backends, services)
        self._start_loops(backends, services)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, or a loop that must not end has ended."""
        waiting = asyncio.create_task(stop.wait())
        watched: set[asyncio.Task[Any]] = {waiting, *self._loops, *(serving for _, serving in self._http)}
        done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        for task in done - {waiting}:
            if task.cancelled() or task.exception() is None:
                raise RuntimeError(f"{task.get_name()} has ended by itself")
            raise RuntimeError(f"{task.get_name()} has failed") from task.exception()

    async def detach(self) -> None:
        """Let go: workloads and the gateway go on."""
        await self._stop_loops()
        if self._backends is not None:
            await self._backends.gateway.detach()
            await self._close(self._backends)

    async def shut_down(self, deadline_seconds: float) -> None:
        """End everything; no process is left."""
        await self._stop_loops()
        if self._backends is not None:
            ended_count = await self._backends.compute.stop_all(deadline_seconds)
            log.info("Ended %d instances", ended_count)
            await self._backends.gateway.stop()
            if self._services is not None:
                await asyncio.to_thread(self._services.waiting_room.close)
            for server, _ in self._http:  # side by side: behind the closed door nobody is on the way
                server.should_exit = True
            await self._close(self._backends)

    async def _serve(self, backends: Backends, services: Services) -> None:
        guard = Guard(services.visits, backends.origins)
        for application, socket in (
            (guard, self._home.guard_socket(self._seat.index)),
            (create_app(self._settings, services, backends), self._home.server_socket(self._seat.index)),
        ):
            await self._listen(application, socket)

    async def _listen(self, app: FastAPI | Guard, socket: Path) -> None:
        _remove(socket)
        config = uvicorn.Config(
            app,
            uds=str(socket),
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=10,
            proxy_headers=False,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(), name=f"the HTTP server on {socket.name}")
        self._http.append((server, serving))
        while not server.started:
            if serving.done():
                await serving
                raise RuntimeError("the HTTP server did not start")
            await asyncio.sleep(0.005)
        _keep_private(socket)

    async def _resync(self) -> None:
        """Have a look at everything that touches the outside: it may have changed while no server was there."""
        assert self._services is not None  # set in start
        live = await self._services.workloads.live()
        route_ids = await self._services.routes.all_ids(self._database)
        async with self._database.write() as session:
            for workload in live:
                await enqueue(session, WORKLOAD_KIND, workload.id)
            for route_id in route_ids:
                await enqueue(session, ROUTE_KIND, route_id)
            await enqueue(session, SPARES_KIND, POOL)  # maybe others are wanted than before

    def _start_loops(self, backends: Backends, services: Services) -> None:
        queue = WorkQueue(self._database, owner=_queue_owner(self._home, self._seat))
        reconcilers = make_reconcilers(self._home, self._settings, self._database, backends, services)
        if not self._seat.is_first:
            reconcilers = [reconciler for reconciler in reconcilers if reconciler.kind != ROUTE_KIND]
        controller = Controller(self._database, queue, reconcilers)
        self._loop("the controller", controller.run())
        if not self._seat.is_first:
            return
        observer = WorkloadObserver(self._database, backends.compute, services.workloads, controller.hint)
        shipper = Shipper(backends.logs, services.workloads.read_instance)
        shipping = ShippingLoop(shipper, services.workloads, services.projects)
        self._loop("the observer", observer.run())
        self._loop("the visit observer", VisitObserver(services.visits, services.sessions).run())
        sweeper = OrphanSweeper(self._database, backends.compute, is_project_of(services.projects))
        self._loop("the search for orphans", sweeper.run())
        self._loop("the route observer", RouteObserver(self._database, backends.gateway).run())
        self._loop("the statistics", services.statistics.run())
        self._loop("the autoscaler", services.autoscaler.run())
        self._loop("the log shipper", shipping.run())
        collector = Collector(self._database, services.metrics, services.workloads)
        self._loop("the collector of metrics", collector.run())
        # A view of workloads of its own: what has not changed since the last look is remembered for one looker.
        recorder = Recorder(services.usage, Workloads(self._database, backends.compute))
        self._loop("the recorder of use", recorder.run())
        self._loop("housekeeping", self._keep_house(backends, services))

    def _loop(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._loops.append(asyncio.create_task(work, name=name))

    async def _keep_house(self, backends: Backends, services: Services) -> None:
        """What has to be done now and then: drop old log lines, and blobs that nothing names."""
        caches_due_at = 0.0
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            try:
                await backends.logs.remove_before(utc_now() - timedelta(days=self._settings.logs.retention_days))
                await backends.objects.sweep()
                await services.snapshots.sweep()
                if monotonic() >= caches_due_at:
                    caches_due_at = monotonic() + _CACHES_SECONDS
                    await self._trim_caches(backends)
                # A certificate that ends soon is renewed; the gateway picks the new files up by itself.
                await asyncio.to_thread(renew_certificates, self._home, self._settings)
            except Exception:
                log.exception("Housekeeping failed; trying again in a minute")

    async def _trim_caches(self, backends: Backends) -> None:
        """Keep what can be made or fetched again within its bounds."""
        settings = self._settings.compute
        bounds = Bounds(
            environments_bytes=int(settings.environments_gib * 2**30), layers_bytes=int(settings.layers_gib * 2**30)
        )
        for item in await backends.compute.trim_caches(bounds, await environments_needed(self._database)):
            log.info("Removed from the caches, as it was not used for long: %s %s", item.title, item.name)

    async def _stop_loops(self) -> None:
        if self._preparing is not None:
            await self._preparing
        loops, self._loops = self._loops, []
        for task in reversed(loops):
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)

    async def _close(self, backends: Backends) -> None:
        for server, serving in reversed(self._http):  # the guard last: who is on the way is still let pass
            server.should_exit = True
            with suppress(Exception):
                await serving
        await backends.logs.close()
        for store in backends.closable:
            await store.close()
        backends.compute.close()
        await self._database.close()


def _remove(socket: Path) -> None:
    """What a server that was killed has left."""
    socket.unlink(missing_ok=True)


def _keep_private(socket: Path) -> None:
    socket.chmod(0o600)


async def _prepare_compute(backends: Backends) -> None:
    """Find out what the machine offers before the first launch has to."""
    try:
        isolation, notes = await backends.compute.prepare()
    except Exception:
        log.exception("The machine's isolation can't be tried; the first launch will say why")
        return
    log.info("Workloads are isolated as %s", isolation.value)
    for note in notes:
        log.warning("%s", note)


def _queue_owner(home: Home, seat: Seat) -> str:
    """The same for every server on this seat, so that the next one goes on at once with what a killed one held."""
    place = hashlib.sha256(f"{os.uname().nodename}:{home.root}".encode()).hexdigest()[:24]
    return f"{place}:{seat.index}"


def _own_route(home: Home, server_count: int) -> Route:
    """Everything that no other route takes goes to the servers; log lines to the one that writes them."""
    targets = tuple(Target(str(home.server_socket(index))) for index in range(server_count))
    return Route(
        id="platform",
        prefix="",
        rules=(
            Rule(path="/v2/log", upstreams=("first",)),
            Rule(path="/", upstreams=("servers",), is_prefix=True),
        ),
        upstreams=(Upstream("servers", targets), Upstream("first", targets[:1])),
        timeout_seconds=0.0,
        labels=(("owner", "platform"),),
    )
