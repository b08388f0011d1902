"""The part of HTTP/1.1 that talking to a store needs: one connection, one request after the other, bodies both ways.

`http.client` does more and brings the email package with it: its import alone takes longer than fetching a small algorithm, in every
training. Redirects, proxies and cookies are not wanted here.

Source: RFC 9112 (message format), RFC 9110 (methods, statuses, header fields).
"""

from __future__ import annotations

import io

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from typing import Protocol

    from _typeshed import WriteableBuffer
else:
    import _socket as socket  # the module `socket` makes enums of its constants, and loads `selectors`

    Protocol = object

_MAX_LINE_BYTES = 65536
_MAX_HEADERS = 256
_BLOCK_BYTES = 1 << 20
_JOINED_BYTES = 16384


class ProtocolBroken(OSError):
    """The other side went away, or does not speak HTTP/1.1."""


class Readable(Protocol):
    """The part of a binary file that a body is read through."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...  # noqa: PIE790 - for the type checker, to whom this is a protocol

    def close(self) -> None:
        """Let it go."""


class Response:
    """An answer whose body is still to be read. Header names are lower-case; of repeated ones the last counts."""

    def __init__(self, reader: io.BufferedReader[_Incoming], method: str) -> None:
        self._reader = reader
        self.status, version = _status_line(reader)
        self.headers = _headers(reader)
        while 100 <= self.status < 200:
            self.status, version = _status_line(reader)
            self.headers = _headers(reader)
        options = self.headers.get("connection", "").lower()
        self._is_kept = "close" not in options and (version >= "HTTP/1.1" or "keep-alive" in options)
        self._is_chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        self._left = self._body_length(method)

    @property
    def is_reusable(self) -> bool:
        """Whether the connection can carry another request: the body was read to its end and nobody wants to close."""
        return self._is_kept and self._left == 0 and not self._is_chunked

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer with what is there; the number of bytes, 0 at the end. Raises `OSError` when the body breaks off."""
        if self._is_chunked and not self._left and not self._next_chunk():
            return 0
        if self._left == 0:
            return 0
        wanted = len(buffer) if self._left is None else min(len(buffer), self._left)
        count = self._reader.readinto1(buffer[:wanted])
        if count == 0 and self._left is not None:
            raise ProtocolBroken(f"the connection was closed {self._left} bytes before the end")
        if self._left is not None:
            self._left -= count
            if self._is_chunked and self._left == 0:
                _expect(self._reader, b"")
        return count

    def read(self, limit: int | None = None) -> bytes:
        """The body, or its beginning. Raises `OSError` when it breaks off."""
        pieces = bytearray()
        buffer = memoryview(bytearray(_MAX_LINE_BYTES))
        while limit is None or len(pieces) < limit:
            count = self.readinto(buffer)
            if not count:
                break
            pieces += buffer[:count]
        return bytes(pieces if limit is None else pieces[:limit])

    def _body_length(self, method: str) -> int | None:
        if method == "HEAD" or self.status in (204, 304):
            self._is_chunked = False
            return 0
        if self._is_chunked:
            return 0
        length = self.headers.get("content-length")
        if length is None:
            self._is_kept = False
            return None
        if not length.isdigit():
            raise ProtocolBroken(f"the answer has the content length {length!r}")
        return int(length)

    def _next_chunk(self) -> bool:
        """Begin the next chunk; whether there is one. The end of the last takes the trailer with it."""
        size = _line(self._reader).partition(b";")[0].strip()
        try:
            self._left = int(size, 16)
        except ValueError:
            raise ProtocolBroken(f"the answer has the chunk size {size!r}") from None
        if self._left == 0:
            _headers(self._reader)
            self._is_chunked = False
            return False
        return True


class Connection:
    """One connection. After any `OSError` it is to be closed.

    Args:
        timeout_seconds: for each wait on the network.
    """

    def __init__(self, host: str, port: int, *, is_tls: bool, timeout_seconds: float) -> None:
        self._host = f"[{host}]" if ":" in host else host
        if port != (443 if is_tls else 80):
            self._host += f":{port}"
        self._socket = _connect(host, port, timeout_seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if is_tls:
            import socket as sockets  # noqa: PLC0415 - 15 ms that the platform's own front door does not need
            import ssl  # noqa: PLC0415 - see above

            whole = sockets.socket(fileno=self._socket.detach())
            whole.settimeout(timeout_seconds)
            self._socket = ssl.create_default_context().wrap_socket(whole, server_hostname=host)
        self._reader = io.BufferedReader(_Incoming(self._socket), _MAX_LINE_BYTES)
        self._last: Response | None = None
        self._is_spoiled = False

    @property
    def is_idle(self) -> bool:
        """Whether a request can be sent: the last answer was read to its end."""
        return not self._is_spoiled and (self._last is None or self._last.is_reusable)

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: Readable | None = None, size: int = 0
    ) -> Response:
        """Send one request with a body of `size` bytes and read the head of its answer. Raises `OSError`."""
        fields = {"Host": self._host, **headers}
        if body is not None or method == "PUT":
            fields["Content-Length"] = str(size)
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header can't have a line break")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        self._send(head, body)
        self._last = Response(self._reader, method)
        return self._last

    def close(self) -> None:
        """End it."""
        self._reader.close()
        self._socket.close()

    def _send(self, head: bytes, body: Readable | None) -> None:
        if body is None:
            self._socket.sendall(head)
            return
        first = body.read(_JOINED_BYTES)
        try:
            self._socket.sendall(head + first)
            while piece := body.read(_BLOCK_BYTES):
                self._socket.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses a large body answers before it has read all, and closes: its answer is worth more than the error.
            self._is_spoiled = True


class _Incoming(io.RawIOBase):
    """What a socket receives, as a file."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        return self._socket.recv_into(buffer)


def _connect(host: str, port: int, timeout_seconds: float) -> socket.socket:
    """To the first of the host's addresses that answers. Raises `OSError`."""
    failure: OSError | None = None
    # As bytes, a name is not looked at by the codec for international ones, whose tables take longer to load than all else here.
    name = host.encode() if host.isascii() else host
    for family, kind, protocol, _name, address in socket.getaddrinfo(name, port, 0, socket.SOCK_STREAM):
        connected = socket.socket(family, kind, protocol)
        try:
            connected.settimeout(timeout_seconds)
            connected.connect(address)
        except OSError as error:
            connected.close()
            failure = failure or error
        else:
            return connected
    raise failure or OSError(f"{host} has no address")


def _status_line(reader: io.BufferedReader[_Incoming]) -> tuple[int, str]:
    line = reader.readline(_MAX_LINE_BYTES)
    if not line:
        raise ProtocolBroken("the connection was closed without an answer")
    version, _, rest = line.decode("latin-1").partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not status.isdigit():
        raise ProtocolBroken("the answer is not HTTP/1.1")
    return int(status), version


def _headers(reader: io.BufferedReader[_Incoming]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(_MAX_HEADERS):
        line = _line(reader)
        if not line:
            return headers
        name, separator, value = line.decode("latin-1").partition(":")
        if not separator:
            raise ProtocolBroken("the answer has a header without a colon")
        headers[name.strip().lower()] = value.strip()
    raise ProtocolBroken("the answer has too many headers")


def _line(reader: io.BufferedReader[_Incoming]) -> bytes:
    line = reader.readline(_MAX_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise ProtocolBroken("the connection was closed in the middle of an answer")
    return line.rstrip(b"\r\n")


def _expect(reader: io.BufferedReader[_Incoming], expected: bytes) -> None:
    if _line(reader) != expected:
        raise ProtocolBroken("the answer's chunks are not well formed")
