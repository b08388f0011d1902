"""Containers of the platform's front door, which speaks OpenStack Swift's dialect whatever store lies behind it.

What it adds to plain HTTP is patience (the platform may be restarting while a training runs: what may come back is tried again for
minutes) and words (what can't work is told as a sentence that repeats the server's own reason). Requests here can all be repeated
without harm. One connection per thread is kept open.

Source of the dialect: https://docs.openstack.org/api-ref/object-store/ (container listings, large objects).
"""

from __future__ import annotations

import io

from modelyard.runner import jsons, urls
from modelyard.runner.http1 import Connection, Readable, Response
from modelyard.runner.journal import Journal
from modelyard.runner.light import NamedTuple, cast, suppress
from modelyard.runner.outcomes import BAD_PLAN, UPLOAD_FAILED, NotInStore, StepFailed, Stopped
from modelyard.runner.patience import Patience, Transient
from modelyard.runner.refusals import refusal
from modelyard.runner.stop import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from threading import local
    from typing import Any, NoReturn, Protocol, TypeVar

    _Answer = TypeVar("_Answer")
else:
    from _thread import _local as local

    Protocol = object

PAGE_SIZE = 1000
_SOCKET_SECONDS = 60.0
_BULK_HEADERS = ("x-bulk-read", "x-bulk-write", "x-bulk-write-bytes")
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class Stored(NamedTuple):
    """An object as a listing shows it; `etag` is an md5 except for large objects, `written_at` the store's time in its own words."""

    name: str
    size: int
    etag: str
    is_directory: bool
    written_at: str = ""


class Small(NamedTuple):
    """A small object with its content; `etag` is the content's md5 as the store has it."""

    name: str
    etag: str
    modified_at: float
    content: memoryview


class Bulk(NamedTuple):
    """How many objects a store gives and takes at once, and how large a request with several may be; 0 where it doesn't offer that."""

    read_count: int = 0
    write_count: int = 0
    write_bytes: int = 0


class Body(Protocol):
    """What a PUT sends: it can be read from its beginning for every try."""

    size: int

    def open(self) -> Readable:
        """A reader at the beginning of the body."""
        ...  # noqa: PIE790 - for the type checker, to whom this is a protocol


