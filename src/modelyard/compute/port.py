"""The contract between the platform and the place where workloads run.

An *instance* is one supervised process tree: one node of a training, one replica of a model server, one notebook. Its id is chosen by the
caller and is deterministic, so doing a verb twice is the same as doing it once, and a caller that crashed half-way adopts what its
first try made. A backend keeps what it must in its own world; the database of the platform is the record, a backend may forget.

Across a restart of the platform nothing changes for an instance: it goes on, its output is kept, and `observe` answers as
before, with exit, times and output whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Protocol, runtime_checkable

WORKSPACE = "⟦modelyard:workspace⟧"
RUN = "⟦modelyard:run⟧"
CACHE = "⟦modelyard:cache⟧"
DATA = "⟦modelyard:data⟧"
LIBRARY = "⟦modelyard:library⟧"
ROOT = "⟦modelyard:root⟧"
"""In a command's argv, env and files: the real paths, as the process sees them, of `/workspace`, `/run/modelyard`, `/var/cache/modelyard`,
`/var/cache/modelyard-data`, of the directory that holds the package parts (for PYTHONPATH), and of `/` (put before the target of a mount).

The marks are unlike anything that people type, because users' own texts stand beside them.
"""

RUNNER = ("{python}", "-I", "-S", f"{LIBRARY}/modelyard/runner/__main__.py")
"""The beginning of a command that carries out a plan of `modelyard.runner`, whose file follows: without what the environment's packages would do
at the start of their interpreter, which is for scripts alone."""


TOLD = "told.json"
"""Where an instance finds what it was told (`Compute.tell`), below `/run/modelyard`."""


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter with packages, named by its content.

    Attributes:
        name: for people, e.g. `TensorFlow 2.15 (CPU)`.
        python: the Python version wanted, e.g. `3.11`, or a specifier such as `>=3.9,<3.12`.
        requirements: pinned requirements in pip's form, one each.
        core_type: `CPU` environments never pull a CUDA build where the package index offers another.
    """

    name: str
    python: str
    requirements: tuple[str, ...]
    core_type: Literal["CPU", "GPU"] = "CPU"

    @property
    def digest(self) -> str:
        """32 hex digits that name the content (SHA-256 over everything but the display name)."""
        content = json.dumps([self.python, sorted(self.requirements), self.core_type], separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an instance may use at most. `cpus` may be a fraction; sizes are bytes; None means no limit."""

    cpus: float
    memory_bytes: int
    pids: int = 4096
    gpus: int = 0
    storage_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of the host that the instance sees at `target` (an absolute path inside).

    The source of a writable mount is made if it is missing, and belongs to the project's group.
    """

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """Storage that outlives instances: made when it is missing, kept until `remove_volume`. One instance at a time may use it.

    Attributes:
        id: chosen by the caller, `[a-z0-9.-]`.
        target: where the instance sees it.
        size_bytes: what fits; fixed when it is made. Where the machine can, the file system itself holds to it ("no space left").
    """

    id: str
    target: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Command:
    """Run this inside the sandbox.

    Attributes:
        argv: the program and its arguments. `{python}` as `argv[0]` stands for the environment's interpreter. The package parts
            `modelyard.runner` and `modelyard.serving` are importable inside (the backend mounts them read-only and sets PYTHONPATH).
        env: the whole environment of the process, besides the few variables that the backend must set (HOME, PATH, LANG, TMPDIR).
        files: small text files that are written, readable by the instance alone, below `/run/modelyard` inside (e.g. `plan.json`).
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    files: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Build:
    """Build the instance's environment, trusted and outside the sandbox. Ends with exit code 0 when the environment is there."""


@dataclass(frozen=True, slots=True)
class Instance:
    """What is to run.

    Inside, the process is root of its own world: `/workspace` is its working directory and data storage, `/run/modelyard` holds its
    files, sockets and report, `/opt/environment` the environment (read-only), `/var/cache/modelyard` a cache shared by the project, and
    `/var/cache/modelyard-data` files that its runs have fetched (read-only, by md5 and size; offered through `/run/modelyard/data.sock`).
    When it has ended, its working files are given back; its output, report and record stay until `remove`.

    Attributes:
        id: deterministic, at most 100 characters of `[a-z0-9.-]`: `{workload id}.{index}.{attempt}`.
        workload_id, index, attempt: where the instance belongs; instances of one workload can find each other.
        project_id: isolation boundary; caches are shared inside a project only.
        role: `training`, `model-server`, `build`, … for people and for `modelyard status`.
        title: what it is for, for `modelyard status`, e.g. `training 'iris'`.
        environment: needed by `Command` too: its packages are mounted read-only.
        ports: names of TCP ports that its programs will listen on. The backend chooses the numbers and keeps them from all others until the
            instance ends; `Observation.network` tells them. Who listens must set SO_REUSEADDR, as servers do.
        sockets: names of Unix sockets that the instance serves at `/run/modelyard/{name}.sock`; `Observation.sockets` tells where they are outside.
        grace_seconds: from the request to stop (SIGTERM to the main process) until the whole tree is killed.
        timeout_seconds: run time after which the instance is stopped in the same way, with cause TIME_LIMIT.
        volumes: storage that outlives it.
        boot_bytes: the whole root of its file system is its own, writable, empty at the start and of this size.
        has_own_network: nothing of the host's network is there; loopback is its own. What it may reach outside it reaches through
            `/run/modelyard/relay.sock` (see `modelyard.notebook.network`), and what listens on `doors` at the addresses it knows.
        doors: `host:port` of the platform's own front door, reachable from an own network.
        door_names: host names of others that stand for a door in an own network (its HTTP proxy leads there), each with the door.
        ends_as_one: when its memory runs out, all of its processes end; else the largest alone, as always with a root of its own.
        account: who it runs as; instances of one account find each other's files their own. None: an account for its workload.
    """

    id: str
    workload_id: str
    index: int
    attempt: int
    project_id: str
    role: str
    task: Command | Build
    limits: Limits
    environment: Environment | None = None
    mounts: tuple[Mount, ...] = ()
    sockets: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    grace_seconds: float = 30.0
    timeout_seconds: float | None = None
    volumes: tuple[Volume, ...] = ()
    boot_bytes: int | None = None
    has_own_network: bool = False
    doors: tuple[str, ...] = ()
    door_names: Mapping[str, str] = field(default_factory=dict[str, str])
    ends_as_one: bool = True
    account: str | None = None
    title: str = ""


class Phase(StrEnum):
    """Where an instance is. ABSENT: the backend does not know it (never launched, removed, or lost with the machine)."""

    ABSENT = "ABSENT"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    EXITED = "EXITED"


class Cause(StrEnum):
    """Why an instance ended."""

    EXITED = "EXITED"
    SIGNAL = "SIGNAL"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    OUT_OF_STORAGE = "OUT_OF_STORAGE"
    TIME_LIMIT = "TIME_LIMIT"
    STOPPED = "STOPPED"
    LAUNCH_FAILED = "LAUNCH_FAILED"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class Exit:
    """How it ended: `code` for a normal exit, `signal` for a killed process, and one sentence for a person.

    LOST means that the instance's supervisor vanished without a record (the machine went down).
    """

    cause: Cause
    message: str
    code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """Where the other instances of its workload reach an instance.

    Attributes:
        host: a name or an address.
        ports: name → number, for each name in `Instance.ports`.
        interface: the network interface on which they meet, where programs that choose one by themselves would choose wrongly.
    """

    host: str
    ports: Mapping[str, int]
    interface: str | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """One of the instances that are introduced to each other."""

    index: int
    network: Network


@dataclass(frozen=True, slots=True)
class Listed:
    """An instance that the backend knows. `launched_at` is when its launch was recorded."""

    id: str
    workload_id: str
    project_id: str
    role: str
    phase: Phase
    launched_at: datetime


@dataclass(frozen=True, slots=True)
class Observation:
    """What is seen of an instance.

    Attributes:
        report: the newest JSON object that the process itself wrote to `/run/modelyard/report.json` (atomically), e.g.
            `{"step": "fetching", "message": "…", "progress": 0.4}`; written by the runner and by builds. Untrusted input.
        sockets: socket name → path on the host.
        network: where its peers reach it; None until that is known, and for an instance without ports.
        notes: warnings about how it runs, for people (e.g. "not isolated: bubblewrap is missing").
    """

    id: str
    phase: Phase
    exit: Exit | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    pid: int | None = None
    memory_bytes: int | None = None
    cpu_seconds: float | None = None
    report: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sockets: Mapping[str, str] = field(default_factory=dict[str, str])
    network: Network | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Whole bytes of an instance's output from `offset` on; `next_offset` continues. `is_end`: it has ended and nothing follows.

    Offsets count from the first byte ever printed; when rotation has dropped the beginning, the chunk starts later than asked.
    """

    offset: int
    data: bytes
    next_offset: int
    is_end: bool


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the place has in all (after reserves): the admission of workloads counts against it. Zero `gpus` where none was found."""

    cpus: float
    memory_bytes: int
    gpus: int = 0


class LaunchRefused(Exception):
    """The backend can't launch this instance, now or ever; the message says why and what to do."""


class Compute(Protocol):
    """A place where instances run."""

    async def launch(self, instance: Instance) -> None:
        """Start it, or adopt it if it was started before. Returns once the instance would survive a crash of the caller.

        Raises `LaunchRefused` when it can't be started for a reason that trying again does not cure; `RetryLater` otherwise.
        """
        ...

    async def observe(self, ids: Sequence[str]) -> Sequence[Observation]:
        """What is seen of each, in the order asked; unknown ids answer ABSENT."""
        ...

    async def introduce(self, instance_id: str, peers: Sequence[Peer]) -> None:
        """Tell a live instance where all instances of its workload are, itself among them; doing it again is fine.

        It finds them, whole or not at all, in `/run/modelyard/peers.json`: a list of `{"index", "host", "ports", "interface"}` in the order of
        their indices. Introducing one that has ended, or that is not there, does nothing.
        """
        ...

    async def tell(self, instance_id: str, role: str, title: str, text: str) -> None:
        """Tell a live instance what it is from now on; doing it again is fine.

        `role` and `title` take the places of those that it was launched with. Its process finds the text (JSON), whole or not at all, in
        `/run/modelyard/told.json`. Telling one that has ended, or that is not there, does nothing.
        """
        ...

    async def stop(self, instance_id: str, *, insist_after_seconds: float | None = None) -> None:
        """Ask it to end (SIGTERM, grace, then the whole tree is killed). Returns at once; stopping what has ended is fine.

        `insist_after_seconds`: SIGTERM comes a second time then, which the runner takes for: end the user's processes now, and keep what is to
        be kept in what is left of the grace.
        """
        ...

    async def remove(self, instance_id: str) -> None:
        """Forget an ended instance and delete its files and output. Raises `RetryLater` while it still runs."""
        ...

    async def read_logs(self, instance_id: str, offset: int, limit_bytes: int) -> LogChunk:
        """A piece of its output (stdout and stderr together, in order). Beyond the end: an empty piece at the end."""
        ...

    async def list_instances(self) -> Sequence[Listed]:
        """All that was launched and not removed, by id; for the search after what nobody knows of any more."""
        ...

    def watch(self) -> AsyncIterator[str]:
        """Ids of instances of which something new can be observed. Hints only: one may be missing or come twice."""
        ...


@dataclass(frozen=True, slots=True)
class Use:
    """What an instance uses at a moment; None where that can't be told.

    Attributes:
        cpu_seconds: processor time since its start.
        disk_bytes: of its own working files, measured now and then.
        gpu_percent, gpu_memory_bytes: of all its GPUs together (200 % are two at full load); None without any.
    """

    id: str
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    gpu_percent: float | None = None
    gpu_memory_bytes: int | None = None


@runtime_checkable
class MeasuresUse(Protocol):
    """A backend that can tell what instances use."""

    async def measure(self, ids: Sequence[str]) -> Sequence[Use]:
        """What each running instance of these uses now; those that don't run are left out."""
        ...


@runtime_checkable
class HasCapacity(Protocol):
    """A backend that knows its size."""

    async def capacity(self) -> Capacity:
        """What may be given to instances in all."""
        ...


@runtime_checkable
class HoldsEnvironments(Protocol):
    """A backend that builds and keeps environments itself."""

    async def has_environment(self, environment: Environment) -> bool:
        """Whether it is built and usable."""
        ...


@runtime_checkable
class KeepsVolumes(Protocol):
    """A backend whose instances can have volumes."""

    async def remove_volume(self, volume_id: str) -> None:
        """Delete it with all that is in it; one that is not there is fine. Raises `RetryLater` while an instance uses it."""
        ...

    async def has_volume(self, volume_id: str) -> bool:
        """Whether it is there."""
        ...
