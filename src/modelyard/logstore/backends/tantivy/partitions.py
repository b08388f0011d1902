"""The directories that the lines live in.

A partition is an index of its own, named after the day on which it was begun and a counter (`2026-01-31.002`): a new one begins with the day, or
when the last has grown too large. Lines go to the newest partition, whatever their own time says, so that one commit is always one index's commit
and therefore whole or not at all; and the names sort in the order of arrival. Dropping old lines is removing directories.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import tantivy
from tantivy import Order, Query

from modelyard.logstore.backends.tantivy import layout

_META = "meta.json"
_DOOMED = ".removed"
_BROKEN = ".broken"
_NAME = re.compile(r"\d{4}-\d{2}-\d{2}\.\d{6}", re.ASCII)
_log = logging.getLogger(__name__)


class Partition:
    """One index. Opened on first use; sees what others have committed after `refresh`."""

    def __init__(self, path: Path, schema: tantivy.Schema, analyzer: tantivy.TextAnalyzer) -> None:
        self.path = path
        self._schema = schema
        self._analyzer = analyzer
        self._lock = threading.Lock()
        self._index: tantivy.Index | None = None
        self._seen: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.name

    @property
    def ended_at(self) -> datetime:
        """The end of the day (UTC) on which the partition was begun: no line arrived much later."""
        return datetime.fromisoformat(self.name.partition(".")[0]).replace(tzinfo=UTC) + timedelta(days=1)

    def create(self) -> None:
        """Make the directory and the empty index in it."""
        self.path.mkdir(mode=0o700)
        with self._lock:
            self._use(tantivy.Index(self._schema, str(self.path)))
        # tantivy makes the files durable, not the name of the directory that they are in.
        parent = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def searcher(self) -> tantivy.Searcher:
        """A view of what is committed now."""
        with self._lock:
            index = self._opened()
            stat = (self.path / _META).stat()
            seen = (stat.st_mtime_ns, stat.st_ino)
            if seen != self._seen:
                index.reload()
                self._seen = seen
            return index.searcher()

    def writer(self, heap_bytes: int) -> tantivy.IndexWriter:
        """A writer with one thread. The caller waits for its merges and lets it go."""
        with self._lock:
            return self._opened().writer(heap_bytes, 1)

    def top(self, column: str, query: Query | None = None) -> int | None:
        """The highest value of a column among the lines that the query finds (all, if none is given)."""
        return self._extreme(column, Order.Desc, query)

    def bottom(self, column: str) -> int | None:
        """The lowest value of a column."""
        return self._extreme(column, Order.Asc, None)

    def size_bytes(self) -> int:
        """Bytes on disk."""
        return _size_bytes(self.path)

    def _extreme(self, column: str, order: Order, query: Query | None) -> int | None:
        found = self.searcher().search(query or Query.all_query(), 1, count=False, order_by_field=column, order=order)
        return int(found.hits[0][0]) if found.hits else None

    def _opened(self) -> tantivy.Index:
        return self._index or self._use(tantivy.Index.open(str(self.path)))

    def _use(self, index: tantivy.Index) -> tantivy.Index:
        index.register_tokenizer("words", self._analyzer)
        # "manual" keeps tantivy from starting a thread that watches the directory.
        index.config_reader("manual", 0)
        self._index = index
        return index


class Partitions:
    """All partitions under a directory, oldest first. Safe to use from several threads."""

    def __init__(self, directory: Path, schema: tantivy.Schema, analyzer: tantivy.TextAnalyzer) -> None:
        self._directory = directory
        self._schema = schema
        self._analyzer = analyzer
        self._lock = threading.Lock()
        self._known: dict[str, Partition] = {}

    def tidy(self) -> None:
        """Remove what a crash left half made or half removed, and set aside what can't be read. For the writing process only."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._directory.iterdir():
            is_half_made = _NAME.fullmatch(path.name) and not (path / _META).exists()
            if is_half_made or path.name.endswith(_DOOMED):
                shutil.rmtree(path, ignore_errors=True)
        for name in self._names():
            try:
                self._partition(name).searcher()
            except (ValueError, OSError) as error:
                _log.error("Log partition %s is damaged and was set aside as %s%s: %s", name, name, _BROKEN, error)
                (self._directory / name).rename(self._directory / (name + _BROKEN))

    def all(self) -> Sequence[Partition]:
        """The partitions that exist now, oldest first."""
        with self._lock:
            names = self._names()
            for name in self._known.keys() - set(names):
                del self._known[name]
            return [self._known.setdefault(name, self._partition(name)) for name in names]

    def newest(self) -> Partition | None:
        """The one that lines go to, if there is any."""
        partitions = self.all()
        return partitions[-1] if partitions else None

    def begin(self, now: datetime) -> Partition:
        """A new, empty partition after all others, even if the clock was set back."""
        day = now.astimezone(UTC).date().isoformat()
        last = self.newest()
        number = 0
        if last is not None:
            last_day, _, counter = last.name.partition(".")
            if last_day >= day:
                day, number = last_day, int(counter) + 1
        with self._lock:
            partition = self._partition(f"{day}.{number:06d}")
            partition.create()
            self._known[partition.name] = partition
        return partition

    def drop(self, partition: Partition) -> None:
        """Remove a partition. Those who are reading it finish their reading."""
        doomed = partition.path.with_name(partition.name + _DOOMED)
        partition.path.rename(doomed)
        with self._lock:
            self._known.pop(partition.name, None)
        shutil.rmtree(doomed, ignore_errors=True)

    def _names(self) -> list[str]:
        try:
            paths = [path for path in self._directory.iterdir() if _NAME.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        return sorted(path.name for path in paths if (path / _META).exists())

    def _partition(self, name: str) -> Partition:
        return Partition(self._directory / name, self._schema, self._analyzer)


def open_partitions(directory: Path) -> tuple[Partitions, tantivy.Schema, tantivy.TextAnalyzer]:
    """The partitions of a directory with the schema and the analyzer that they share."""
    schema, analyzer = layout.build_schema(), layout.build_analyzer()
    return Partitions(directory, schema, analyzer), schema, analyzer


def found_count(found: tantivy.SearchResult) -> int:
    """How many lines a search found in all; 0 if it was told not to count. (The attribute is missing in tantivy's types.)"""
    count: int | None = getattr(found, "count", None)
    return count or 0


def _size_bytes(path: Path) -> int:
    total = 0
    for file in path.iterdir():
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            # A merge removed it between the two looks.
            continue
    return total
