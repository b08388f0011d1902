"""How far an installer's downloads are, from the lines that it prints.

uv and pip print for people at a terminal; a build runs without one and tells a percentage to somebody who waits in a browser.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_GROWTH = 4.0  # files of the frameworks' wheels, unpacked, against their download: 3.7 to 4.9 times
_UNIT_BYTES = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
_DOWNLOAD = re.compile(
    r"^\s*(?P<verb>Downloading|Downloaded)\s+(?P<name>\S+)(?:\s+\((?P<size>[\d.]+)\s*(?P<unit>[kKMG]i?B)\))?"
)


class Downloads:
    """Follows what the installer fetches: it names packages of a megabyte and more when they begin, and when they are there.

    In between it tells nothing, minutes long for a framework on a slow line; so the bytes that it writes (it unpacks while it
    fetches) are counted too, for an estimate.
    """

    def __init__(self, on_download: Callable[[str, float], None]) -> None:
        self._sizes: dict[str, int] = {}
        self._done: set[str] = set()
        self._share = 0.0
        self._on_download = on_download

    def see(self, line: str) -> None:
        """Take a line of the installer's."""
        found = _DOWNLOAD.match(line)
        if found is None:
            return
        if found["size"]:
            self._sizes[found["name"]] = int(float(found["size"]) * _UNIT_BYTES.get(found["unit"], 1024**2))
        if found["verb"] == "Downloaded":
            self._done.add(found["name"])
        fetched = sum(size for name, size in self._sizes.items() if name in self._done)
        self._tell(fetched / max(sum(self._sizes.values()), 1))

    def unpacked(self, written: int) -> None:
        """Take the number of bytes that the installer has written."""
        if self._sizes:
            self._tell(min(0.95, written / (_GROWTH * sum(self._sizes.values()))))

    def _tell(self, share: float) -> None:
        self._share = max(self._share, share)
        missing = {name: size for name, size in self._sizes.items() if name not in self._done}
        largest = max(missing, key=lambda name: missing[name], default="")
        rest = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        what = f"{largest} ({missing[largest] / 1e6:,.0f} MB){rest}" if largest else "all fetched"
        self._on_download(what, self._share)
