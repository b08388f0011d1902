"""Headers of the Swift dialect: metadata and its limits, expiry, times, tags.

Source of limits and texts: OpenStack Swift (`swift.conf`'s default constraints).
"""

from __future__ import annotations

import mimetypes
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from starlette.datastructures import Headers

from modelyard.objectstore.access import BadAccessList, clean_access_list
from modelyard.objectstore.backends.local.model import (
    DEFAULT_CONTENT_TYPE,
    MAX_META_COUNT,
    MAX_META_TOTAL,
    TICKS_PER_SECOND,
    ContainerChange,
    ticks_to_datetime,
    ticks_to_whole_seconds,
)
from modelyard.server.doors.objects_answers import PLAIN, refuse

MAX_META_NAME = 128
MAX_META_VALUE = 256
# Headers besides metadata that are kept with an object and go out with it.
_KEPT = (
    "Content-Disposition",
    "Content-Encoding",
    "X-Object-Manifest",
    "Cache-Control",
    "Content-Language",
    "Expires",
    "X-Robots-Tag",
)
_DELETE_AT_LIMIT = 9_999_999_999


def metadata_headers(headers: Headers, kind: str) -> dict[str, str]:
    """`X-{kind}-Meta-*` headers in title case, within the limits; `X-Remove-{kind}-Meta-*` come as empty values.

    `kind` is Account, Container or Object.
    """
    prefix, removal = f"x-{kind.lower()}-meta-", f"x-remove-{kind.lower()}-meta-"
    found: dict[str, str] = {}
    size = 0
    for name, value in headers.items():
        key = name.lower()
        if key.startswith(removal) and kind != "Object":
            found.setdefault(_titled(f"{prefix}{key.removeprefix(removal)}"), "")
            continue
        if not key.startswith(prefix):
            continue
        short = key.removeprefix(prefix)
        size += len(short) + len(value)
        _check_metadata(prefix, short, value, is_utf8_wanted=kind != "Object")
        found[_titled(key)] = value
        if len(found) > MAX_META_COUNT:
            raise refuse(400, f"Too many metadata items; max {MAX_META_COUNT}", content_type=PLAIN)
        if size > MAX_META_TOTAL:
            raise refuse(400, f"Total metadata too large; max {MAX_META_TOTAL}", content_type=PLAIN)
    return found


def object_headers(headers: Headers) -> dict[str, str]:
    """Everything that is kept with an object: its metadata and the few standard headers."""
    found = metadata_headers(headers, "Object")
    for name in _KEPT:
        value = headers.get(name)
        if value or (value is not None and name != "X-Object-Manifest"):
            found[name] = value
    manifest = found.get("X-Object-Manifest")
    if manifest is not None:
        container, _, prefix = manifest.lstrip("/").partition("/")
        if not container or not prefix or "?" in manifest or "&" in manifest:
            raise refuse(400, "X-Object-Manifest must be in the format container/prefix")
    return found


def delete_at(headers: Headers, now_ticks: int) -> int | None:
    """When the object is to disappear, in seconds since 1970, from `X-Delete-After` or `X-Delete-At`."""
    now = now_ticks / TICKS_PER_SECOND
    after, at = headers.get("x-delete-after"), headers.get("x-delete-at")
    if after is not None:
        seconds = _integer(after, "X-Delete-After")
        if int(now + seconds) <= now:
            raise refuse(400, "X-Delete-After in past", content_type=PLAIN)
        return min(int(now + seconds), _DELETE_AT_LIMIT)
    if at is not None:
        seconds = _integer(at, "X-Delete-At")
        if seconds <= now:
            raise refuse(400, "X-Delete-At in past", content_type=PLAIN)
        return min(seconds, _DELETE_AT_LIMIT)
    return None


def container_change(headers: Headers) -> ContainerChange:
    """What a PUT or POST on a container sets."""
    lists: dict[str, str | None] = {}
    for kind in ("Read", "Write"):
        name = f"X-Container-{kind}"
        value = headers.get(name)
        if value is None and f"X-Remove-Container-{kind}" in headers:
            value = ""
        try:
            lists[kind] = None if value is None else clean_access_list(name, value)
        except BadAccessList as error:
            raise refuse(400, str(error)) from None
    return ContainerChange(metadata_headers(headers, "Container"), lists["Read"], lists["Write"])


