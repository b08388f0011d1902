"""The contract between the platform and the places where objects are kept.

Six verbs over `ObsPath` values, for the platform's own questions: does a path exist, what lies below it, what does a small file say.
Workloads don't come here; they speak to the front door in the Swift dialect. Which store a path belongs to is decided by
`modelyard.objectstore.hosts`, before a byte is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from modelyard.objectstore.access import Access, Principal
from modelyard.objectstore.paths import ObsPath


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What is known of an object: its name in the container, bytes, hex MD5 (or the store's own tag), type and time of writing."""

    name: str
    size: int
    etag: str
    content_type: str
    modified_at: datetime
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """Part of a listing in order of names. `prefixes` are the directories, where a delimiter was given. `marker` continues, None ends."""

    objects: Sequence[ObjectStat]
    prefixes: Sequence[str] = ()
    marker: str | None = None


class NoSuchPath(Exception):
    """There is no such container or object; the message says which."""


class StoreUnreachable(Exception):
    """The store does not answer, or answers with an error that may pass. Trying again later may help."""


class StoreRefused(Exception):
    """The store refuses: wrong credentials, a missing permission, a limit. The message is for a person."""


class StoreFull(Exception):
    """There is no room for the object; nothing of it was kept."""


class ObjectStore(Protocol):
    """A place where objects are kept. All verbs raise `StoreUnreachable` and `StoreRefused`."""

    async def head(self, path: ObsPath) -> ObjectStat:
        """What is known of an object. Raises `NoSuchPath`."""
        ...

    def get(self, path: ObsPath, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes from `offset` on, `length` of them or all, in pieces. Raises `NoSuchPath` before the first piece."""
        ...

    async def put(
        self, path: ObsPath, content: AsyncIterator[bytes], *, size: int | None = None, content_type: str = ""
    ) -> ObjectStat:
        """Write an object in one step: readers see the old one or the whole new one. Raises `NoSuchPath` without the container, `StoreFull`."""
        ...

    async def list(
        self, path: ObsPath, *, prefix: str | None = None, delimiter: str = "", marker: str = "", limit: int = 1000
    ) -> ObjectPage:
        """Objects of the path's container whose names begin with `prefix` (default: below the path), after `marker`. Raises `NoSuchPath`."""
        ...

    async def delete(self, path: ObsPath) -> None:
        """Take the object away; what is not there is fine."""
        ...


@runtime_checkable
class ChecksAccess(Protocol):
    """A store that knows who may do what."""

    async def access_fault(self, path: ObsPath, principal: Principal, wanted: Access) -> str | None:
        """The sentence that says which permission is missing, or None. Raises `NoSuchPath` without the container."""
        ...


class SignsLinks(Protocol):
    """A store that can hand out links which work without a credential for a while."""

    async def sign(self, path: ObsPath, *, method: str = "GET", expires_seconds: float = 3600.0) -> str:
        """A URL that does `method` on the object until it expires."""
        ...


@dataclass(frozen=True, slots=True)
class RelayedAnswer:
    """A remote store's own answer, its body still to be read."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: AsyncIterator[bytes]


class RelaysRequests(Protocol):
    """A store that speaks the Swift dialect itself, so the front door may pass requests on as they came."""

    async def relay(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes] | None,
    ) -> RelayedAnswer:
        """Send a request to `path` (`/{version}/{account}/…`, percent-encoded) with the store's own credentials."""
        ...
