"""Keeps one platform running: starts its server, starts it again when it dies, ends everything when asked to.

The keeper is what `modelyard up` is. It holds the home's lock, so one home has one platform; it knows nothing of the platform's inside and loads
nothing of it, so that it is small and does not fail.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
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
    """What the keeper passes on: the home, settings from the command line, and how long workloads get to end."""

    home: Path
    overrides: Mapping[str, Any]
    deadline_seconds: float = 30.0


class Keeper:
    """Runs the server as a child process."""

    def __init__(self, settings: KeeperSettings) -> None:
        self._settings = settings
        self._child: subprocess.Popen[bytes] | None = None
        self._is_ending = False

    def run(self) -> int:
        """Keep until asked to end. Returns the exit code. Raises `AlreadyRunning`."""
        lock = take_lock(self._settings.home)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_end)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal may go, the platform stays
        try:
            return self._keep()
        finally:
            lock.close()

    def _keep(self) -> int:
        wait_seconds = _FIRST_WAIT_SECONDS
        while not self._is_ending:
            started = time.monotonic()
            self._child = subprocess.Popen(self._argv(), env=child_environment(), start_new_session=True)
            code = self._child.wait()
            if self._is_ending:
                break
            if code == INCURABLE_EXIT:
                return INCURABLE_EXIT
            if time.monotonic() - started > _STABLE_SECONDS:
                wait_seconds = _FIRST_WAIT_SECONDS
            print(
                f"the server has ended (exit code {code}); starting it again in {wait_seconds:.1f} s", file=sys.stderr
            )
            time.sleep(wait_seconds)
            wait_seconds = min(_LONGEST_WAIT_SECONDS, wait_seconds * 2)
        if self._child is None or self._child.returncode != 0:
            # The server did not end everything itself (it was dead, or killed while it did).
            subprocess.run([*self._argv(), "--stop"], env=child_environment(), check=False, start_new_session=True)
        return 0

    def _argv(self) -> Sequence[str]:
        settings = self._settings
        return [
            sys.executable,
            "-m",
            "modelyard.server",
            "--home",
            str(settings.home),
            "--overrides",
            json.dumps(dict(settings.overrides)),
            "--deadline",
            str(settings.deadline_seconds),
        ]

    def _on_end(self, _number: int, _frame: object) -> None:
        self._is_ending = True
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGUSR2)


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
