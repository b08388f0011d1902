"""Times as people write them in a query.

A time is a span as long as its last written part: `2026-01-01` is the whole day, `2026-01-01T10:00` the whole minute. That is what makes
`time:2026-01-01` and the inclusive end of a range mean what one expects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from modelyard.logstore.backends.tantivy.layout import microseconds

EXPECTED = "a time such as 2026-01-01, 2026-01-01T09:30:00Z, 2026-01-01T09:30:00.250+09:00, now or now-15m"
_NOW = re.compile(r"now(?:([+-]\d{1,6})([smhdw]))?", re.ASCII)
_EPOCH_MILLISECONDS = re.compile(r"\d{12,14}", re.ASCII)
_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(?::(\d{2}))?(?:[.,](\d{1,6}))?)?(Z|[+-]\d{2}:?\d{2})?",
    re.ASCII | re.IGNORECASE,
)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Span:
    """Microseconds since 1970: `begin` is in the span, `end` is the first one after it."""

    begin: int
    end: int


def read_span(text: str, now: datetime) -> Span | None:
    """The span that the text names, or None if it names none. Times without an offset are UTC."""
    relative = _NOW.fullmatch(text)
    if relative:
        begin = microseconds(_shifted(now, relative))
        return Span(begin, begin + 1)
    if _EPOCH_MILLISECONDS.fullmatch(text):
        return Span(int(text) * 1000, int(text) * 1000 + 1000)
    match = _TIME.fullmatch(text)
    if not match:
        return None
    day, minute, second, fraction, offset = match.groups()
    if fraction and second is None:
        return None
    zone = "+00:00" if offset is None or offset in "Zz" else offset
    try:
        time = datetime.fromisoformat(
            f"{day}T{minute or '00:00'}:{second or '00'}.{(fraction or '').ljust(6, '0')}{zone}"
        )
    except ValueError:
        return None
    begin = microseconds(time)
    return Span(begin, begin + _length(minute, second, fraction))


def _shifted(now: datetime, relative: re.Match[str]) -> datetime:
    if relative[1] is None:
        return now
    try:
        return now + timedelta(**{_UNITS[relative[2]]: int(relative[1])})
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC) if relative[1].startswith("-") else datetime.max.replace(tzinfo=UTC)


def _length(minute: str | None, second: str | None, fraction: str | None) -> int:
    if minute is None:
        return 86_400_000_000
    if second is None:
        return 60_000_000
    if fraction is None:
        return 1_000_000
    return 10 ** (6 - len(fraction))
