"""Figures as people read them."""

from __future__ import annotations


def format_bytes(count: float) -> str:
    """Bytes in decimal units, e.g. `12.3 MB`."""
    if count < 1000:
        return format_count(int(count), "byte")
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def format_count(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_rate(bytes_count: int, seconds: float) -> str:
    """`, 12.3 MB/s`, or nothing where too little was moved to tell."""
    if bytes_count < 100_000 or seconds <= 0:
        return ""
    return f", {bytes_count / seconds / 1e6:.1f} MB/s"
