"""Writing lines: each once, whole batches or nothing, and giving back memory and disk.

Everything here runs on the store's one writing thread. tantivy's writer costs its heap and seven threads, so it exists only while
lines come in.
"""

from __future__ import annotations

import ctypes
import logging
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter

import tantivy

from modelyard.kit.clock import Clock
from modelyard.logstore.backends.tantivy import layout
from modelyard.logstore.backends.tantivy.errors import LogsNotKept
from modelyard.logstore.backends.tantivy.marks import ARRIVALS, Marks
from modelyard.logstore.backends.tantivy.matching import Matcher
from modelyard.logstore.backends.tantivy.partitions import Partition, Partitions, found_count
from modelyard.logstore.port import LogLine

_log = logging.getLogger(__name__)
_MAX_SOURCES = 10_000
# A clock that was set back by no more than this must not turn the lines of a source around; beyond it, a line said a wrong time before.
_MAX_STEP_BACK = 600_000 << layout.ARRIVAL_BITS
_BEFORE_ALL = -1


class LineWriter:
    """Appends to the newest partition and drops the oldest."""

    def __init__(
        self, partitions: Partitions, matcher: Matcher, marks: Marks, *, heap_bytes: int, max_bytes: int, clock: Clock
    ) -> None:
        self._partitions = partitions
        self._matcher = matcher
        self._marks = marks
        self._heap_bytes = heap_bytes
        self._max_bytes = max_bytes
        self._clock = clock
        self._partition: Partition | None = None
        self._writer: tantivy.IndexWriter | None = None
        # Per source its highest position and order. Only what is committed, or about to be by the batch at hand.
        self._sources: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._arrival: int | None = None

    def write(self, lines: Sequence[LogLine]) -> None:
        """Keep those of the lines that are new, durably, or raise `LogsNotKept` and keep none of them."""
        try:
            fresh = self._fresh(lines)
            if fresh:
                self._commit(fresh)
        except BaseException as error:
            # Everything, because a panic inside tantivy arrives as an exception that is no `Exception`.
            self._forget()
            raise LogsNotKept(str(error)) from error
        while len(self._sources) > _MAX_SOURCES:
            self._sources.popitem(last=False)

    def position(self, source: str) -> int | None:
        """The highest position of a source that was ever kept, or None."""
        position, _ = self._mark(source, self._partitions.all())
        return None if position == _BEFORE_ALL else position

    def remove_before(self, time: datetime) -> int:
        """Drop lines that are older than this, or that arrived in a partition whose day was over by then; the number dropped."""
        cut = layout.microseconds(time)
        return sum(self._trim(partition, time, cut) for partition in self._partitions.all())

    def rest(self) -> None:
        """Give back the writer's memory and threads, after its merges."""
        writer, self._writer, self._partition = self._writer, None, None
        if writer is not None:
            writer.wait_merging_threads()
            del writer
            _give_back_memory()

    def _fresh(self, lines: Sequence[LogLine]) -> list[tuple[LogLine, int, int]]:
        """The lines that are not kept yet, with their order and arrival, each source's in the order of its positions."""
        arrival = self._next_arrival()
        partitions = self._partitions.all()
        fresh: list[tuple[LogLine, int, int]] = []
        for line in _in_order(lines):
            last_position, last_order = self._mark(line.source, partitions)
            if line.position <= last_position:
                continue
            order = layout.natural_order(line, arrival)
            if order <= last_order < order + _MAX_STEP_BACK:
                order = last_order + 1
            fresh.append((line, order, arrival))
            self._sources[line.source] = (line.position, order)
            arrival += 1
        return fresh

    def _commit(self, fresh: Sequence[tuple[LogLine, int, int]]) -> None:
        partition, writer = self._ready()
        for line, order, arrival in fresh:
            writer.add_document(layout.to_document(line, order, arrival))
        writer.commit()
        self._arrival = fresh[-1][2] + 1
        if partition.size_bytes() > self._max_bytes // 8:
            self.rest()
            self._partition = self._partitions.begin(self._clock())
            self._keep_size()

    def _ready(self) -> tuple[Partition, tantivy.IndexWriter]:
        """The partition of today and its writer."""
        now = self._clock()
        partition = self._partition or self._partitions.newest()
        if partition is None or partition.ended_at <= now:
            self.rest()
            partition = self._partitions.begin(now)
        if self._writer is None or self._partition is not partition:
            self.rest()
            self._writer = partition.writer(self._heap_bytes)
            self._partition = partition
        return partition, self._writer

    def _mark(self, source: str, partitions: Sequence[Partition]) -> tuple[int, int]:
        """Position and order of the source's last line."""
        known = self._sources.get(source)
        if known is not None:
            self._sources.move_to_end(source)
            return known
        found = self._indexed_mark(source, partitions)
        dropped = self._marks.position(source)
        mark = (max(found[0], _BEFORE_ALL if dropped is None else dropped), found[1])
        self._sources[source] = mark
        return mark

    def _indexed_mark(self, source: str, partitions: Sequence[Partition]) -> tuple[int, int]:
        query = self._matcher.source(source)
        for partition in reversed(partitions):
            position = partition.top("position", query)
            if position is not None:
                return position, partition.top("order", query) or 0
        return _BEFORE_ALL, 0

    def _next_arrival(self) -> int:
        if self._arrival is None:
            tops = (partition.top("arrival") for partition in reversed(self._partitions.all()))
            top = next((top for top in tops if top is not None), 0)
            # Counted from 1, so that a follower who has seen nothing stands at 0.
            self._arrival = max(top, self._marks.position(ARRIVALS) or 0) + 1
        return self._arrival

    def _forget(self) -> None:
        """After a failure nothing in memory is trusted: what was committed is read from the index again."""
        writer, self._writer, self._partition = self._writer, None, None
        self._sources.clear()
        self._arrival = None
        if writer is None:
            return
        # Ended by name: the error at hand holds the writer alive, and with it tantivy's lock on the partition.
        for step in (writer.rollback, writer.wait_merging_threads):
            try:
                step()
            except BaseException as error:
                _log.warning("The log store's writer failed while it was given up (%s); it is made anew.", error)

    def _trim(self, partition: Partition, time: datetime, cut: int) -> int:
        newest = partition.top("at")
        if newest is None or newest < cut or partition.ended_at <= time:
            return self._drop(partition)
        oldest = partition.bottom("at")
        if oldest is None or oldest >= cut:
            return 0
        old = self._matcher.between(None, cut)
        count = found_count(partition.searcher().search(old, 1))
        self._remember(partition)
        self.rest()
        writer = partition.writer(self._heap_bytes)
        writer.delete_documents_by_query(old)
        writer.commit()
        writer.wait_merging_threads()
        return count

    def _drop(self, partition: Partition) -> int:
        count = partition.searcher().num_docs
        self._remember(partition)
        if self._partition is partition:
            self.rest()
        self._partitions.drop(partition)
        return count

    def _remember(self, partition: Partition) -> None:
        """Mark how far the partition's sources have come, before their lines go."""
        searcher = partition.searcher()
        positions = {ARRIVALS: partition.top("arrival") or 0}
        for source, _ in searcher.terms_with_prefix("source", ""):
            position = partition.top("position", self._matcher.source(source))
            if position is not None:
                positions[source] = position
        self._marks.raise_to(positions)

    def _keep_size(self) -> None:
        """Drop the oldest partitions until all of them together fit; never the newest."""
        partitions = list(self._partitions.all())
        sizes = [partition.size_bytes() for partition in partitions]
        excess = sum(sizes) - self._max_bytes
        for partition, size in zip(partitions[:-1], sizes, strict=False):
            if excess <= 0:
                return
            count = self._drop(partition)
            _log.info(
                "Log partition %s (%d lines) was dropped: the log store has reached its size.", partition.name, count
            )
            excess -= size


def _in_order(lines: Sequence[LogLine]) -> Sequence[LogLine]:
    """The lines as they came, unless that turns the lines of a source around."""
    last: dict[str, int] = {}
    for line in lines:
        if line.position < last.get(line.source, _BEFORE_ALL):
            return sorted(lines, key=attrgetter("position"))
        last[line.source] = line.position
    return lines


def _give_back_memory() -> None:
    """Return what the writer has freed to the system; glibc keeps it otherwise, and an idle platform's memory is counted."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        # Another C library, which has its own ways.
        return
