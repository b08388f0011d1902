"""Starts the supervisor of an instance exactly once, whoever is killed in between.

Order is all: the plan is on disk before the supervisor starts; the supervisor takes the instance's lock and records itself before
anything of the instance runs. So a record means that the instance was launched (adopt it), and no record means that nothing of it
ever ran (launch it). A second supervisor can't take the lock, and one that comes after finds the record.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.compute.backends.local import records, supervise
from modelyard.compute.backends.local.observing import InstanceFacts
from modelyard.compute.backends.local.supervisor import READY, TAKEN
from modelyard.kit.errors import RetryLater

if TYPE_CHECKING:
    from modelyard.compute.backends.local.records import Plan

_READY_SECONDS = 20.0
_RECORD_SECONDS = 5.0
_ERRORS = "supervisor.log"


class Starter:
    """Has supervisors started, by a process that is started with the first of them and ends when this is closed, or when the server has
    ended, however. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._door: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, directory: Path) -> bytes:
        """Start a supervisor; its first word, or nothing when it ended without one. Raises `RetryLater`."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        errors = os.open(directory / _ERRORS, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._ask(directory, [write_end, errors])
            os.close(write_end)
            write_end = -1
            poll = select.poll()
            poll.register(read_end, select.POLLIN)
            if poll.poll(_READY_SECONDS * 1000):
                return os.read(read_end, 64)
            self._drop()
            return b""
        except (OSError, subprocess.SubprocessError) as error:
            raise RetryLater(f"A supervisor could not be started: {error}") from error
        finally:
            os.close(read_end)
            os.close(errors)
            if write_end != -1:
                os.close(write_end)

    def close(self) -> None:
        """Let the process end. Supervisors go on."""
        with self._lock:
            self._leave()

    def _drop(self) -> None:
        """Let go of a process that does not answer: the next start has a new one."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
            self._leave()

    def _ask(self, directory: Path, descriptors: list[int]) -> None:
        packet = os.fsencode(directory)
        with self._lock:
            if self._door is not None:
                try:
                    socket.send_fds(self._door, [packet], descriptors)
                    return
                except OSError:
                    self._leave()  # Somebody has killed it.
            self._door = self._open()
            socket.send_fds(self._door, [packet], descriptors)

    def _open(self) -> socket.socket:
        own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own.settimeout(_READY_SECONDS)
        with its:
            command = [sys.executable, "-I", "-S", str(supervise.__file__)]
            nothing = subprocess.DEVNULL
            self._process = subprocess.Popen(
                command, stdin=its.fileno(), stdout=nothing, stderr=nothing, env={}, start_new_session=True, cwd="/"
            )
        return own

    def _leave(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None
        if self._process is not None:
            self._process.wait(_READY_SECONDS)
            self._process = None


def is_launched(directory: Path) -> bool:
    """Whether a supervisor has ever recorded itself for this instance."""
    return (directory / records.SUPERVISOR).exists()


def start(directory: Path, facts: InstanceFacts, plan: Plan, starter: Starter) -> None:
    """Write the records and start the supervisor; the caller holds the launch lock. Raises RetryLater when it does not come up."""
    (directory / records.LOGS).mkdir(mode=0o700, exist_ok=True)
    write_facts(directory, facts)
    records.save_plan(str(directory), plan)
    answer = starter.start(directory)
    if answer == READY:
        return
    deadline = time.monotonic() + (_RECORD_SECONDS if answer == TAKEN else 0.0)
    while not is_launched(directory):
        if time.monotonic() >= deadline:
            raise RetryLater(f"The supervisor of '{facts.id}' did not start: {_last_line(directory / _ERRORS)}")
        time.sleep(0.005)


def write_facts(directory: Path, facts: InstanceFacts) -> None:
    """Put the facts on record."""
    content = json.dumps(asdict(facts), indent=1).encode()
    records.write_whole(str(directory / records.INSTANCE), content, is_durable=False)


@contextmanager
def launch_lock(directory: Path) -> Generator[None]:
    """Hold the instance against other launchers and removers; makes the directory."""
    while True:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(directory / records.LAUNCH_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_still_there(descriptor, directory / records.LAUNCH_LOCK):
                continue  # It was removed while we waited.
            yield
            return
        finally:
            os.close(descriptor)


def _is_still_there(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return "no reason was recorded"
    return lines[-1] if lines else "no reason was recorded"