class Container:
    """One container.

    Args:
        url: `http(s)://host[:port]/v1/{account}/{container}`, percent-encoded.
        token: goes into `X-Auth-Token`.
        purpose: `read` or `write`, for sentences about permissions.
        label: the path as the user wrote it, for sentences.

    Attributes:
        bulk: what `read_small` and `write_small` take at once, known once something was listed.
    """

    def __init__(
        self, url: str, token: str, *, purpose: str, label: str, journal: Journal, retry_seconds: float = 300.0
    ) -> None:
        try:
            self._address = urls.parse(url)
            self.name = urls.unquote(self._address.path.rpartition("/")[2])
        except ValueError:
            raise StepFailed(f"{label}: {url!r} is not the address of a container.", BAD_PLAN) from None
        self.label = label
        self.purpose = purpose
        self._token = token
        self._journal = journal
        self._retry_seconds = retry_seconds
        self._local = local()
        self.bulk = Bulk()

    def list(self, prefix: str, stop: Stop) -> Iterator[Stored]:
        """All objects whose names begin with `prefix`, in the order of their names. Raises `NotInStore` without the container."""
        marker = ""
        while True:
            page = self._page(prefix, marker, stop)
            if not page:
                return
            for entry in page:
                yield _stored(entry)
            marker = str(page[-1]["name"])

    def head(self, name: str, stop: Stop) -> Mapping[str, str] | None:
        """The headers of an object (lower-case names), or None when there is none."""
        try:
            return self._patiently(f"look at {name}", stop, lambda _: self._once("HEAD", name)[0])
        except NotInStore:
            return None

    def get(self, name: str, headers: Mapping[str, str]) -> Response:
        """One try at an object's content; the caller reads the answer to its end or calls `drop`. Raises `Transient`, `StepFailed`.

        Answers 200, 206 and 412 are returned, all others become exceptions.
        """
        response = self._send("GET", self._object_path(name), headers, None)
        if response.status not in (200, 206, 412):
            self._fail(response, name)
        return response

    def read(self, name: str, stop: Stop) -> bytes:
        """The whole content of a small object. Raises `NotInStore`."""
        return self._patiently(f"read {name}", stop, lambda _: self._once("GET", name)[1])

    def read_small(self, names: Sequence[str]) -> list[Small]:
        """Several small objects by one request, at one try; those that come. Raises `Transient`, `StepFailed`."""
        body = _Text(jsons.dumps(names).encode())
        _headers, content = self._once("POST", "", {"Content-Type": "application/json"}, body, {"bulk-read": ""})
        found: list[Small] = []
        begin = 0
        try:
            while begin < len(content):
                end = content.index(b"\n", begin)
                head = jsons.loads(content[begin:end])
                begin = end + 1 + int(head["size"])
                small = memoryview(content)[end + 1 : begin]
                found.append(Small(str(head["name"]), str(head["etag"]), float(head["modified_at"]), small))
        except (ValueError, TypeError, KeyError) as error:
            raise Transient(f"its answer can't be read ({error})") from None
        return found

    def write_small(self, objects: Mapping[str, tuple[str, bytes]], stop: Stop) -> None:
        """Store several small objects by one request, all or none: md5 and content by name. Raises `StepFailed`."""
        frames: list[bytes] = []
        for name, (etag, content) in objects.items():
            head = jsons.dumps({"name": name, "size": len(content), "etag": etag}).encode()
            frames += [head, b"\n", content]
        body = _Text(b"".join(frames))
        headers = {"Content-Type": "application/octet-stream"}

        def attempt(_: None) -> None:
            self._once("POST", "", headers, body, {"bulk-write": ""})

        self._patiently(f"store {len(objects)} objects", stop, attempt)

    def put(
        self,
        name: str,
        body: Body | None,
        headers: Mapping[str, str],
        stop: Stop,
        query: Mapping[str, str] | None = None,
    ) -> Mapping[str, str]:
        """Store an object; the answer's headers (lower-case names). `body` None is an empty object."""
        return self._patiently(f"store {name}", stop, lambda _: self._once("PUT", name, headers, body, query)[0])

    def delete(self, name: str, stop: Stop) -> None:
        """Remove an object; none there is fine."""
        try:
            self._patiently(f"remove {name}", stop, lambda _: self._once("DELETE", name)[0])
        except NotInStore:
            return

    def patience(self, stop: Stop) -> Patience:
        """A fresh patience for a piece of work on this container."""
        return Patience(self.label, self._retry_seconds, self._journal, stop)

    def drop(self) -> None:
        """Forget this thread's connection, whose answer was not read to its end."""
        connection = self._connection()
        self._local.connection = None
        if connection is not None:
            with suppress(OSError):
                connection.close()

    def _patiently(self, what: str, stop: Stop, attempt: Callable[[None], _Answer]) -> _Answer:
        patience = self.patience(stop)
        while True:
            try:
                return attempt(None)
            except Transient as reason:
                patience.wait(what, reason)

    def _page(self, prefix: str, marker: str, stop: Stop) -> list[dict[str, Any]]:
        query = {"format": "json", "limit": str(PAGE_SIZE), "prefix": prefix, "marker": marker}
        query = {key: value for key, value in query.items() if value}

        def attempt(_: None) -> list[dict[str, Any]]:
            headers, content = self._once("GET", "", {"Accept": "application/json"}, None, query)
            offered = (headers.get(name, "") for name in _BULK_HEADERS)
            self.bulk = Bulk(*(int(text) if text.isdigit() else 0 for text in offered))
            try:
                return [cast("dict[str, Any]", entry) for entry in jsons.loads(content or b"[]") if "name" in entry]
            except (ValueError, TypeError) as error:
                raise Transient(f"its listing can't be read ({error})") from None

        return self._patiently("list", stop, attempt)

    def _once(
        self,
        method: str,
        name: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        query: Mapping[str, str] | None = None,
    ) -> tuple[Mapping[str, str], bytes]:
        """One request with a small answer."""
        path = self._object_path(name) if name else self._address.path
        if query:
            path += "?" + urls.query(query)
        response = self._send(method, path, headers or {}, body)
        if response.status >= 300:
            self._fail(response, name)
        try:
            content = response.read()
        except OSError as error:
            self.drop()
            raise Transient(f"the connection broke ({_reason(error)})") from None
        return response.headers, content

    def _send(self, method: str, path: str, headers: Mapping[str, str], body: Body | None) -> Response:
        """One request, on this thread's connection; once more when a kept connection turns out to be gone."""
        is_kept = self._connection() is not None
        try:
            return self._exchange(method, path, headers, body)
        except OSError as error:
            self.drop()
            if not is_kept:
                raise Transient(_reason(error)) from None
        try:
            return self._exchange(method, path, headers, body)
        except OSError as error:
            self.drop()
            raise Transient(_reason(error)) from None

    def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: Body | None) -> Response:
        connection = self._connection()
        if connection is None or not connection.is_idle:
            self.drop()
            connection = self._connect()
        sent = {"X-Auth-Token": self._token, "User-Agent": "modelyard-runner", **headers}
        if body is None:
            return connection.request(method, path, sent)
        try:
            reader = body.open()
        except OSError as error:
            raise StepFailed(f"'{error.filename}' can't be read: {error.strerror}.", UPLOAD_FAILED) from error
        try:
            return connection.request(method, path, sent, reader, body.size)
        except Stopped:
            self.drop()
            raise
        finally:
            reader.close()

    def _connection(self) -> Connection | None:
        return cast("Connection | None", getattr(self._local, "connection", None))

    def _connect(self) -> Connection:
        at = self._address
        connection = Connection(at.host, at.port, is_tls=at.is_tls, timeout_seconds=_SOCKET_SECONDS)
        self._local.connection = connection
        return connection

    def _object_path(self, name: str) -> str:
        return f"{self._address.path}/{urls.quote(name)}"

    def _fail(self, response: Response, name: str) -> NoReturn:
        """Turn an answer that is not a success into an exception."""
        try:
            content = response.read(8192)
        except OSError:
            content = b""
        self.drop()
        if response.status in _TRANSIENT_STATUSES:
            raise Transient(f"it answers {response.status}", _retry_after(response))
        raise refusal(response.status, content, self.purpose, f"'{name}' of {self.label}" if name else self.label)


class _Text:
    """A body that is at hand."""

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._content = content

    def open(self) -> Readable:
        return io.BytesIO(self._content)


def seconds_of(written_at: str) -> float:
    """A listing's time (`2024-05-31T12:00:00.123456`, UTC) in seconds since 1970; 0 for what is none.

    By hand, as `datetime` is not worth its import here (days by the algorithm of the proleptic Gregorian calendar).
    """
    try:
        year, month, day = int(written_at[:4]), int(written_at[5:7]), int(written_at[8:10])
        hours, minutes, seconds = int(written_at[11:13]), int(written_at[14:16]), float(written_at[17:].rstrip("Z"))
    except ValueError:
        return 0.0
    shifted = year - (month <= 2)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + of_year - 719468
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _stored(entry: Mapping[str, Any]) -> Stored:
    name = str(entry["name"])
    return Stored(
        name=name,
        size=int(entry.get("bytes") or 0),
        etag=str(entry.get("hash") or "").strip('"'),
        is_directory=name.endswith("/") or entry.get("content_type") == "application/directory",
        written_at=str(entry.get("last_modified") or ""),
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def _retry_after(response: Response) -> float:
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdigit() else 0.0
