"""Storage paths as values: `obs://` for object stores, `nas://` for network storage.

A path is checked once, where it enters the platform; whoever holds an `ObsPath` or a `NasPath` may build on it without looking again.
Nothing here touches a network or a disk: whether a host is allowed is the business of `modelyard.objectstore.hosts`, whether something
exists is the business of the stores.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

OBS_FORM = "obs://{host}/{version}/AUTH_{tenant}/{container}/{path}"
NAS_FORM = "nas://{id}:/{path}"
MAX_CONTAINER_BYTES = 256
MAX_OBJECT_BYTES = 1024

_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
)
_VERSION = re.compile(r"v[0-9]{1,2}(?:\.[0-9]{1,2})?")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_NAS_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")


class BadStoragePath(ValueError):
    """The text is no storage path; the message says what is wrong and what was expected."""


@dataclass(frozen=True, slots=True)
class ObsPath:
    """A place in an object store.

    Attributes:
        host: lower case, with `:port` where one was written.
        version: of the store's API, e.g. `v1`.
        tenant: the account without its `AUTH_`.
        container: decoded, 1 to 256 bytes.
        path: the object's name or the prefix of a directory, decoded, without a slash at either end; empty for the container itself.
    """

    host: str
    version: str
    tenant: str
    container: str
    path: str = ""

    @property
    def account(self) -> str:
        """The account as it stands in URLs."""
        return f"AUTH_{self.tenant}"

    @property
    def base_name(self) -> str:
        """The last segment: the file's or the directory's name."""
        return self.path.rpartition("/")[2] or self.container

    @property
    def directory_prefix(self) -> str:
        """What the names of all objects below this path begin with."""
        return f"{self.path}/" if self.path else ""

    @property
    def url_path(self) -> str:
        """The path of the object's URL, percent-encoded, beginning with `/`."""
        tail = f"/{quote(self.path)}" if self.path else ""
        return f"/{self.version}/{self.account}/{quote(self.container, safe='')}{tail}"

    def child(self, relative: str) -> ObsPath:
        """The path of something below. Raises `BadStoragePath`; an escape sequence in `relative` is just a name here."""
        return replace(self, path=self.directory_prefix + _checked_path(relative, "the relative path"))

    def __str__(self) -> str:
        """The path as people write it; parsing it again gives the same value."""
        return f"obs://{self.host}{self.url_path}"


@dataclass(frozen=True, slots=True)
class NasPath:
    """A directory on a network storage: the storage's id and a path without a slash at either end (empty for its root)."""

    storage_id: str
    path: str = ""

    def child(self, relative: str) -> NasPath:
        """The path of something below. Raises `BadStoragePath`."""
        below = _checked_path(relative, "the relative path")
        return replace(self, path=f"{self.path}/{below}" if self.path else below)

    def __str__(self) -> str:
        """The path as people write it."""
        return f"nas://{self.storage_id}:/{quote(self.path)}"


StoragePath = ObsPath | NasPath


def parse_storage_path(text: str) -> StoragePath:
    """Read an `obs://` or `nas://` path. Raises `BadStoragePath`."""
    if text.startswith("obs://"):
        return parse_obs_path(text)
    if text.startswith("nas://"):
        return parse_nas_path(text)
    raise BadStoragePath(f"a storage path was expected, {OBS_FORM} or {NAS_FORM}, not {_shown(text)}")


