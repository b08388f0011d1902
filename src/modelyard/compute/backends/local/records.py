"""What the supervisor leaves on disk about one instance, and where.

The directory of an instance belongs to the platform alone; only `workspace`, `home`, `tmp` and the run directory are shown to the
instance. Every record is written whole or not at all. `plan` is what the server asks of the supervisor; it is written and read
by one interpreter within a moment, so `marshal` may carry it (reading JSON would double the supervisor's start). The other
records are JSON, for the server and for people. Standard library only, light parts only: the supervisor imports this.
"""

# Plain `os` calls on purpose: pathlib costs a third of the supervisor's whole start.
# ruff: noqa: PTH104, PTH120, PTH123
from __future__ import annotations

import marshal
import os

TYPE_CHECKING = False  # for type checkers; the module `typing` costs more than the rest of the start
if TYPE_CHECKING:
    from typing import NotRequired, TypedDict

    from modelyard.compute.backends.local.datacache import CachePlan

    class Plan(TypedDict):
        """What the supervisor is to do. Paths are the host's."""

        id: str
        argv: list[str]
        sandbox_arguments: list[str]  # for bubblewrap's `--args`; empty where it is not used
        env: dict[str, str]
        cwd: str
        directories: list[tuple[str, int, int, int]]  # path, mode, uid, gid; made in this order if missing
        shared_directories: list[str]  # sources of writable mounts: made if missing, given to the group
        links: NotRequired[list[tuple[str, str]]]  # symbolic links of a plain process: path, target
        files: list[tuple[str, str]]  # path, text
        uid: int | None  # None: the platform's own user
        gid: int | None
        # Sources that only root may be able to reach, and how far each is trusted (`child.STAGED`). The n-th appears as
        # `{stage_at}/{n}` in a mount namespace of the child.
        stage: list[tuple[str, str]]
        stage_at: str
        has_guard: bool  # no process namespace: a guardian holds the tree together
        cgroups_v1: dict[str, str]
        cgroup_v2: str | None
        cgroup_v2_controllers: tuple[str, ...]
        cpus: float
        memory_bytes: int
        ends_as_one: bool
        pids: int
        storage_bytes: int | None
        storage_directories: list[str]
        storage_interval_seconds: float
        run_directory: str
        ports: list[str]  # names
        grace_seconds: float
        timeout_seconds: float | None
        segment_bytes: int
        segment_count: int
        data_cache: NotRequired[CachePlan]  # none: nothing is kept for other runs
        hints_directory: str
        hints_name: str
        relay: NotRequired[RelayPlan]

    class RelayPlan(TypedDict):
        """How an instance with a network of its own reaches the outside (see `relay`)."""

        socket: str
        doors: list[str]  # host:port of the front door
        names: dict[str, str]  # host names that stand for one of them
        allowed: list[str]  # host:port on this machine that may be reached all the same: package indexes

    class SupervisorRecord(TypedDict):
        """Written before anything of the instance runs."""

        pid: int
        start_ticks: int
        boot_id: str

    class StartRecord(TypedDict):
        """Written once the process is on its way. `init_pid`: the first process of its namespace, or the process itself."""

        started_at: float
        init_pid: int
        init_ticks: int
        has_namespace: int

    class ExitRecord(TypedDict):
        """How it ended."""

        cause: str
        message: str
        code: NotRequired[int | None]
        signal: NotRequired[int | None]
        started_at: float | None
        ended_at: float
        peak_memory_bytes: int | None
        cpu_seconds: float | None
        output_bytes: int
        lost_output_bytes: int


INSTANCE, PLAN, SUPERVISOR, START, EXIT = "instance.json", "plan", "supervisor.json", "start.json", "exit.json"
PORTS = "ports.json"
"""Numbers of the ports by their names, written before the supervisor's record."""
STOP = "stop"
"""A request to end, of two words: the grace in seconds, and after how many the request is repeated; `-` for the instance's own and never."""
LAUNCH_LOCK, SUPERVISOR_LOCK = "launch.lock", "supervisor.lock"
LOGS = "logs"
DATA_DOOR = "data.sock"
"""In the run directory: where the instance offers files to the data cache."""
REPORT = "report.json"


def load_plan(directory: str) -> Plan:
    """The plan of this instance. Raises OSError, ValueError, EOFError, TypeError where there is none or it is broken."""
    with open(f"{directory}/{PLAN}", "rb") as file:
        return marshal.load(file)  # noqa: S302 - written by the platform into a directory of its own


def save_plan(directory: str, plan: Plan) -> None:
    """Put the plan there, readable by the platform alone: it holds the instance's environment, which may hold secrets."""
    write_whole(f"{directory}/{PLAN}", marshal.dumps(dict(plan)), is_durable=False)


def write_record(path: str, record: dict[str, str | int | float | None], *, is_durable: bool) -> None:
    """Write a flat record as JSON."""
    fields = ", ".join(f"{_quoted(key)}: {_as_json(value)}" for key, value in record.items())
    write_whole(path, f"{{{fields}}}\n".encode(), is_durable=is_durable)


def relay_json(relay: RelayPlan) -> str:
    """The relay's plan as JSON, for its command line."""
    doors, allowed = (f"[{', '.join(map(_quoted, relay[name]))}]" for name in ("doors", "allowed"))
    names = ", ".join(f"{_quoted(name)}: {_quoted(door)}" for name, door in relay["names"].items())
    return f'{{"socket": {_quoted(relay["socket"])}, "doors": {doors}, "allowed": {allowed}, "names": {{{names}}}}}'


def write_whole(path: str, content: bytes, *, is_durable: bool) -> None:
    """Write so that every reader sees all of it or none; `is_durable`: also after a crash of the machine, once this returns."""
    draft = f"{path}.{os.getpid()}.draft"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        if is_durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(draft, path)
    if is_durable:
        sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """Make names that were made or changed in this directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _as_json(value: str | int | float | None) -> str:
    if value is None:
        return "null"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    escaped = "".join(
        character if " " <= character <= "~" and character not in '"\\' else _escape(ord(character))
        for character in text
    )
    return f'"{escaped}"'


def _escape(point: int) -> str:
    if point < 0x10000:
        return f"\\u{point:04x}"
    point -= 0x10000
    return f"\\u{0xD800 + (point >> 10):04x}\\u{0xDC00 + (point & 0x3FF):04x}"
