"""What a workload is asked to be, and what is seen of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict

from modelyard.resources.workloads.lifecycle import WorkloadState

_MAX_DEPTH = 6
_MAX_ITEMS = 200
_MAX_TEXT_CHARACTERS = 8000
_MAX_INTEGER = 2**63


class Desired(StrEnum):
    """What is wanted of a resource now. Deleting wins over everything."""

    RUN = "run"
    STOP = "stop"
    DELETE = "delete"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class EnvironmentSpec(_Frozen):
    """The environment of the instances (see `modelyard.compute.port.Environment`)."""

    name: str
    python: str
    requirements: tuple[str, ...]
    core_type: Literal["CPU", "GPU"] = "CPU"


class LimitsSpec(_Frozen):
    """What each instance may use at most; sizes in bytes."""

    cpus: float
    memory_bytes: int
    pids: int = 4096
    gpus: int = 0
    storage_bytes: int | None = None


class MountSpec(_Frozen):
    """A directory of the host at an absolute path inside."""

    source: str
    target: str
    read_only: bool = False


class VolumeSpec(_Frozen):
    """Storage that outlives the workload (see `modelyard.compute.port.Volume`)."""

    id: str
    target: str
    size_bytes: int


NO_ROOM = "WAITING_FOR_ROOM"
"""The reason of a workload that waits for room, for all of it or for more instances."""
TOKEN = "⟦modelyard:token⟧"  # noqa: S105  # a mark that stands for a token
INDEX = "⟦modelyard:index⟧"
ATTEMPT = "⟦modelyard:attempt⟧"


class CommandSpec(_Frozen):
    """What runs. In every text `TOKEN` becomes a fresh token of the project's system account, `INDEX` the instance's number,
    `ATTEMPT` how often it was started before."""

    argv: tuple[str, ...]
    env: dict[str, str] = {}
    files: dict[str, str] = {}


class LogSpec(_Frozen):
    """Output goes to the log store too, with these fields."""

    category: str
    fields: dict[str, str] = {}


class WorkloadSpec(_Frozen):
    """What is to run.

    Attributes:
        owner_kind, owner_id: the resource that is woken when something changes.
        title: how messages call it, e.g. `training 'iris'`.
        command: None builds the environment instead.
        socket: the Unix socket that each instance serves HTTP on, and `ready_path` the path that answers 200 when it may get requests.
        more_sockets: others that it may serve as well; its report's `sockets` says which ones answer.
        restart: `always` starts an instance again when it ends (with back-off); `never` makes the workload end with its instances.
        ready_seconds: with `restart="always"`, how long an instance may run without ever having been ready until it counts as failed.
        silent_seconds: with `restart="always"`, how long one that was ready may not be until it is ended and started again; None: for ever.
        lost_restarts: how often a workload that the machine lost (not one that failed) is started anew.
        failure_restarts: how often one that failed is started anew. A time limit counts over all attempts and is never tried again.
        fatal_codes: exit codes after which another attempt would end in the same way.
        ports: TCP ports of each instance. With them, the instances start together: each reports the step `waiting` when it could begin, and
            when all of them do, they are introduced to each other.
        is_spare: it is ended when something else needs its room, waits for none itself, and is nobody's until `Workloads.give`.
        told: JSON that its instances find in `/run/modelyard/told.json`, also when it changes while they run.
        cpu_share: with what part of its cores each instance is counted where cores are promised; less than 1 for who mostly waits for people.
        volumes, boot_bytes, has_own_network, ends_as_one, account: see `modelyard.compute.port.Instance`. Volumes stay when the workload goes.
    """

    owner_kind: str
    owner_id: str
    role: str
    title: str
    instances: int = 1
    limits: LimitsSpec
    environment: EnvironmentSpec | None = None
    command: CommandSpec | None = None
    mounts: tuple[MountSpec, ...] = ()
    socket: str | None = None
    more_sockets: tuple[str, ...] = ()
    ready_path: str | None = None
    grace_seconds: float = 30.0
    timeout_seconds: float | None = None
    ready_seconds: float | None = 3600.0
    silent_seconds: float | None = None
    restart: Literal["never", "always"] = "never"
    lost_restarts: int = 3
    failure_restarts: int = 0
    fatal_codes: tuple[int, ...] = ()
    ports: tuple[str, ...] = ()
    log: LogSpec | None = None
    volumes: tuple[VolumeSpec, ...] = ()
    boot_bytes: int | None = None
    has_own_network: bool = False
    ends_as_one: bool = True
    account: str | None = None
    is_spare: bool = False
    cpu_share: float = 1.0
    told: str | None = None


class Usage(_Frozen):
    """What a running workload takes now, all instances together. `cpu_seconds` counts from its start."""

    memory_bytes: int
    cpu_seconds: float


class ExitSeen(_Frozen):
    """How an instance ended (see `modelyard.compute.port.Exit`)."""

    cause: str
    message: str
    code: int | None = None
    signal: int | None = None


class NetworkSeen(_Frozen):
    """Where an instance's peers reach it (see `modelyard.compute.port.Network`)."""

    host: str
    ports: dict[str, int]
    interface: str | None = None