def content_type_for(headers: Headers, name: str) -> str:
    """The type that is kept: as sent, or guessed from the name where none was sent or guessing was asked for."""
    sent = headers.get("content-type", "")
    is_detected = headers.get("x-detect-content-type", "").lower() in {"true", "1", "yes", "on", "t", "y"}
    if is_detected or not sent:
        return mimetypes.guess_type(name)[0] or DEFAULT_CONTENT_TYPE
    return checked_content_type(sent)


def checked_content_type(sent: str) -> str:
    """A content type as sent; refuses what is reserved or not UTF-8."""
    try:
        sent.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise refuse(400, "Invalid Content-Type", content_type=PLAIN) from None
    if any(part.strip().startswith("swift_") for part in sent.split(";")[1:]):
        raise refuse(400, "Invalid Content-Type, swift_* is not a valid parameter name.")
    return sent


def http_date(ticks: int) -> str:
    """A time in ticks as `Last-Modified` shows it: rounded up to the second."""
    return format_datetime(datetime.fromtimestamp(ticks_to_whole_seconds(ticks), UTC), usegmt=True)


def timestamp(ticks: int) -> str:
    """A time in ticks as `X-Timestamp` shows it: seconds with five decimals."""
    return f"{ticks // TICKS_PER_SECOND}.{ticks % TICKS_PER_SECOND:05d}"


def iso_time(ticks: int) -> str:
    """A time in ticks as listings show it, with microseconds and without an offset."""
    return ticks_to_datetime(ticks).strftime("%Y-%m-%dT%H:%M:%S.%f")


def unmet_condition(headers: Headers, etag: str | None, modified_at: int | None) -> int | None:
    """304 or 412 where a condition of the request does not hold; None where all hold. `etag` is None where there is no object.

    Order and meaning as in Swift; dates that can't be read are no condition. `modified_at` in ticks.
    """
    if etag is None or modified_at is None:
        return 412 if "*" in _tags(headers.get("if-match")) else None
    unwanted = _tags(headers.get("if-none-match"))
    if "*" in unwanted or etag in unwanted:
        return 304
    wanted = _tags(headers.get("if-match"))
    if wanted and "*" not in wanted and etag not in wanted:
        return 412
    seconds = ticks_to_whole_seconds(modified_at)
    since = _date_seconds(headers.get("if-modified-since"))
    if since is not None and seconds <= since:
        return 304
    until = _date_seconds(headers.get("if-unmodified-since"))
    return 412 if until is not None and seconds > until else None


def _check_metadata(prefix: str, short: str, value: str, *, is_utf8_wanted: bool) -> None:
    if not short:
        raise refuse(400, "Metadata name cannot be empty", content_type=PLAIN)
    if is_utf8_wanted and not (_is_utf8(short) and _is_utf8(value)):
        raise refuse(400, "Metadata must be valid UTF-8", content_type=PLAIN)
    shown = f"{prefix}{short.title()}"
    if len(short) > MAX_META_NAME:
        raise refuse(400, f"Metadata name too long: {shown}", content_type=PLAIN)
    if len(value) > MAX_META_VALUE:
        raise refuse(400, f"Metadata value longer than {MAX_META_VALUE}: {shown}", content_type=PLAIN)


def _integer(text: str, header: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise refuse(400, f"Non-integer {header}", content_type=PLAIN) from None


def _tags(value: str | None) -> set[str]:
    return {tag.strip().strip('"') for tag in value.split(",") if tag.strip()} if value else set()


def _date_seconds(value: str | None) -> float | None:
    if not value:
        return None
    try:
        return parsedate_to_datetime(value).replace(tzinfo=UTC).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode("latin-1").decode()
    except UnicodeDecodeError:
        return False
    return True


def _titled(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))
