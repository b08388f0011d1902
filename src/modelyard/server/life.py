"""A server's life: take the seat, start, serve, let go; and the end of what a server that is gone has left."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import time
from typing import IO, Any

import uvloop

from modelyard.compute.backends.local.kernel import die_with_parent
from modelyard.db.fitness import SchemaOfAnotherVersion
from modelyard.db.migrate import SchemaTooNew
from modelyard.gateway.backends.envoy.process import EnvoyFailed
from modelyard.gateway.certificates import CertificateUnusable
from modelyard.logstore.backends.tantivy.errors import LogStoreInUse
from modelyard.resources.flavors.errors import BadFlavorFile
from modelyard.resources.images.catalog import CatalogInvalid
from modelyard.server.backends import make_gateway
from modelyard.server.giving_up import give_up
from modelyard.server.home import Home, HomeUnusable, lock_home
from modelyard.server.local_compute import make_compute
from modelyard.server.platform import DatabaseUnusable, Platform, Seat
from modelyard.server.services import waiting_room_of
from modelyard.server.settings import Settings

log = logging.getLogger("modelyard.server")

_INCURABLE = (
    HomeUnusable,
    EnvoyFailed,
    CertificateUnusable,
    SchemaTooNew,
    SchemaOfAnotherVersion,
    LogStoreInUse,
    BadFlavorFile,
    CatalogInvalid,
)
_DETACH_SECONDS = 30.0  # a server that detaches answers the requests that it has first


def live(home: Home, settings: Settings, seat: Seat, *, keeper_pid: int | None, deadline_seconds: float) -> None:
    """Serve until a signal says how to end; `process.py` has the signals and the exit codes."""
    if keeper_pid is not None:
        _end_with(keeper_pid)
    lock = _take_seat(home, seat.index)
    if lock is None:
        give_up(
            home, f"another server already runs on {home.root}; `modelyard status` shows it, `modelyard down` ends it"
        )
    try:
        uvloop.run(_serve(home, settings, seat, deadline_seconds))
    except _INCURABLE as problem:
        log.error("%s", problem)  # noqa: TRY400  # the sentence is for a person; there is no bug to trace
        give_up(home, str(problem))
    except DatabaseUnusable as problem:
        log.error("%s", problem)  # noqa: TRY400  # as above
        give_up(home, str(problem), exit_code=1)
    except Exception as failure:
        log.exception("The server has failed")
        give_up(home, f"the server has failed ({failure}); {home.log_file} says more", exit_code=1)


def stop(home: Home, settings: Settings, deadline_seconds: float) -> None:
    """End what a server that is no longer there has left running."""
    seat = _take_seat(home, 0)  # a server that is still letting go would start again what is ended here
    uvloop.run(_end_what_is_left(home, settings, deadline_seconds))
    if seat is not None:
        seat.close()


def _end_with(keeper_pid: int) -> None:
    """Detach when the keeper dies: a server without one would stand in the way of the next."""
    die_with_parent(signal.SIGTERM)
    if os.getppid() != keeper_pid:  # it died before the kernel was told
        raise SystemExit(1)


def _take_seat(home: Home, index: int) -> IO[str] | None:
    """The lock of a server, once the one before it, whose keeper was killed, has let go; None when it does not."""
    deadline = time.monotonic() + _DETACH_SECONDS
    while (lock := lock_home(home, f"server-{index}")) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return lock


async def _serve(home: Home, settings: Settings, seat: Seat, deadline_seconds: float) -> None:
    stopping = asyncio.Event()
    wanted: list[str] = []
    loop = asyncio.get_running_loop()

    def _on_signal(how: str) -> None:
        wanted.append(how)
        stopping.set()

    platform = Platform(home, settings, seat)
    ready_file = home.server_state(seat.index)
    try:
        await platform.start()
        # Only now: while it starts, a signal's default (to end at once) is safe, and faster.
        for number, how in ((signal.SIGTERM, "detach"), (signal.SIGINT, "detach"), (signal.SIGUSR2, "down")):
            loop.add_signal_handler(number, _on_signal, how)
        state: dict[str, Any] = {
            "pid": os.getpid(),
            "httpUrl": settings.http_url,
            "httpsUrl": settings.https_url,
            "settings": settings.model_dump(mode="json", exclude={"database_url", "objectstore"}),
        }
        ready_file.write_text(json.dumps(state))
        _wake_collector()
        log.info("Ready: %s and %s", settings.http_url, settings.https_url)
        await platform.run(stopping)
    finally:
        ready_file.unlink(missing_ok=True)
        if "down" in wanted:
            log.info("Shutting down")
            await platform.shut_down(deadline_seconds)
        else:
            log.info("Detaching; workloads and the gateway go on")
            await platform.detach()


def _wake_collector() -> None:
    """From here on garbage is collected; what the start has made stays, and is never looked at again."""
    gc.freeze()
    gc.enable()


async def _end_what_is_left(home: Home, settings: Settings, deadline_seconds: float) -> None:
    compute, _ = make_compute(home, settings)
    await compute.stop_all(deadline_seconds)
    compute.close()
    gateway, _ = make_gateway(home, settings)
    await gateway.stop()
    waiting_room_of(home).close()
