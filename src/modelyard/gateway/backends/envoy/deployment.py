"""The routes that are wanted, the files that say so to Envoy, and Envoy's word that it serves them.

A change is made before the old is broken: new upstreams first, confirmed; then the routes, confirmed by every worker; upstreams that no route
names any more are removed later, when the last requests to them are over. A configuration that Envoy refuses is taken out of the
files again, or Envoy would start without any routes next time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from modelyard.gateway.backends.envoy.admin import Admin, AdminUnreachable
from modelyard.gateway.backends.envoy.compiled import CompiledRoute, compile_route, guard_cluster
from modelyard.gateway.backends.envoy.files import identity, replace_file
from modelyard.gateway.backends.envoy.probe import ProbeFailed, VersionProbe
from modelyard.gateway.backends.envoy.routes import check_places, discovery_resource, observed_routes, route_resource
from modelyard.gateway.backends.envoy.saved import saved_routes
from modelyard.gateway.backends.envoy.settings import EnvoySettings
from modelyard.gateway.backends.envoy.tunnel import tunnel_matchers
from modelyard.gateway.port import GatewayRefused, ObservedRoute, Route
from modelyard.kit.errors import RetryLater

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.001
_SLOWEST_POLL_SECONDS = 0.05
_NAMED_CLUSTERS = 2  # above this many new upstreams Envoy is asked for its version: it takes no long patterns
_REFUSAL = re.compile(r"Filesystem config update (?:rejected|failure): (.*?)(?=^\[\d{4}-|\Z)", re.DOTALL | re.MULTILINE)
_ROUTE_COUNTERS = r"^http\.[a-z]+\.rds\.front_door\.(config_reload|config_reload_time_ms|update_success|version_text)$"


class Deployment:
    """Routes on their way to Envoy. Its methods are not to be called at the same time, except `observed`."""

    def __init__(self, settings: EnvoySettings, admin: Admin) -> None:
        self._settings = settings
        self._files = settings.files
        self._admin = admin
        self._probe = VersionProbe(self._files.probe_socket, settings.workers)
        self._routes: dict[str, CompiledRoute] = {}
        self._fixed = guard_cluster(settings.guards)
        self._clusters: dict[str, bytes] = {}
        self._listeners: dict[str, bytes] = {}
        self._clusters_written: object = None
        self._unused_since: dict[str, float] = {}
        self._numbers = itertools.count(1)
        self._era = secrets.token_hex(4)  # versions of this run differ from all that were before it
        self._settled: tuple[object, ...] | None = None
        self._observed: tuple[object, list[ObservedRoute]] | None = None

    def load(self) -> None:
        """Read what was wanted when the platform last ran. A file that can't be read is as good as none: routes are put again."""
        self._routes = {}
        for route in saved_routes(self._files.wanted):
            try:
                self._routes[route.id] = compile_route(route)
            except GatewayRefused as refusal:
                _log.warning("a saved route is left out: %s", refusal)
        # An Envoy that still runs may have requests under way to upstreams that no route names any more.
        self._clusters = {**_clusters_in(self._files.clusters), **self._fixed, **_clusters_of(self._routes.values())}
        self._listeners = _listeners_of(self._routes.values())
        self._note_unused()

    def write(self) -> str:
        """Write all files anew, for an Envoy that starts next. The version of the routes in them."""
        version = self._next_version()
        self._write_clusters(version)
        self._write_listeners(version)
        self._write_routes_now(version)
        self._settled = None
        return version

    async def confirm(self, version: str) -> None:
        """Return when Envoy serves the routes of this version. Raises `GatewayRefused` or `RetryLater`."""
        await self._served(version, self._log_size())
        self._settled = self._on_disk()

    def is_settled(self, route_id: str, route: Route | None) -> bool:
        """Whether Envoy is known to serve this route already (None: not to have it), with nobody having touched its files since."""
        known = self._routes.get(route_id)
        return (
            (known.route if known else None) == route and self._settled is not None and self._settled == self._on_disk()
        )

    async def apply(self, changes: Mapping[str, CompiledRoute | None]) -> None:
        """Put and remove routes (None) in one step. Raises `GatewayRefused` with nothing changed, or `RetryLater`."""
        wanted = {id: route for id, route in {**self._routes, **changes}.items() if route is not None}
        check_places(wanted.values())
        self._check_guarded(changes.values())
        log_size = self._log_size()
        self._settled = None
        try:
            await self._add_clusters(_clusters_of(wanted.values()), log_size)
            await self._add_listeners(_listeners_of(wanted.values()), log_size)
            before, self._routes = self._routes, wanted
            try:
                await self._served(await self._write_routes(), log_size)
            except GatewayRefused:
                self._routes = before
                await self._write_routes()
                raise
        finally:
            self._note_unused()
        await self._remove_listeners()
        self._settled = self._on_disk()

    async def remove_unused(self) -> None:
        """Take upstreams from Envoy that no route has named for a while."""
        expired = time.monotonic() - self._settings.linger_seconds
        names = [name for name, since in self._unused_since.items() if since <= expired]
        if not names:
            return
        was_settled = self._settled is not None and self._settled == self._on_disk()
        for name in names:
            del self._unused_since[name]
            del self._clusters[name]
        await asyncio.to_thread(self._write_clusters, self._next_version())
        self._settled = self._on_disk() if was_settled else None

    async def observed(self) -> list[ObservedRoute]:
        """The routes that Envoy has. Asked in full only when it has loaded routes since the last time. Raises `AdminUnreachable`."""
        state = await self._admin.counters(_ROUTE_COUNTERS)
        if self._observed is None or self._observed[0] != state:
            dump = await self._admin.dump_routes()
            self._observed = (state, await asyncio.to_thread(observed_routes, dump))
        return self._observed[1]

    def forget_observations(self) -> None:
        """Envoy was started anew: what it was seen to have says nothing about what it has."""
        self._observed = None
        self._probe.close()

    def close(self) -> None:
        """Close connections."""
        self._probe.close()

    async def _add_clusters(self, needed: Mapping[str, bytes], log_size: int) -> None:
        added = needed.keys() - self._clusters.keys()
        if not added and identity(self._files.clusters) == self._clusters_written:
            return
        before, self._clusters = self._clusters, {**self._clusters, **needed}
        version = self._next_version()
        try:
            await asyncio.to_thread(self._write_clusters, version)
            await self._poll(lambda: self._has_clusters(added, version), log_size, "upstreams")
        except BaseException as cause:
            self._clusters = before  # so that the next try adds them again, whatever became of these
            if isinstance(cause, GatewayRefused):
                await asyncio.to_thread(self._write_clusters, self._next_version())
            raise

    async def _has_clusters(self, names: set[str], version: str) -> bool:
        if 0 < len(names) <= _NAMED_CLUSTERS:
            found = await self._admin.active_clusters(f"^({'|'.join(sorted(names))})$")
            return found >= names
        counters = await self._admin.counters(r"^cluster_manager\.cds\.version_text$")
        return counters.get("cluster_manager.cds.version_text") == version

    async def _add_listeners(self, needed: Mapping[str, bytes], log_size: int) -> None:
        if not needed.keys() - self._listeners.keys():
            return
        before, self._listeners = self._listeners, {**self._listeners, **needed}
        version = self._next_version()
        try:
            await asyncio.to_thread(self._write_listeners, version)
            await self._poll(lambda: self._has_listeners(version), log_size, "listeners")
        except BaseException:
            self._listeners = before
            await asyncio.to_thread(self._write_listeners, self._next_version())
            raise

    async def _has_listeners(self, version: str) -> bool:
        counters = await self._admin.counters(r"^listener_manager\.lds\.version_text$")
        return counters.get("listener_manager.lds.version_text") == version

    async def _remove_listeners(self) -> None:
        """Take away at once what no route leads through any more: connections that went through it are to end."""
        needed = _listeners_of(self._routes.values())
        if self._listeners.keys() - needed.keys():
            self._listeners = needed
            await asyncio.to_thread(self._write_listeners, self._next_version())

    def _check_guarded(self, routes: Iterable[CompiledRoute | None]) -> None:
        guarded = next((item.route for item in routes if item is not None and item.route.access is not None), None)
        if guarded is not None and not self._fixed:
            raise GatewayRefused(f"route '{guarded.id}' needs a guard, and this gateway has been told of none")

    async def _write_routes(self) -> str:
        version = self._next_version()
        await asyncio.to_thread(self._write_routes_now, version)
        return version

    def _write_routes_now(self, version: str) -> None:
        saved = [orjson.Fragment(route.saved) for route in self._routes.values()]
        replace_file(self._files.wanted, orjson.dumps({"routes": saved}))
        replace_file(
            self._files.routes, route_resource(self._routes.values(), version, tunnel_matchers(self._settings))
        )

    def _write_clusters(self, version: str) -> None:
        replace_file(self._files.clusters, discovery_resource(self._clusters, version))
        self._clusters_written = identity(self._files.clusters)

    def _write_listeners(self, version: str) -> None:
        replace_file(self._files.listeners, discovery_resource(self._listeners, version))

    async def _served(self, version: str, log_size: int) -> None:
        async def is_served() -> bool:
            return await self._probe.versions() == {version}

        await self._poll(is_served, log_size, "routes")

    async def _poll(self, is_done: Callable[[], Awaitable[bool]], log_size: int, what: str) -> None:
        """Ask until it is done. Raises `GatewayRefused` with what Envoy's log says, or `RetryLater` when it takes too long."""
        deadline = time.monotonic() + self._settings.confirm_seconds
        delay, reason = _POLL_SECONDS, "it still has the configuration from before"
        while True:
            try:
                async with asyncio.timeout(max(deadline - time.monotonic(), _SLOWEST_POLL_SECONDS)):
                    if await is_done():
                        return
            except TimeoutError:
                reason = "it does not answer"
            except (ProbeFailed, AdminUnreachable) as failure:
                reason = str(failure)
            if refusal := _refusal_in(self._files.log, log_size):
                raise GatewayRefused(refusal)
            if time.monotonic() > deadline:
                seconds = self._settings.confirm_seconds
                raise RetryLater(f"the gateway did not take new {what} within {seconds:g} s: {reason}")
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, _SLOWEST_POLL_SECONDS)

    def _note_unused(self) -> None:
        used = _clusters_of(self._routes.values()).keys() | self._fixed.keys()
        now = time.monotonic()
        self._unused_since = {name: self._unused_since.get(name, now) for name in self._clusters if name not in used}

    def _on_disk(self) -> tuple[object, ...]:
        return identity(self._files.clusters), identity(self._files.listeners), identity(self._files.routes)

    def _log_size(self) -> int:
        try:
            return self._files.log.stat().st_size
        except OSError:
            return 0

    def _next_version(self) -> str:
        return f"{self._era}.{next(self._numbers)}"


def _clusters_of(routes: Iterable[CompiledRoute]) -> dict[str, bytes]:
    return {name: content for route in routes for name, content in route.clusters.items()}


def _listeners_of(routes: Iterable[CompiledRoute]) -> dict[str, bytes]:
    return {name: content for route in routes for name, content in route.listeners.items()}


def _clusters_in(path: Path) -> dict[str, bytes]:
    try:
        resources: list[dict[str, Any]] = orjson.loads(path.read_bytes())["resources"]
        return {resource["name"]: orjson.dumps(resource) for resource in resources}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _refusal_in(log: Path, start: int) -> str | None:
    """Envoy's own reason in what it logged since `start`, in one line."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    found = _REFUSAL.search(text)
    return " ".join(found.group(1).replace("goo.gle/debugproto", "").split()) if found else None
