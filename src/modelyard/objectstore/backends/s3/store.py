"""A remote S3-compatible store, spoken to through obstore. A path's container is the bucket; tenant and version say nothing here."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store as Bucket

from modelyard.objectstore.paths import ObsPath
from modelyard.objectstore.port import NoSuchPath, ObjectPage, ObjectStat, StoreRefused, StoreUnreachable

_PIECE_BYTES = 1024 * 1024
_STATUS = re.compile(r"status code: ([0-9]{3})")
_PART_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """An admin's credentials. `endpoint` is the store's address, e.g. `https://s3.example.org`."""

    endpoint: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str = "us-east-1"
    is_virtual_hosted: bool = False


class S3Store:
    """The store at one host."""

    def __init__(self, credentials: S3Credentials) -> None:
        self._credentials = credentials
        self._buckets: dict[str, Bucket] = {}

    async def head(self, path: ObsPath) -> ObjectStat:
        """What is known of an object. Raises `NoSuchPath`."""
        try:
            answer = await obstore.get_async(self._bucket(path), path.path, options={"head": True})
        except (BaseError, OSError, ValueError) as error:
            raise _told(error, path) from error
        attributes = cast("Mapping[str, str]", answer.attributes)
        return _stat(cast("Mapping[str, Any]", answer.meta), attributes.get("Content-Type", ""))

    async def get(self, path: ObsPath, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes. Raises `NoSuchPath`."""
        try:
            if length is not None:
                options: Any = {"range": (offset, offset + length)}
            else:
                options = {"range": {"offset": offset}} if offset else {}
            answer = await obstore.get_async(self._bucket(path), path.path, options=options)
            async for piece in answer.stream(min_chunk_size=_PIECE_BYTES):
                yield bytes(piece)
        except (BaseError, OSError, ValueError) as error:
            raise _told(error, path) from error

    async def put(
        self, path: ObsPath, content: AsyncIterator[bytes], *, size: int | None = None, content_type: str = ""
    ) -> ObjectStat:
        """Write an object; it appears when it is whole. Raises `NoSuchPath` without the bucket."""
        kind = content_type or mimetypes.guess_type(path.path)[0] or "application/octet-stream"
        attributes: Any = {"Content-Type": kind}
        count = 0
        try:
            writer = obstore.open_writer_async(
                self._bucket(path), path.path, attributes=attributes, buffer_size=_PART_BYTES
            )
            async for piece in content:
                count += len(piece)
                await writer.write(piece)
            if size is not None and count != size:
                # A writer that is not closed leaves no object.
                raise StoreRefused(f"{path} was announced with {size} bytes and came with {count}")
            await writer.close()
        except (BaseError, OSError, ValueError) as error:
            raise _told(error, path) from error
        return await self.head(path)

    async def list(
        self, path: ObsPath, *, prefix: str | None = None, delimiter: str = "", marker: str = "", limit: int = 1000
    ) -> ObjectPage:
        """Objects of the path's bucket in order of names. Raises `NoSuchPath`."""
        wanted = path.directory_prefix if prefix is None else prefix
        # obstore lists by whole directories; the rest of a prefix is filtered here.
        directory = wanted.rpartition("/")[0] or None
        list_bucket = cast("Callable[..., AsyncIterator[Sequence[Mapping[str, Any]]]]", obstore.list)  # pyright: ignore[reportUnknownMemberType]  # its Arrow overload is untyped
        objects: list[ObjectStat] = []
        prefixes: list[str] = []
        last = ""
        try:
            async for batch in list_bucket(self._bucket(path), directory, offset=marker or None, chunk_size=1000):
                for entry in batch:
                    name = str(entry["path"])
                    if not name.startswith(wanted) or (prefixes and name.startswith(prefixes[-1])):
                        continue
                    if len(objects) + len(prefixes) >= limit:
                        return ObjectPage(objects, prefixes, last)
                    end = name.find(delimiter, len(wanted)) if delimiter else -1
                    last = name if end < 0 else name[: end + len(delimiter)]
                    if end < 0:
                        objects.append(_stat(entry, ""))
                    elif last != marker:
                        prefixes.append(last)
        except (BaseError, OSError, ValueError) as error:
            raise _told(error, path) from error
        return ObjectPage(objects, prefixes)

    async def delete(self, path: ObsPath) -> None:
        """Take the object away; what is not there is fine."""
        try:
            await obstore.delete_async(self._bucket(path), path.path)
        except FileNotFoundError:
            return
        except (BaseError, OSError, ValueError) as error:
            raise _told(error, path) from error

    async def sign(self, path: ObsPath, *, method: str = "GET", expires_seconds: float = 3600.0) -> str:
        """A URL that does `method` on the object until it expires."""
        try:
            return await obstore.sign_async(
                self._bucket(path), cast("Any", method), path.path, timedelta(seconds=expires_seconds)
            )
        except (BaseError, OSError, ValueError) as error:
            raise _told(error, path) from error

    def _bucket(self, path: ObsPath) -> Bucket:
        found = self._buckets.get(path.container)
        if found is None:
            credentials = self._credentials
            found = Bucket(
                path.container,
                endpoint=credentials.endpoint,
                access_key_id=credentials.access_key_id,
                secret_access_key=credentials.secret_access_key,
                region=credentials.region,
                virtual_hosted_style_request=credentials.is_virtual_hosted,
                retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
                client_options={"allow_http": credentials.endpoint.startswith("http://")},
            )
            self._buckets[path.container] = found
        return found


def _stat(entry: Mapping[str, Any], content_type: str) -> ObjectStat:
    modified_at: datetime = entry["last_modified"]
    return ObjectStat(
        name=str(entry["path"]),
        size=int(entry["size"]),
        etag=str(entry.get("e_tag") or "").strip('"'),
        content_type=content_type or mimetypes.guess_type(str(entry["path"]))[0] or "application/octet-stream",
        modified_at=modified_at if modified_at.tzinfo else modified_at.replace(tzinfo=UTC),
    )


def _told(error: Exception, path: ObsPath) -> Exception:
    if isinstance(error, FileNotFoundError):
        return NoSuchPath(f"{path} does not exist")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        return StoreRefused(f"the object store refuses {path} for the platform's credentials")
    if isinstance(error, ValueError):
        return StoreRefused(f"the object store can't keep a name such as that of {path}: {error}")
    text = str(error)
    status = _STATUS.search(text)
    if "NoSuchBucket" in text or (status and status[1] == "404"):
        return NoSuchPath(f"{path} does not exist: there is no bucket '{path.container}'")
    if status and status[1].startswith("4") and status[1] not in ("408", "429"):
        return StoreRefused(f"the object store refuses {path} for the platform's credentials (status {status[1]})")
    return StoreUnreachable(f"the object store of {path} does not answer as it should: {text.splitlines()[0]}")
