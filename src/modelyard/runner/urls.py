"""Addresses of containers: taken apart, and names percent-encoded into them (`urllib.parse` takes longer to load than to fetch a script)."""

from __future__ import annotations

from modelyard.runner.light import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~"
_ENCODED = [chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in range(256)]
_ENCODED_IN_PATH = [*_ENCODED[: ord("/")], "/", *_ENCODED[ord("/") + 1 :]]


class Address(NamedTuple):
    """`http(s)://{host}[:{port}]{path}`; `path` is as it was written, without a slash at its end."""

    is_tls: bool
    host: str
    port: int
    path: str


def parse(url: str) -> Address:
    """The parts of an address. Raises `ValueError` for what is none."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    # Brackets are around an IPv6 address, which has colons of its own.
    host, bracket, behind = authority.rpartition("]")
    if bracket:
        host, port = host.lstrip("["), behind.lstrip(":")
    else:
        host, _, port = authority.partition(":")
    if not separator or scheme not in ("http", "https") or not host or "@" in authority or any(c in url for c in "?#"):
        raise ValueError(f"{url!r} is not an address of a container")
    is_tls = scheme == "https"
    return Address(is_tls, host.lower(), int(port or (443 if is_tls else 80)), (slash + path).rstrip("/"))


def quote(path: str) -> str:
    """A path with everything encoded but slashes and what is always plain (RFC 3986, unreserved)."""
    return "".join([_ENCODED_IN_PATH[byte] for byte in path.encode()])


def unquote(text: str) -> str:
    """What was encoded. Raises `ValueError` for what is no UTF-8."""
    first, *rest = text.encode().split(b"%")
    return b"".join([first, *(bytes([int(piece[:2], 16)]) + piece[2:] for piece in rest)]).decode()


def query(fields: Mapping[str, str]) -> str:
    """The part behind the question mark."""
    return "&".join([f"{_encoded(name)}={_encoded(value)}" for name, value in fields.items()])


def _encoded(text: str) -> str:
    return "".join([_ENCODED[byte] for byte in text.encode()])
