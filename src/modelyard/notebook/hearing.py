"""What the platform says to a notebook that runs already: `told.json` in its run directory, replaced as a whole."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple, cast

_LIMIT_BYTES = 65536


class Told(NamedTuple):
    """What holds from now on.

    Attributes:
        idle_minutes: say that nobody uses the notebook after so long; None for never.
        used_at: somebody was at work then, Unix time: the notebook was given to its user, or its settings were changed.
    """

    idle_minutes: int | None
    used_at: float

    def to_json(self) -> str:
        """A JSON object with the attributes' names as keys."""
        return json.dumps(self._asdict())


class Hearing:
    """Looks whether something new was said."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None

    def news(self) -> Told | None:
        """What was said since the last look, if anything; what can't be read is not heard."""
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_ino)
            if seen == self._seen:
                return None
            self._seen = seen
            with open(self._path, encoding="utf-8") as file:
                content: Any = json.loads(file.read(_LIMIT_BYTES))
        except (OSError, ValueError):
            return None
        fields = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
        minutes, used_at = fields.get("idle_minutes"), fields.get("used_at")
        if not isinstance(used_at, int | float) or not isinstance(minutes, int | None):
            return None
        return Told(minutes, used_at)
