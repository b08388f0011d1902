"""One server process: `python -m modelyard.server --home DIR [--stop]` (`__main__.py`). Started and watched by `modelyard up`.

Signals: SIGTERM and SIGINT detach (workloads and the gateway go on), SIGUSR2 shuts everything down. Exit codes: 0 as asked, 3 for a problem that
starting again does not cure, 1 for anything else; why is told on stderr and in `run/problem.txt`. A server detaches also when its keeper is gone: the
next `modelyard up` brings a server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import logging.handlers
import os
import signal
import sys
import time
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

import uvloop
from pydantic import ValidationError

from modelyard.compute.backends.local.kernel import die_with_parent
from modelyard.db.fitness import SchemaOfAnotherVersion
from modelyard.db.migrate import SchemaTooNew
from modelyard.gateway.backends.envoy.process import EnvoyFailed
from modelyard.gateway.certificates import CertificateUnusable
from modelyard.logstore.backends.tantivy.errors import LogStoreInUse
from modelyard.resources.flavors.errors import BadFlavorFile
from modelyard.resources.images.catalog import CatalogInvalid
from modelyard.server.backends import make_gateway
from modelyard.server.home import Home, HomeUnusable, lock_home
from modelyard.server.local_compute import make_compute
from modelyard.server.platform import DatabaseUnusable, Platform, Seat
from modelyard.server.services import waiting_room_of
from modelyard.server.settings import Settings, load_settings

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


def main() -> None:
    """Run."""
    arguments = _arguments()
    home = Home(Path(arguments.home).absolute())
    os.umask(0o022)
    try:
        home.prepare()
        settings = load_settings(home.config_file, json.loads(arguments.overrides))
    except HomeUnusable as problem:
        _give_up(home, str(problem))
    except tomllib.TOMLDecodeError as problem:
        _give_up(home, f"the settings in {home.config_file} are no TOML: {problem}")
    except ValidationError as problem:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in problem.errors()]
        _give_up(
            home,
            f"the settings can't be used: {'; '.join(faults)} (from the command line, MODELYARD_… or {home.config_file})",
        )
    _configure_logging(home, arguments.index)
    if arguments.stop:
        seat = _take_seat(home, 0)  # a server that is still letting go would start again what is ended here
        uvloop.run(_stop(home, settings, arguments.deadline))
        if seat is not None:
            seat.close()
        return
    if arguments.servers > 1 and settings.database_url is None:
        _give_up(home, "more than one server needs PostgreSQL (--database-url): SQLite is for one")
    if arguments.keeper is not None:
        _end_with(arguments.keeper)
    lock = _take_seat(home, arguments.index)
    if lock is None:
        _give_up(
            home, f"another server already runs on {home.root}; `modelyard status` shows it, `modelyard down` ends it"
        )
    try:
        uvloop.run(_serve(home, settings, Seat(arguments.index, arguments.servers), arguments.deadline))
    except _INCURABLE as problem:
        log.error("%s", problem)  # noqa: TRY400  # the sentence is for a person; there is no bug to trace
        _give_up(home, str(problem))
    except DatabaseUnusable as problem:
        log.error("%s", problem)  # noqa: TRY400  # as above
        _give_up(home, str(problem), exit_code=1)
    except Exception as failure:
        log.exception("The server has failed")
        _give_up(home, f"the server has failed ({failure}); {home.log_file} says more", exit_code=1)


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
    stop = asyncio.Event()
    wanted: list[str] = []
    loop = asyncio.get_running_loop()

    def _on_signal(how: str) -> None:
        wanted.append(how)
        stop.set()

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
        await platform.run(stop)
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


async def _stop(home: Home, settings: Settings, deadline_seconds: float) -> None:
    """End what a server that is no longer there has left running."""
    compute, _ = make_compute(home, settings)
    await compute.stop_all(deadline_seconds)
    compute.close()
    gateway, _ = make_gateway(home, settings)
    await gateway.stop()
    waiting_room_of(home).close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m modelyard.server")
    parser.add_argument("--home", required=True)
    parser.add_argument("--overrides", default="{}", help="settings from the command line, as JSON")
    parser.add_argument("--index", type=int, default=0, help="which of the servers this is")
    parser.add_argument("--servers", type=int, default=1, help="how many there are")
    parser.add_argument("--keeper", type=int, help="the process that watches over this one")
    parser.add_argument("--stop", action="store_true", help="end what is left running, and exit")
    parser.add_argument("--deadline", type=float, default=30.0, help="seconds that workloads get to end")
    return parser.parse_args()


def _configure_logging(home: Home, index: int) -> None:
    path = home.log_file if index == 0 else home.log_file.with_name(f"server-{index}.log")
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=20 * 2**20, backupCount=5)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _give_up(home: Home, message: str, exit_code: int = 3) -> NoReturn:
    print(message, file=sys.stderr)
    with suppress(OSError):  # the home itself may be the problem; stderr has it
        (home.run / "problem.txt").write_text(message + "\n")
    raise SystemExit(exit_code)
