"""Who is signed in, and what there is to visit, free of any framework."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

CODE_SECONDS = 60
"""How long a one-time code is good for."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a sign-in lasts.

    Attributes:
        idle: without a single request.
        whole: however much it is used. A visit by an access token lasts as long as `idle`.
    """

    idle: timedelta = timedelta(hours=12)
    whole: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Somebody's sign-in in a browser."""

    id: str
    user_id: str
    user_name: str
    is_admin: bool
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    address: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class Target:
    """Something that people visit.

    Attributes:
        kind: a key of `origins.LABELS`.
        title: how pages call it, e.g. `notebook 'iris'`.
    """

    kind: str
    id: str
    project_id: str
    title: str


@dataclass(frozen=True, slots=True)
class Opening:
    """What stands behind an address at the moment.

    Attributes:
        is_ready: its route is there and it answers.
        is_coming: waiting helps; the page looks again by itself. Else `message` says what to do.
        message: a sentence for a person.
    """

    is_ready: bool
    is_coming: bool = False
    message: str = ""


@runtime_checkable
class NotesUse(Protocol):
    """A resource that wants to know that somebody looks at a thing (at most once a minute)."""

    async def note_use(self, id: str) -> None:
        """Somebody looks at it."""
        ...


class Openable(Protocol):
    """A resource whose things are visited. One is registered per kind (`Visits.targets`)."""

    async def find_target(self, id: str) -> Target | None:
        """The thing of this id, whatever its project."""
        ...

    async def open_target(self, target: Target, actor: str) -> Opening:
        """Have it ready for a visitor: starts it where that is what opening means. Can be called again and again."""
        ...


@dataclass(frozen=True, slots=True)
class Holder:
    """By what right somebody visits: a sign-in, or an access token of which this is the digest. Exactly one is set."""

    session_id: str | None = None
    credential: str | None = None


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who passes. `user_id` is empty for a project's own credentials, whose `name` is what events record."""

    user_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A code that was taken: the visit's token, for a cookie, until when, and where in the thing to go."""

    token: str
    expires_at: datetime
    path: str
