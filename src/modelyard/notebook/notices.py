"""What the platform has to say to whoever looks at the notebook's page; the page asks for it every few seconds."""

from __future__ import annotations

import contextlib
import json

from modelyard.notebook.telling import write_whole


class Notices:
    """A file with the notices of now. Each has a name: the same name again replaces it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._notices: dict[str, dict[str, str]] = {}
        self._write()

    def put(self, name: str, kind: str, text: str) -> None:
        """Show a notice. `kind` is `info` or `warning`."""
        notice = {"id": name, "kind": kind, "text": text}
        if self._notices.get(name) != notice:
            self._notices[name] = notice
            self._write()

    def drop(self, name: str) -> None:
        """Take a notice away."""
        if self._notices.pop(name, None) is not None:
            self._write()

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            write_whole(self._path, json.dumps({"notices": list(self._notices.values())}, ensure_ascii=False))
