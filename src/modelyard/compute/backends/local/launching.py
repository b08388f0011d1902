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
import subprocess
import sys
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


def is_launched(directory: Path) -> bool:
    """Whether a supervisor has ever recorded itself for this instance."""
    return (directory / records.SUPERVISOR).exists()


def start(directory: Path, facts: InstanceFacts, plan: Plan) -> None:
    """Write the records and start the supervisor; the caller holds the launch lock. Raises RetryLater when it does not come up."""
    (directory / records.LOGS).mkdir(mode=0o700, exist_ok=True)
    write_facts(directory, facts)
    records.save_plan(str(directory), plan)
    answer = _spawn(directory)
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


def _spawn(directory: Path) -> bytes:
    """Start a supervisor; its first word, or nothing when it ended without one."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    errors = os.open(directory / _ERRORS, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        command = [sys.executable, "-I", "-S", str(supervise.__file__), str(directory)]
        launcher = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=write_end, stderr=errors, env={}, start_new_session=True, cwd="/"
        )
        os.close(write_end)
        write_end = -1
        is_answered = bool(select.select([read_end], [], [], _READY_SECONDS)[0])
        answer = os.read(read_end, 64) if is_answered else b""
        launcher.wait(_READY_SECONDS)
        return answer
    except (OSError, subprocess.SubprocessError) as error:
        raise RetryLater(f"A supervisor could not be started: {error}") from error
    finally:
        os.close(read_end)
        os.close(errors)
        if write_end != -1:
            os.close(write_end)


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
