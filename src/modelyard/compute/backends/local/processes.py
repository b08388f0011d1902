"""Processes as /proc shows them: who is alive, who descends from whom, and how a whole tree is ended.

A pid alone does not name a process: it comes back after a restart of the machine and after 32,768 forks. Together with the start
time and the boot it does. Standard library only, and only its light parts: the supervisor imports this.
"""

# Plain `os` calls on purpose: pathlib costs a third of the supervisor's whole start.
# ruff: noqa: PTH123, PTH208
from __future__ import annotations

import os
import time

from modelyard.compute.backends.local import kernel


def boot_id() -> str:
    """The random id that the kernel chose when the machine started."""
    return _text("/proc/sys/kernel/random/boot_id").strip()


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since the boot; None when there is no such process or only its zombie is left."""
    fields = _stat(f"/proc/{pid}/stat")
    return None if fields is None or fields[0] in {"Z", "X"} else int(fields[19])


def is_alive(pid: int, ticks: int, boot: str) -> bool:
    """Whether exactly this process (pid, start time, boot) still runs."""
    return start_ticks(pid) == ticks and boot_id() == boot


def children_of(pid: int) -> list[int]:
    """Direct children of a process's main thread, in the order of their birth."""
    try:
        return [int(child) for child in _text(f"/proc/{pid}/task/{pid}/children").split()]
    except OSError:
        return [child for child, parent in _parents().items() if parent == pid]


def main_below(init_pid: int) -> int | None:
    """The program in a process namespace whose first process is `init_pid`: the one with the inner pid 2 (bubblewrap forks it first)."""
    for child in children_of(init_pid):
        try:
            inner = _text(f"/proc/{child}/status").split("NSpid:", 1)[1].split("\n", 1)[0].split()
        except (OSError, IndexError):
            continue
        if inner[-1] == "2":
            return child
    return None


def descendants(ancestor: int) -> list[int]:
    """Every process below this one, zombies left out."""
    parents = _parents()
    found: set[int] = set()
    fresh = {ancestor}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh and pid not in found}
        found |= fresh
    return sorted(found)


def end_descendants(ancestor: int, seconds: float) -> bool:
    """Kill everything below this process (a subreaper, so that nobody escapes by leaving its parent), however fast it forks.

    Everybody is stopped before anybody is killed: a stopped process forks no more. Returns whether nobody is left.
    """
    deadline = time.monotonic() + seconds
    reap()
    if ancestor == os.getpid() and not _has_children():
        return True  # Orphans come here, so nobody hangs on anybody else. To look at every process of the machine costs much more.
    while True:
        stopped: set[int] = set()
        while fresh := set(descendants(ancestor)) - stopped:
            _send_all(fresh, kernel.SIGSTOP)
            stopped |= fresh
        _send_all(stopped, kernel.SIGKILL)
        reap()
        if not descendants(ancestor):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)


def end_marked(marker: str) -> None:
    """Kill the processes whose first environment has this `NAME=value`: the last means where neither namespace nor cgroup names them."""
    needle = marker.encode()
    for _ in range(50):
        found: set[int] = set()
        for pid in _pids():
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    environment = file.read().split(b"\0")
            except OSError:
                continue
            if needle in environment and pid != os.getpid():
                found.add(pid)
        if not found:
            return
        _send_all(found, kernel.SIGKILL)
        time.sleep(0.01)


def reap() -> list[tuple[int, int]]:
    """Collect ended children: (pid, wait status) each."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def resident_bytes(pids: list[int]) -> int:
    """Memory of their own that these processes hold: resident pages less those shared with files."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for pid in pids:
        try:
            fields = _text(f"/proc/{pid}/statm").split()
        except OSError:
            continue
        total += (int(fields[1]) - int(fields[2])) * page
    return total


def cpu_seconds(pids: list[int]) -> float:
    """Processor time of these processes and of their children that have ended."""
    ticks = 0
    for pid in pids:
        fields = _stat(f"/proc/{pid}/stat")
        if fields is not None:
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _send_all(pids: set[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def _parents() -> dict[int, int]:
    parents: dict[int, int] = {}
    for pid in _pids():
        fields = _stat(f"/proc/{pid}/stat")
        if fields is not None and fields[0] not in {"Z", "X"}:
            parents[pid] = int(fields[1])
    return parents


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(path: str) -> list[str] | None:
    """The fields from the state on (the third); the name before them may itself hold spaces and brackets."""
    try:
        return _text(path).rpartition(")")[2].split()
    except OSError:
        return None


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
