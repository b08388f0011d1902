"""Where the server stands, in a small file that the platform reads: loading, ready, draining, stopped or failed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path


class Report:
    """Writes `{"step": …, "message": …}`, whole or not at all, so that a reader never sees half of it.

    The same line goes to standard error. A report that can't be written does not stop the server.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None

    def write(self, step: str, message: str, *, sockets: Sequence[str] = ()) -> None:
        """Replace the report. Steps: `loading`, `ready`, `draining`, `stopped`, `failed`. `sockets`: names of those that answer, where there
        are several."""
        print(f"model server: {step}: {message}", file=sys.stderr, flush=True)
        if self._path is None:
            return
        beside = self._path.with_name(f".{self._path.name}.new")
        values: dict[str, object] = {"step": step, "message": message}
        if sockets:
            values["sockets"] = list(sockets)
        try:
            beside.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            print(
                f"model server: the report {self._path} can't be written: {error.strerror}", file=sys.stderr, flush=True
            )
