"""What the own store speaks of: accounts, containers, objects, and what goes wrong with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from modelyard.kit.clock import Clock
from modelyard.objectstore.access import Grants

EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
TICKS_PER_SECOND = 100_000
MAX_META_COUNT = 90
MAX_META_TOTAL = 4096
DEFAULT_CONTENT_TYPE = "application/octet-stream"


class NoSuchContainer(Exception):
    """The container does not exist."""


class NoSuchObject(Exception):
    """The object does not exist, or its time is over."""


class ContainerNotEmpty(Exception):
    """The container has objects and can't be deleted."""


class ObjectExists(Exception):
    """The object must not exist for this request, and does."""


class TooMuchMetadata(Exception):
    """A container or an account would have more metadata than is kept in all."""


class BlobMissing(Exception):
    """The blob is gone: its object was replaced or deleted a moment ago."""


class BlobStoreFull(Exception):
    """There is no room for the blob; nothing of it was kept."""


def ticks_now(clock: Clock) -> int:
    """The time in ticks of 10 µs since 1970."""
    now = clock()
    return int(now.timestamp()) * TICKS_PER_SECOND + now.microsecond // 10


def ticks_to_datetime(ticks: int) -> datetime:
    """A count of ticks as a time in UTC."""
    seconds, rest = divmod(ticks, TICKS_PER_SECOND)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 10)


def ticks_to_whole_seconds(ticks: int) -> int:
    """Rounded up, as Swift does, so that what was changed never seems older than it is."""
    return math.ceil(ticks / TICKS_PER_SECOND)


@dataclass(frozen=True, slots=True)
class Account:
    """A tenant's account: its metadata headers and totals. `created_at` in ticks."""

    name: str
    created_at: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    container_count: int = 0
    object_count: int = 0
    bytes_used: int = 0


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the index has it. Times in ticks; `headers` are its `X-Container-Meta-*` in title case."""

    id: str
    account: str
    name: str
    created_at: int
    modified_at: int
    object_count: int
    bytes_used: int
    headers: Mapping[str, str]
    read_acl: str | None
    write_acl: str | None
    is_acl_set: bool

    @property
    def grants(self) -> Grants:
        """Its access lists."""
        return Grants(self.account.removeprefix("AUTH_"), self.name, self.read_acl, self.write_acl, self.is_acl_set)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as the index has it.

    Attributes:
        blob_key: where the bytes are; None for an empty object.
        size: bytes that a listing shows: for a static large object those of all its segments.
        stored_size: bytes of the blob: for a static large object those of its manifest.
        etag: hex MD5 of the blob.
        modified_at: in ticks.
        headers: what goes out with the object as it came: `X-Object-Meta-*`, `Content-Disposition`, `X-Object-Manifest` … in title case.
        delete_at: when it disappears, in seconds since 1970.
        slo_etag: for a static large object, hex MD5 over its segments' tags.
    """

    container_id: str
    name: str
    blob_key: str | None
    size: int
    stored_size: int
    etag: str
    content_type: str
    modified_at: int
    headers: Mapping[str, str]
    delete_at: int | None = None
    slo_etag: str | None = None

    @property
    def dlo_prefix(self) -> str | None:
        """`{container}/{prefix}` (percent-encoded) of a dynamic large object."""
        return self.headers.get("X-Object-Manifest")


@dataclass(frozen=True, slots=True)
class NewObject:
    """What a writer says about an object before the index knows it; the fields are those of `StoredObject`."""

    blob_key: str | None
    size: int
    stored_size: int
    etag: str
    content_type: str
    headers: Mapping[str, str]
    delete_at: int | None = None
    slo_etag: str | None = None


@dataclass(frozen=True, slots=True)
class ContainerChange:
    """What a PUT or POST changes: metadata (an empty value removes) and lists (None leaves, an empty text removes)."""

    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    read_acl: str | None = None
    write_acl: str | None = None

    @property
    def sets_acl(self) -> bool:
        """Whether a list is set or removed."""
        return self.read_acl is not None or self.write_acl is not None


@dataclass(frozen=True, slots=True)
class ListingRequest:
    """Which names are wanted, in Swift's terms; `path` is the old form of prefix and delimiter."""

    limit: int = 10_000
    marker: str = ""
    end_marker: str = ""
    prefix: str = ""
    delimiter: str = ""
    path: str | None = None
    is_reverse: bool = False


@dataclass(frozen=True, slots=True)
class Subdirectory:
    """All names that share a beginning up to the delimiter."""

    name: str
