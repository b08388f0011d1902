"""What the store of metrics speaks of, free of any framework."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from modelyard.kit.errors import Fault

MAX_NAME_CHARACTERS = 255
MAX_POINTS_A_WRITE = 10_000
MAX_INSTANCE = 99

_INSTANCE = re.compile(r"instance-(\d{1,2})/")


@dataclass(frozen=True, slots=True)
class EventFiles:
    """Where the platform keeps event files: one directory for each experiment, in it one for each training.

    They stay when a training has ended and go when it is deleted. What the first instance writes lies in it as the script has left it; each further
    instance has a directory of its own in it, `instance-1`, `instance-2` and so on (the runner sees to that).
    """

    root: Path

    def of_experiment(self, experiment_id: str | None) -> Path:
        """The directory of an experiment's trainings; of those without an experiment for None."""
        return self.root / (experiment_id or "none")

    def of_training(self, experiment_id: str | None, training_id: str) -> Path:
        """The directory of a training's event files."""
        return self.of_experiment(experiment_id) / training_id


def split_instance(name: str, instance_count: int) -> tuple[int, str]:
    """Instance and metric of a name that begins with the directories below a training's event files."""
    match = _INSTANCE.match(name) if instance_count > 1 else None
    if match is None or int(match[1]) >= instance_count:
        return 0, name
    return int(match[1]), name[match.end() :]


@dataclass(frozen=True, slots=True)
class Run:
    """A run as metrics see it: what it is, and the parameters that it was started with."""

    id: str
    name: str
    state: str
    created_at: datetime
    group_id: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Owner:
    """What metrics belong to.

    Attributes:
        kind, id: the resource, e.g. a training.
        group_id: what it is compared within, e.g. its experiment.
        instance_count: how many instances may write points of it.
    """

    kind: str
    id: str
    project_id: str
    group_id: str | None = None
    instance_count: int = MAX_INSTANCE + 1


@dataclass(frozen=True, slots=True)
class Point:
    """A value of a metric at a step; `time` in microseconds since 1970. A point is known by step and time: sent again it is the same one."""

    name: str
    step: int
    time: int
    value: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a run may report; what goes beyond is dropped, and a note says so."""

    series_per_run: int = 1000
    points_per_series: int = 5_000_000


def name_fault(name: str) -> str | None:
    """What is wrong with a metric's name, or None."""
    if not name.strip():
        return "must not be empty"
    if len(name) > MAX_NAME_CHARACTERS:
        return f"must have at most {MAX_NAME_CHARACTERS} characters (it has {len(name)})"
    return None if name.isprintable() else "must not contain control characters"


def too_many(field_name: str, limit: int, count: int) -> Fault:
    """The fault of a list that is too long."""
    return Fault(field_name, f"must have at most {limit} items (it has {count})")
