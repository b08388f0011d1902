"""The gateway port on Envoy.

`EnvoyGateway` owns one directory and the one Envoy that serves from it. What it keeps to itself: changes that come together are deployed
together, Envoy is started again when it dies, its logs stay small, the certificate is followed. What it leaves to others: which routes
there should be (the `routes` resource), who may pass (the servers behind it).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from modelyard.gateway.backends.envoy.admin import Admin, AdminUnreachable
from modelyard.gateway.backends.envoy.bootstrap import bootstrap
from modelyard.gateway.backends.envoy.compiled import CompiledRoute, compile_route
from modelyard.gateway.backends.envoy.decisions import DECIDED, decisions_in
from modelyard.gateway.backends.envoy.deployment import Deployment
from modelyard.gateway.backends.envoy.files import cut_file, identity, keep_older, replace_file
from modelyard.gateway.backends.envoy.process import (
    EnvoyFailed,
    EnvoyProcess,
    bootstrap_digest,
    failure_in_log,
    running_envoy,
    start_envoy,
)
from modelyard.gateway.backends.envoy.routes import clusters_named, configuration_of
from modelyard.gateway.backends.envoy.secret import secret_resource
from modelyard.gateway.backends.envoy.settings import EnvoySettings
from modelyard.gateway.backends.envoy.statistics import PATTERN, upstream_statistics
from modelyard.gateway.certificates import CertificateUnusable, check_certificate
from modelyard.gateway.port import Decisions, GatewayRefused, ObservedRoute, Route, UpstreamStatistics
from modelyard.kit.backoff import Backoff
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import RetryLater

_log = logging.getLogger(__name__)

_READY_POLL_SECONDS = 0.01
_HOUSEKEEPING_SECONDS = 2.0
_SILENT_SECONDS = 60.0  # an Envoy that runs and yet does not answer for so long is started anew
_STEADY_SECONDS = 30.0  # after a run this long a death counts as the first
_ENVOY_LOG_BYTES = 16 * 1024 * 1024
_RESTARTS = Backoff(base_seconds=0.1, limit_seconds=10.0)


@dataclass(slots=True)
class _Change:
    """A caller who waits for its change: a compiled route to put, or None to remove."""

    route_id: str
    compiled: CompiledRoute | None
    done: asyncio.Future[None] = field(repr=False)


class EnvoyGateway:
    """A front door made of one Envoy. Implements `modelyard.gateway.port.Gateway`."""

    def __init__(self, settings: EnvoySettings) -> None:
        self._settings = settings
        self._files = settings.files
        self._admin = Admin(self._files.admin_socket)
        self._deployment = Deployment(settings, self._admin)
        self._bootstrap = orjson.dumps(bootstrap(settings))
        self._process: EnvoyProcess | None = None
        self._changes: list[_Change] = []
        self._has_changes = asyncio.Event()
        self._deploying = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._certificate_seen: object = None
        self.restarts_count = 0

    @property
    def pid(self) -> int | None:
        """Envoy's process id, or None when it does not run."""
        running = self._process is not None and self._process.is_running
        return self._process.identity.pid if self._process is not None and running else None

    async def start(self) -> None:
        """Serve the routes that were put last. Adopts an Envoy that still runs with the same bootstrap; no request notices.

        Returns when Envoy serves. Raises `EnvoyFailed` with a sentence for a person (a port is taken, there is no Envoy, the certificate
        can't be used), and `OSError` where the directory can't be written.
        """
        self._files.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._files.directory.chmod(0o700)
        if self._settings.https:
            self._write_secret()
        process = running_envoy(self._files)
        if process is not None and process.identity.bootstrap_digest != bootstrap_digest(
            self._settings, self._bootstrap
        ):
            _log.info("the gateway's settings changed: Envoy (process %d) is started anew", process.identity.pid)
            await self._end(process)
            process = None
        self._deployment.load()
        version = self._deployment.write()
        if process is None:
            process = await start_envoy(self._settings, self._bootstrap)
        else:
            _log.info("adopted the Envoy that still runs (process %d)", process.identity.pid)
        self._process = process
        try:
            await self._wait_ready(process)
            await self._deployment.confirm(version)
        except (GatewayRefused, RetryLater) as cause:
            raise EnvoyFailed(f"Envoy does not take its routes: {cause}") from cause
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(task()) for task in (self._deploy_for_ever, self._watch, self._keep_house)]

    async def detach(self) -> None:
        """Let go of Envoy and leave it serving, for a platform that comes back."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for change in self._changes:
            _fail(change, RetryLater("the gateway is being stopped"))
        self._changes.clear()
        self._deployment.close()
        if self._process is not None:
            self._process.close()
            self._process = None

    async def stop(self) -> None:
        """End Envoy, this object's or the one that an earlier platform left. Requests in flight get `stop_seconds` to end."""
        process, self._process = self._process or running_envoy(self._files), None
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if process is not None:
            await self._end(process)
        await self.detach()

    async def put_route(self, route: Route) -> None:
        """Create or replace. Returns when every worker of Envoy takes the new way. Raises `GatewayRefused` or `RetryLater`."""
        if not self._deployment.is_settled(route.id, route):
            await self._change(route.id, compile_route(route))

    async def remove_route(self, route_id: str) -> None:
        """Take it away; removing what is not there is fine. Returns when no worker takes it. Raises `RetryLater`."""
        if not self._deployment.is_settled(route_id, None):
            await self._change(route_id, None)

    async def list_routes(self) -> Sequence[ObservedRoute]:
        """What Envoy has now, by its own word; a change of its files by others shows too. Raises `RetryLater` when it can't be asked."""
        try:
            return await self._deployment.observed()
        except AdminUnreachable as cause:
            raise RetryLater(str(cause)) from cause

    async def read_route(self, route_id: str) -> str | None:
        """Entries and upstreams of one route as Envoy has them now, by its own word. Raises `RetryLater` when it can't be asked."""
        try:
            entries = await asyncio.to_thread(configuration_of, route_id, await self._admin.dump_routes())
            if not entries:
                return None
            names = clusters_named(entries)
            clusters = await self._admin.dump_clusters(names) if names else []
        except AdminUnreachable as cause:
            raise RetryLater(str(cause)) from cause
        return orjson.dumps({"routes": entries, "clusters": clusters}, option=orjson.OPT_INDENT_2).decode()

    async def read_statistics(self) -> Sequence[UpstreamStatistics]:
        """What was counted for each upstream since Envoy's start; those that were never called are missing. Raises `RetryLater`."""
        try:
            content = await self._admin.statistics(PATTERN)
        except AdminUnreachable as cause:
            raise RetryLater(str(cause)) from cause
        return await asyncio.to_thread(upstream_statistics, content)

    async def read_decisions(self) -> Sequence[Decisions]:
        """What Envoy has decided of requests since its start, for routes of which some were turned away or came with a key. Raises `RetryLater`."""
        try:
            counters = await self._admin.counters(f"^{DECIDED}")
        except AdminUnreachable as cause:
            raise RetryLater(str(cause)) from cause
        return await asyncio.to_thread(decisions_in, counters)

    async def is_ready(self) -> bool:
        """Whether Envoy runs and serves."""
        return await self._admin.is_ready()

    async def _change(self, route_id: str, compiled: CompiledRoute | None) -> None:
        if not self._tasks:
            raise RetryLater("the gateway is not started")
        change = _Change(route_id, compiled, asyncio.get_running_loop().create_future())
        self._changes.append(change)
        self._has_changes.set()
        await change.done

    async def _deploy_for_ever(self) -> None:
        while True:
            await self._has_changes.wait()
            self._has_changes.clear()
            batch, self._changes = self._changes, []
            try:
                async with self._deploying:
                    await self._deploy(batch)
            except asyncio.CancelledError:
                for change in batch:
                    _fail(change, RetryLater("the gateway is being stopped"))
                raise

    async def _deploy(self, batch: Sequence[_Change]) -> None:
        """Deploy the changes together; when Envoy refuses, in halves, so that a bad route fails alone."""
        try:
            await self._deployment.apply({change.route_id: change.compiled for change in batch})
        except GatewayRefused as refusal:
            if len(batch) == 1:
                _fail(batch[0], refusal)
                return
            middle = len(batch) // 2
            await self._deploy(batch[:middle])
            await self._deploy(batch[middle:])
        except Exception as cause:
            # Whatever it is (a full disk, say), it is each waiting caller's and not this loop's end.
            for change in batch:
                _fail(
                    change, cause if isinstance(cause, RetryLater) else RetryLater(f"routes can't be written: {cause}")
                )
        else:
            for change in batch:
                if not change.done.done():
                    change.done.set_result(None)

    async def _watch(self) -> None:
        """Start Envoy again whenever it ends."""
        deaths_count = 0
        while True:
            process = self._process
            started_at = time.monotonic()
            if process is not None:
                await process.wait_exit()
                process.close()
                self._process = None
                _log.error("Envoy (process %d) ended: %s", process.identity.pid, failure_in_log(self._files.log))
            deaths_count = 1 if time.monotonic() - started_at > _STEADY_SECONDS else deaths_count + 1
            if deaths_count > 1:
                await asyncio.sleep(_RESTARTS.delay_seconds(deaths_count - 1))
            try:
                await self._restore_files()
                self._process = await start_envoy(self._settings, self._bootstrap)
                self._deployment.forget_observations()
                self.restarts_count += 1
                await self._wait_ready(self._process)
                _log.warning("Envoy was started again (process %d)", self._process.identity.pid)
            except (EnvoyFailed, OSError) as cause:
                _log.error("Envoy can't be started again: %s", cause)

    async def _restore_files(self) -> None:
        """Undo what others may have done to Envoy's files. A change that is being deployed is waiting for the new Envoy, so nobody waits for it."""
        if not self._deploying.locked():
            async with self._deploying:
                self._deployment.write()

    async def _keep_house(self) -> None:
        answered_at = time.monotonic()
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            try:
                if await self._admin.is_ready():
                    answered_at = time.monotonic()
                elif self._process is not None and time.monotonic() - answered_at > _SILENT_SECONDS:
                    _log.error("Envoy runs but does not answer for %d s: it is ended", _SILENT_SECONDS)
                    self._process.send(signal.SIGKILL)  # `_watch` sees its end and starts another
                    answered_at = time.monotonic()
                await self._keep_logs_small()
                if self._settings.https:
                    self._write_secret()
                async with self._deploying:
                    await self._deployment.remove_unused()
            except (AdminUnreachable, EnvoyFailed, OSError) as cause:
                _log.warning("housekeeping of the gateway: %s", cause)

    async def _keep_logs_small(self) -> None:
        cut_file(self._files.log, _ENVOY_LOG_BYTES)
        status = identity(self._files.access_log)
        if status is not None and status[2] > self._settings.access_log_bytes:
            keep_older(self._files.access_log, self._settings.access_log_files)
            await self._admin.reopen_logs()

    def _write_secret(self) -> None:
        """Give Envoy the certificate when its files changed. Raises `EnvoyFailed` when it can't be used; the one before stays then."""
        certificate, key = self._settings.certificate, self._settings.key
        if certificate is None or key is None:
            raise EnvoyFailed("HTTPS needs a certificate and a key: name both files, or listen on HTTP alone")
        seen = identity(certificate), identity(key), identity(self._files.secret)
        if seen == self._certificate_seen:
            return
        try:
            check_certificate(certificate, key, now=utc_now())
        except CertificateUnusable as cause:
            raise EnvoyFailed(str(cause)) from cause
        content = secret_resource(certificate, key)
        if not self._files.secret.exists() or self._files.secret.read_bytes() != content:
            replace_file(self._files.secret, content)
        self._certificate_seen = identity(certificate), identity(key), identity(self._files.secret)

    async def _wait_ready(self, process: EnvoyProcess) -> None:
        deadline = time.monotonic() + self._settings.start_seconds
        while not await self._admin.is_ready():
            if not process.is_running:
                raise EnvoyFailed(f"Envoy ended at its start: {failure_in_log(self._files.log)}")
            if time.monotonic() > deadline:
                raise EnvoyFailed(
                    f"Envoy did not get ready within {self._settings.start_seconds:g} s; its log is {self._files.log}"
                )
            await asyncio.sleep(_READY_POLL_SECONDS)

    async def _end(self, process: EnvoyProcess) -> None:
        """End the process when its requests are done, or after `stop_seconds`."""
        deadline = time.monotonic() + self._settings.stop_seconds
        try:
            await self._admin.stop_listening()
            while time.monotonic() < deadline:
                if not await self._requests_in_flight():
                    break
                await asyncio.sleep(0.05)
            await self._admin.end()
            await asyncio.wait_for(process.wait_exit(), timeout=2.0)
        except (AdminUnreachable, TimeoutError):
            await process.kill()
        process.close()
        self._files.process.unlink(missing_ok=True)

    async def _requests_in_flight(self) -> int:
        counters = await self._admin.counters(r"^http\.ingress\.downstream_rq_active$")
        return int(counters.get("http.ingress.downstream_rq_active", 0))


def _fail(change: _Change, cause: Exception) -> None:
    if not change.done.done():
        change.done.set_exception(cause)
