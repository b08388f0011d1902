"""The control groups of one instance: made, limited, read, ended and taken away.

Version 2 (one directory), version 1 (a directory for each controller) and mixtures of both (a version 2 tree without controllers
beside version 1, as several distributions and most containers have it) differ here and nowhere else. Which directories an instance
gets is chosen by `limits`. Sources: kernel documentation, `admin-guide/cgroup-v1/` and `admin-guide/cgroup-v2.rst`. Standard
library only, light parts only: the supervisor imports this.
"""

# Plain `os` calls on purpose: pathlib costs a third of the supervisor's whole start.
# ruff: noqa: PTH103, PTH106, PTH112, PTH123, PTH208
from __future__ import annotations

import os
import time

from modelyard.compute.backends.local import kernel

_CPU_PERIOD_MICROSECONDS = 100_000
_MINIMUM_QUOTA_MICROSECONDS = 1_000


class Cgroups:
    """The groups of one instance.

    Args:
        v1: controller (`memory`, `cpu`, `cpuacct`, `pids`, `freezer`) → directory in that controller's hierarchy.
        v2: directory in the unified hierarchy, or None.
        v2_controllers: those of `memory`, `cpu`, `pids` that the unified hierarchy enforces.
    """

    def __init__(self, v1: dict[str, str], v2: str | None, v2_controllers: tuple[str, ...]) -> None:
        self.v1 = v1
        self.v2 = v2
        self.v2_controllers = v2_controllers

    def __bool__(self) -> bool:
        return bool(self.v1) or self.v2 is not None

    @property
    def directories(self) -> list[str]:
        """Every directory, each once."""
        return list(dict.fromkeys([*self.v1.values(), *([self.v2] if self.v2 else [])]))

    def limits(self, controller: str) -> bool:
        """Whether this controller holds the instance to its limit."""
        return controller in self.v1 or (self.v2 is not None and controller in self.v2_controllers)

    def make(self, cpus: float, memory_bytes: int, pids: int, *, ends_as_one: bool = True) -> None:
        """Create the groups and set their limits. Raises OSError that names the file.

        Args:
            ends_as_one: when memory runs out, all processes are killed, not only the largest (version 2 alone can do the former).
        """
        for directory in self.directories:
            os.makedirs(directory, exist_ok=True)
        quota = max(int(cpus * _CPU_PERIOD_MICROSECONDS), _MINIMUM_QUOTA_MICROSECONDS)
        if "memory" in self.v1:
            _write(self.v1["memory"], "memory.limit_in_bytes", memory_bytes)
            _try_write(self.v1["memory"], "memory.memsw.limit_in_bytes", memory_bytes)
        elif self.limits("memory"):
            _write(self.v2, "memory.max", memory_bytes)
            _try_write(self.v2, "memory.swap.max", 0)
            _try_write(self.v2, "memory.oom.group", int(ends_as_one))
        if "cpu" in self.v1:
            _write(self.v1["cpu"], "cpu.cfs_period_us", _CPU_PERIOD_MICROSECONDS)
            _write(self.v1["cpu"], "cpu.cfs_quota_us", quota)
        elif self.limits("cpu"):
            _write(self.v2, "cpu.max", f"{quota} {_CPU_PERIOD_MICROSECONDS}")
        if self.limits("pids"):
            _write(self.v1.get("pids", self.v2), "pids.max", pids)

    def join(self) -> None:
        """Move the calling process (it has one thread), and with it all that it starts, into the groups."""
        for directory in self.v1.values():
            # Not cgroup.procs: to move a whole process the kernel waits for a grace period, 15 to 40 ms each time; for a
            # thread that moves itself it does not.
            _write(directory, "tasks", 0)
        if self.v2 is not None:
            _write(self.v2, "cgroup.procs", 0)

    def members(self) -> list[int]:
        """Processes that are in any of the groups."""
        return sorted({pid for directory in self.directories for pid in _numbers(directory, "cgroup.procs")})

    def memory_bytes(self) -> int | None:
        """Memory in use now, without file pages that the kernel can drop at once."""
        directory, file = self._memory("memory.usage_in_bytes", "memory.current")
        used = _number(directory, file)
        if used is None:
            return None
        name = "total_inactive_file" if "memory" in self.v1 else "inactive_file"
        return max(used - _fields(directory, "memory.stat").get(name, 0), 0)

    def peak_memory_bytes(self) -> int | None:
        """The most memory that was in use at once."""
        return _number(*self._memory("memory.max_usage_in_bytes", "memory.peak"))

    def cpu_seconds(self) -> float | None:
        """Processor time used by all processes that ever were in the groups."""
        if "cpuacct" in self.v1:
            nanoseconds = _number(self.v1["cpuacct"], "cpuacct.usage")
            return None if nanoseconds is None else nanoseconds / 1e9
        microseconds = _fields(self.v2, "cpu.stat").get("usage_usec")
        return None if microseconds is None else microseconds / 1e6

    def out_of_memory_count(self) -> int:
        """How many processes the kernel killed because the groups' memory was used up."""
        directory, file = self._memory("memory.oom_control", "memory.events")
        return _fields(directory, file).get("oom_kill", 0)

    def kill(self) -> bool:
        """Kill every process in the groups at once, or begin to. Returns False where the groups can't do that."""
        if self.v2 is not None and _try_write(self.v2, "cgroup.kill", 1):
            return True
        if not self:
            return False
        is_frozen = self._freeze(True)
        for pid in self.members():
            try:
                os.kill(pid, kernel.SIGKILL)
            except OSError:
                continue
        # A frozen process of version 1 dies only when it is thawed.
        self._freeze(False)
        return is_frozen

    def end(self, seconds: float) -> bool:
        """Kill until nobody is left, then take the groups away. Returns False when somebody is still there after that time."""
        deadline = time.monotonic() + seconds
        while self.members():
            if time.monotonic() > deadline:
                return False
            self.kill()
            time.sleep(0.002)
        return self.remove(deadline)

    def remove(self, deadline: float) -> bool:
        """Take the groups away; the kernel needs a moment after the last process has gone."""
        for directory in self.directories:
            while not _removed(directory):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.005)
        return True

    def _memory(self, v1_file: str, v2_file: str) -> tuple[str | None, str]:
        if "memory" in self.v1:
            return self.v1["memory"], v1_file
        return (self.v2 if self.limits("memory") else None), v2_file

    def _freeze(self, is_frozen: bool) -> bool:
        if "freezer" in self.v1:
            return _try_write(self.v1["freezer"], "freezer.state", "FROZEN" if is_frozen else "THAWED")
        return self.v2 is not None and _try_write(self.v2, "cgroup.freeze", int(is_frozen))


def _removed(directory: str) -> bool:
    try:
        # Groups that the instance itself made inside (it has none of its own, but an administrator's tool may).
        for name in os.listdir(directory):
            if os.path.isdir(f"{directory}/{name}"):
                _removed(f"{directory}/{name}")
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write(directory: str | None, file: str, value: int | str) -> None:
    descriptor = os.open(f"{directory}/{file}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{directory}/{file}") from None
    finally:
        os.close(descriptor)


def _try_write(directory: str | None, file: str, value: int | str) -> bool:
    try:
        _write(directory, file, value)
    except OSError:
        return False
    return True


def _read(directory: str | None, file: str) -> str:
    if directory is None:
        return ""
    try:
        with open(f"{directory}/{file}", encoding="ascii", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _number(directory: str | None, file: str) -> int | None:
    text = _read(directory, file).strip()
    return int(text) if text.isdigit() else None


def _numbers(directory: str, file: str) -> list[int]:
    return [int(line) for line in _read(directory, file).split() if line.isdigit() and line != "0"]


def _fields(directory: str | None, file: str) -> dict[str, int]:
    rows = (line.split() for line in _read(directory, file).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].lstrip("-").isdigit()}
