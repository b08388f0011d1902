"""How far each source had come when its lines were dropped.

The index answers how far a source has come while it holds the source's lines. Retention removes lines of sources that may still be
alive; without a mark, a shipper that asks after them would send the whole file once more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Sources are never empty, so this name is free for the store's own counter of arrivals.
ARRIVALS = ""


class Marks:
    """A durable table of positions by source. Used from one thread at a time; absent until something is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def position(self, source: str) -> int | None:
        """The mark of a source, or None."""
        if not self._path.exists():
            return None
        with self._connection() as connection:
            row = connection.execute("SELECT position FROM marks WHERE source = ?", (source,)).fetchone()
        return None if row is None else int(row[0])

    def raise_to(self, positions: Mapping[str, int]) -> None:
        """Set marks; none ever goes down. Durable on return."""
        with self._connection() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS marks (source TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID"
            )
            connection.executemany(
                "INSERT INTO marks VALUES (?, ?) ON CONFLICT (source) DO UPDATE SET position = max(position, excluded.position)",
                positions.items(),
            )

    @contextmanager
    def _connection(self) -> Generator[sqlite3.Connection, None, None]:
        connection = sqlite3.connect(self._path)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            with connection:
                yield connection
        finally:
            connection.close()
