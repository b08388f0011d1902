"""Processes of a platform as the kernel shows them, so that "nothing is left" rests on no record of the platform's own."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process. `started` tells it from a later one of the same number."""

    pid: int
    started: str
    command: str


def process(pid: int) -> Process | None:
    """The process of this number; None where there is none, or only a dead one that nobody has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (OSError, IndexError):
        return None
    return None if fields[0] == "Z" else Process(pid, fields[19], command)


def processes_of(home: Path) -> list[Process]:
    """Every process that has to do with the home: by its command line, its working directory, an open file, or what is mounted in its view."""
    own = {os.getpid(), os.getppid()}
    pids = [int(place.name) for place in Path("/proc").iterdir() if place.name.isdigit()]
    found = [process(pid) for pid in pids if pid not in own and _touches(pid, str(home))]
    return [each for each in found if each is not None]


def still_alive(processes: list[Process]) -> list[Process]:
    """Those of the processes that have not ended."""
    return [each for each in processes if (now := process(each.pid)) is not None and now.started == each.started]


def wait_until_gone(home: Path, known: list[Process], seconds: float = 10.0) -> list[Process]:
    """What is left of the home and of the known processes once the time is over, or nothing as soon as nothing is."""
    deadline = time.monotonic() + seconds
    while True:
        left = [*processes_of(home), *still_alive(known)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def _touches(pid: int, home: str) -> bool:
    place = Path(f"/proc/{pid}")
    try:
        if home.encode() in place.joinpath("cmdline").read_bytes():
            return True
        # The fourth field is where in its file system a mount begins: a sandbox shows the instance's directories by binding them.
        mounts = place.joinpath("mountinfo").read_text(errors="replace").splitlines()
        if any(line.split()[3].startswith(home) for line in mounts):
            return True
        links = [place / "cwd", *place.joinpath("fd").iterdir()]
    except OSError:
        return False
    return any(_target(link).startswith(home) for link in links)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""