def parse_obs_path(text: str) -> ObsPath:
    """Read an `obs://` path. One slash at the end is allowed and dropped. Raises `BadStoragePath`.

    Escape sequences (`%20`) are decoded once, as every client of the store does when it turns the path into a URL.
    """
    if not text.startswith("obs://"):
        raise BadStoragePath(f"an object storage path was expected, {OBS_FORM}, not {_shown(text)}")
    if "?" in text or "#" in text:
        raise BadStoragePath(f"{_shown(text)} has a '?' or '#'; write them as %3F and %23 where they belong to a name")
    parts = text.removeprefix("obs://").split("/", 4)
    if len(parts) < 4 or not parts[3]:
        raise BadStoragePath(f"{_shown(text)} is incomplete; {OBS_FORM} was expected")
    host, version, account, container = parts[:4]
    _check_host(host, text)
    if not _VERSION.fullmatch(version):
        raise BadStoragePath(
            f"{_shown(text)} has {_shown(version)} where a version such as 'v1' was expected ({OBS_FORM})"
        )
    tenant = account.removeprefix("AUTH_")
    if tenant == account or not _TENANT.fullmatch(tenant):
        raise BadStoragePath(f"{_shown(text)} has {_shown(account)} where AUTH_{{tenant}} was expected ({OBS_FORM})")
    container = _checked_path(_decoded(container, text), text)
    if "/" in container or len(container.encode()) > MAX_CONTAINER_BYTES:
        raise BadStoragePath(f"the container's name in {_shown(text)} must have at most 256 bytes and no slash")
    rest = parts[4] if len(parts) == 5 else ""
    return ObsPath(host.lower(), version, tenant, container, _path_or_root(rest, text))


def parse_nas_path(text: str) -> NasPath:
    """Read a `nas://` path. Raises `BadStoragePath`."""
    if not text.startswith("nas://"):
        raise BadStoragePath(f"a NAS path was expected, {NAS_FORM}, not {_shown(text)}")
    storage_id, separator, rest = text.removeprefix("nas://").partition(":/")
    if not separator:
        raise BadStoragePath(f"{_shown(text)} has no ':/' after the storage's id; {NAS_FORM} was expected")
    if not _NAS_ID.fullmatch(storage_id):
        raise BadStoragePath(
            f"{_shown(text)} has {_shown(storage_id)} where the storage's id was expected ({NAS_FORM})"
        )
    return NasPath(storage_id, _path_or_root(rest, text))


def _check_host(host: str, text: str) -> None:
    match = _HOST.fullmatch(host)
    if not match or ".." in host:
        raise BadStoragePath(f"{_shown(text)} has {_shown(host)} where a host name was expected ({OBS_FORM})")
    port = match["port"]
    if port is not None and not 1 <= int(port) <= 65535:
        raise BadStoragePath(f"{_shown(text)} has port {port}; 1 to 65535 was expected")


def _path_or_root(rest: str, text: str) -> str:
    return _checked_path(_decoded(rest, text).removesuffix("/"), text) if rest else ""


def _decoded(part: str, text: str) -> str:
    if not _ESCAPE.search(part):
        return part
    try:
        plain = unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise BadStoragePath(f"the escape sequences in {_shown(text)} are not UTF-8") from None
    if plain.count("/") != part.count("/"):
        raise BadStoragePath(f"{_shown(text)} hides a slash in an escape sequence; write slashes as they are")
    twice = unquote(plain)
    if twice != plain and (twice.count("/") != plain.count("/") or _path_fault(twice)):
        raise BadStoragePath(f"{_shown(text)} is encoded twice; encode a path once at most")
    return plain


def _checked_path(path: str, text: str) -> str:
    fault = _path_fault(path)
    if fault:
        raise BadStoragePath(f"{_shown(text)} {fault}")
    return path


def _path_fault(path: str) -> str | None:
    if "\\" in path:
        return "has a backslash; segments are separated by '/'"
    if any(unicodedata.category(character) in {"Cc", "Cs", "Cn"} for character in path):
        return "has a control character, a NUL or an unassigned character; names are printable text"
    segments = path.split("/")
    if "" in segments:
        return "has an empty segment ('//', or a slash at the end); every segment needs a name"
    if "." in segments or ".." in segments:
        return "has a segment '.' or '..'; write the path without them"
    if len(path.encode()) > MAX_OBJECT_BYTES:
        return f"is longer than {MAX_OBJECT_BYTES} bytes"
    return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:200]}…")