class InstanceSeen(_Frozen):
    """What was last seen of an instance.

    Attributes:
        attempt: how often it was started anew.
        is_launched: the launch was confirmed once; what is absent now is lost.
        silent_since: when it was seen to be ready no more.
        address: of its HTTP socket, for routes; `more_addresses` of the others that its own report says answer too.
    """

    id: str
    index: int
    attempt: int = 0
    is_launched: bool = False
    phase: str = "ABSENT"
    is_ready: bool = False
    was_ready: bool = False
    missed_probes: int = 0
    silent_since: datetime | None = None
    failures: int = 0
    retry_at: datetime | None = None
    exit: ExitSeen | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    report: dict[str, Any] = {}
    address: str | None = None
    more_addresses: tuple[str, ...] = ()
    network: NetworkSeen | None = None
    notes: tuple[str, ...] = ()
    told: str | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of its HTTP sockets that answer."""
        return (*(() if self.address is None else (self.address,)), *self.more_addresses)


class Retired(_Frozen):
    """An instance of a former attempt, ended, of which files and output are still kept."""

    id: str
    retired_at: datetime


class WorkloadStatus(_Frozen):
    """What was last seen.

    Attributes:
        attempt: how often all was started anew; with `restart="always"`, the lowest number that an instance may have that is added.
        lost_count: how often of these because the machine went down (not because the platform was shut down).
        failure_count: how often because it failed.
        used_seconds: run time of the former attempts.
        retry_at: nothing of this attempt is launched before.
        is_introduced: the instances of this attempt know each other: their processes have started.
        obstacle, obstacle_since: why not all instances of this attempt could be launched.
        failed_index: the instance that is to blame for the end.
        retired: what former attempts have left behind.
    """

    attempt: int = 0
    lost_count: int = 0
    failure_count: int = 0
    used_seconds: float = 0.0
    retry_at: datetime | None = None
    is_introduced: bool = False
    obstacle: str | None = None
    obstacle_since: datetime | None = None
    failed_index: int | None = None
    instances: tuple[InstanceSeen, ...] = ()
    retired: tuple[Retired, ...] = ()

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """Everything that the backend may know of this workload."""
        return (*(item.id for item in self.instances), *(item.id for item in self.retired))


class Held(_Frozen):
    """What workloads hold together while they are admitted."""

    cpus: float
    memory_bytes: int
    gpus: int


class Workload(_Frozen):
    """A workload as others see it."""

    id: str
    project_id: str
    spec: WorkloadSpec
    status: WorkloadStatus
    desired: Desired
    state: WorkloadState
    reason: str | None
    message: str | None
    created_at: datetime

    @property
    def report(self) -> Mapping[str, Any]:
        """What the first instance's process last said of itself."""
        return self.status.instances[0].report if self.status.instances else {}

    @property
    def failed(self) -> InstanceSeen | None:
        """The instance that is to blame for the end, where it ended badly."""
        index = self.status.failed_index
        return next((seen for seen in self.status.instances if seen.index == index), None)

    @property
    def ready_addresses(self) -> tuple[str, ...]:
        """Addresses of the instances that may get requests."""
        return self.ready_addresses_of(self.spec.instances)

    def ready_addresses_of(self, count: int) -> tuple[str, ...]:
        """The same of the first `count` instances: those that stay when it is resized to so many."""
        return tuple(address for seen in self._ready_of(count) for address in seen.addresses)

    def ready_count_of(self, count: int) -> int:
        """How many of the first `count` instances may get requests. One may have several addresses."""
        return sum(bool(seen.address) for seen in self._ready_of(count))

    def _ready_of(self, count: int) -> list[InstanceSeen]:
        wanted = min(count, self.spec.instances)
        return [seen for seen in self.status.instances if seen.index < wanted and seen.is_ready]

    @property
    def started_at(self) -> datetime | None:
        """When the first of its present instances started."""
        return min((seen.started_at for seen in self.status.instances if seen.started_at), default=None)

    @property
    def ended_at(self) -> datetime | None:
        """When the last of its instances ended, once all have."""
        ends = [seen.ended_at for seen in self.status.instances]
        return max((end for end in ends if end), default=None) if ends and all(ends) else None


def instance_id(workload_id: str, index: int, attempt: int) -> str:
    """The deterministic id of an instance."""
    return f"{workload_id}.{index}.{attempt}"


def plain_text(text: str) -> str:
    """A text that a process of a user wrote, without the characters that PostgreSQL refuses, and not endless."""
    text = text[:_MAX_TEXT_CHARACTERS]
    if "\x00" in text:
        text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return text.encode("utf-8", "replace").decode("utf-8")


def plain_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report (any JSON that an instance chose to write) without what can't be kept, or is deeper or longer than a report has reason to be.

    PostgreSQL takes neither NUL characters nor half surrogates nor NaN; one of them would keep the workload's whole status from being
    written, for ever.
    """
    kept = _plain(dict(report), _MAX_DEPTH)
    return cast(dict[str, Any], kept) if isinstance(kept, dict) else {}


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, int):
        return value if abs(value) < _MAX_INTEGER else None
    if isinstance(value, float):
        return (
            value if abs(value) < _MAX_INTEGER else None
        )  # neither NaN nor infinity; jsonb keeps larger ones as integers
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        items = list(cast(Mapping[Any, Any], value).items())[:_MAX_ITEMS]
        return {plain_text(str(name)): _plain(item, depth - 1) for name, item in items}
    if isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in cast(list[Any], value)[:_MAX_ITEMS]]
    return None
