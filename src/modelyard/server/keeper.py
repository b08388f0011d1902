"""Keeps one platform running: starts its servers, starts them again when they die, ends everything when asked to.

The keeper is what `modelyard up` is. It holds the home's lock, so one home has one platform; it knows nothing of the platform's inside and loads
nothing of it, so that it is small and does not fail.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

INCURABLE_EXIT = 3
_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 10.0
_STABLE_SECONDS = 30.0


class AlreadyRunning(Exception):
    """Another platform holds the home."""

    def __init__(self, home: Path, pid: str) -> None:
        super().__init__(
            f"a platform already runs on {home} (process {pid}); `modelyard status` shows it, `modelyard down` ends it, --home names another home"
        )


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """What the keeper passes on.

    Attributes:
        overrides: settings from the command line.
        servers: how many server processes share the work (more than one needs PostgreSQL). The first one holds the gateway and the logs.
        deadline_seconds: how long workloads get to end.
    """

    home: Path
    overrides: Mapping[str, Any]
    servers: int = 1
    deadline_seconds: float = 30.0


@dataclass(slots=True)
class _Server:
    """One server process, or the wait before it is started again."""

    index: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    wait_seconds: float = _FIRST_WAIT_SECONDS
    restart_at: float = 0.0


class Keeper:
    """Runs the servers as child processes."""

    def __init__(self, settings: KeeperSettings) -> None:
        self._settings = settings
        self._servers = [_Server(index) for index in range(settings.servers)]
        self._is_ending = False

    def run(self) -> int:
        """Keep until asked to end. Returns the exit code. Raises `AlreadyRunning`."""
        lock = take_lock(self._settings.home)
        news, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_end)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # only to be woken
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal may go, the platform stays
        try:
            return self._keep(news)
        finally:
            lock.close()

    def _keep(self, news: int) -> int:
        while not self._is_ending:
            now = time.monotonic()
            for server in self._servers:
                code = None if server.process is None else server.process.poll()
                if code == INCURABLE_EXIT:
                    self._end_servers()
                    return INCURABLE_EXIT
                if code is not None:
                    self._plan_restart(server, code, now)
                if server.process is None and now >= server.restart_at:
                    server.process = self._start(server.index)
                    server.started_at = now
            waits = [server.restart_at - now for server in self._servers if server.process is None]
            select.select([news], [], [], max(0.0, min(waits)) if waits else None)
            with suppress(BlockingIOError):
                os.read(news, 4096)
        self._end_servers()
        if self._servers[0].process is None or self._servers[0].process.returncode != 0:
            # The first server did not end everything itself (it was dead, or killed while it did).
            subprocess.run([*self._argv(0), "--stop"], env=child_environment(), check=False, start_new_session=True)
        return 0

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._argv(index), env=child_environment(), start_new_session=True)

    def _plan_restart(self, server: _Server, code: int, now: float) -> None:
        if now - server.started_at > _STABLE_SECONDS:
            server.wait_seconds = _FIRST_WAIT_SECONDS
        print(
            f"server {server.index} has ended (exit code {code}); starting it again in {server.wait_seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )
        server.process = None
        server.restart_at = now + server.wait_seconds
        server.wait_seconds = min(_LONGEST_WAIT_SECONDS, server.wait_seconds * 2)

    def _end_servers(self) -> None:
        """The others first: they only let go; the first one ends what all have started."""
        for server in reversed(self._servers):
            if server.process is not None and server.process.poll() is None:
                server.process.send_signal(signal.SIGUSR2 if server.index == 0 else signal.SIGTERM)
                server.process.wait()

    def _argv(self, index: int) -> Sequence[str]:
        settings = self._settings
        return [
            sys.executable,
            "-m",
            "modelyard.server",
            *("--home", str(settings.home)),
            *("--overrides", json.dumps(dict(settings.overrides))),
            *("--index", str(index)),
            *("--servers", str(settings.servers)),
            *("--keeper", str(os.getpid())),
            *("--deadline", str(settings.deadline_seconds)),
        ]

    def _on_end(self, _number: int, _frame: object) -> None:
        self._is_ending = True


def take_lock(home: Path) -> IO[str]:
    """Hold the home. Raises `AlreadyRunning`."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.joinpath("run").mkdir(mode=0o700, exist_ok=True)
    file = (home / "run" / "keeper.lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        pid = file.read().strip() or "unknown"
        file.close()
        raise AlreadyRunning(home, pid) from None
    file.seek(0)
    file.truncate()
    file.write(str(os.getpid()))
    file.flush()
    return file


def keeper_pid(home: Path) -> int | None:
    """The process that holds the home, or None if none does."""
    path = home / "run" / "keeper.lock"
    try:
        file = path.open("r+", encoding="ascii")
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read().strip()
            return int(text) if text.isdigit() else None
    return None


def child_environment() -> dict[str, str]:
    """Our environment without what would slow the children down (bytecode that may not be written is compiled at each start)."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
