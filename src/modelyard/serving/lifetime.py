"""From the start to the end of the process: listen, load, say ready, drain, go.

The door is open before the model is loaded, so that a probe can tell "loading" from "dead". A model that can't be loaded ends the
process with exit code 3 and its reason in the report; SIGTERM ends it with 0 after the requests in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import stat
import traceback
from pathlib import Path
from time import perf_counter

from modelyard.serving.config import ServingConfig
from modelyard.serving.desk import Desk
from modelyard.serving.door import Door
from modelyard.serving.errors import EXIT_LOAD_FAILED, LoadFailed, NotReady
from modelyard.serving.http1 import Server
from modelyard.serving.inference_log import InferenceLog
from modelyard.serving.load import Loaded, load
from modelyard.serving.report import Report

_LAST_ANSWERS_SECONDS = 2.0
_BACKLOG = 1024
# The socket lies in a directory that belongs to the instance; who may go there is decided by that directory, and the gateway
# that connects runs as another user.
_SOCKET_MODE = 0o666


async def serve(config: ServingConfig, report: Report) -> int:
    """Serve until SIGTERM or SIGINT. Answers the exit code: 0, or 3 where the model or the address can't be had."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    report.write("loading", f"loading model '{config.model_name}'")
    desk = Desk(queue_size=config.queue_size, deadline_seconds=config.deadline_seconds)
    log = InferenceLog(sample_rate=config.log_sample_rate, max_bytes=config.log_max_bytes)
    door = Door(config, desk, log)
    server = Server(door)
    try:
        await _listen(config, server)
    except LoadFailed as error:
        report.write("failed", error.message)
        return EXIT_LOAD_FAILED
    opening = asyncio.create_task(_open(config, desk, door, report))
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait((opening, waiting), return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if opening.done() and not stopping.is_set() and (code := opening.result()) == 0:
        await waiting
    opening.cancel()  # what it would report of a load that was cut off is no failure
    if code == 0:
        await _drain(config, desk, door, server, report)
    await asyncio.to_thread(log.close)
    return code


async def _open(config: ServingConfig, desk: Desk, door: Door, report: Report) -> int:
    started = perf_counter()
    desk.open(1)
    gc.disable()  # what a framework brings is there to stay; to look through it for garbage while it comes takes a sixth of the load
    try:
        loaded: Loaded = await desk.run_unhurried(lambda: load(config, lambda: desk.in_flight))
    except LoadFailed as error:
        report.write("failed", error.message)
        return EXIT_LOAD_FAILED
    except Exception as error:
        traceback.print_exception(error)
        report.write("failed", f"loading the model raised {type(error).__name__}: {_one_line(str(error))}")
        return EXIT_LOAD_FAILED
    finally:
        gc.freeze()
        gc.enable()
    desk.open(loaded.threads, may_be_done_here=loaded.may_be_done_here)
    door.open(loaded.service)
    report.write(
        "ready", f"{loaded.service.platform} model '{config.model_name}' loaded in {perf_counter() - started:.1f} s"
    )
    if loaded.afterwards is not None:
        loaded.afterwards()
    return 0


async def _drain(config: ServingConfig, desk: Desk, door: Door, server: Server, report: Report) -> None:
    report.write("draining", f"stopping; {desk.in_flight} requests in flight")
    door.drain()
    server.stop()  # closes the listener, and each connection after its answer
    if config.socket_path is not None:
        config.socket_path.unlink(missing_ok=True)
    # Connections end after the answers to what was begun on them: a body may still be on its way in, or an answer on its way out.
    started = perf_counter()
    await _until_closed(server, config.drain_seconds)
    await desk.wait_until_idle(max(0.0, config.drain_seconds - (perf_counter() - started)))
    cut_off = f"; {desk.in_flight} requests were cut off after {config.drain_seconds:g} s" if desk.in_flight else ""
    if not desk.in_flight:
        door.close()
    desk.cut_off(NotReady("the server is stopping and could not wait longer for this prediction"))
    await _until_closed(server, _LAST_ANSWERS_SECONDS)
    report.write("stopped", f"stopped{cut_off}")


async def _until_closed(server: Server, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await server.wait_closed()


async def _listen(config: ServingConfig, server: Server) -> None:
    path = config.socket_path
    try:
        if path is None:
            host, port = config.address
            listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        else:
            _clear_socket(path)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            path.chmod(_SOCKET_MODE)
        await server.listen(listener, _BACKLOG)
    except OSError as error:
        raise LoadFailed(f"can't listen on {config.listen}: {error.strerror or error}") from error


def _clear_socket(path: Path) -> None:
    """Remove what a former run has left; refuse where something still answers."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise LoadFailed(f"can't listen on {path}: there is a file of that name")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        if probe.connect_ex(str(path)) == 0:
            raise LoadFailed(f"can't listen on {path}: another server answers there")
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _one_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason was given")
