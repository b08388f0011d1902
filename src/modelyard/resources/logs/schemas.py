"""Wire shapes of log search and of a workload's own output."""

from __future__ import annotations

from typing import Any

from modelyard.wire import Header, Moment, Wire


class LogSearchOut(Wire):
    """`GET /logs`: lines as the guide's appendix names their fields. `cursor` continues; null at the end."""

    header: Header = Header()
    log_list: list[dict[str, Any]]
    total_count: int
    cursor: str | None = None


class OutputOut(Wire):
    """A piece of an instance's output. Offsets count bytes from its first one; `nextOffset` continues.

    `attempt` says in which attempt it was printed, where there may be several; offsets begin anew with each.
    """

    text: str
    offset: int
    next_offset: int
    is_end: bool
    attempt: int | None = None


class OutputOne(Wire):
    """`GET /trainings/{id}/logs` and `GET /endpoint-stages/{id}/logs`."""

    header: Header = Header()
    output: OutputOut


class EventOut(Wire):
    """One change of a resource's state."""

    time: Moment
    actor: str
    old_status_code: str | None = None
    new_status_code: str
    status_reason: str | None = None
    status_message: str | None = None


class EventList(Wire):
    """`GET /trainings/{id}/events` and the like, oldest first."""

    header: Header = Header()
    event_list: list[EventOut]
