"""The log store of one server: the port on tantivy, embedded.

Calls come in on the event loop; all work happens on threads: one that writes, two that read. Appends are gathered: whatever comes in within a
fifth of a second goes into one commit, and every caller waits for the commit that holds its lines. That makes many small appends cost what one
costs, and an answer still means "on disk".

What this leaves to others: which lines are sent at all, when `remove_before` is called, and who may ask for which app key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from modelyard.kit.clock import Clock, utc_now
from modelyard.logstore.backends.tantivy import layout
from modelyard.logstore.backends.tantivy.errors import LogStoreClosed, LogStoreTooNew
from modelyard.logstore.backends.tantivy.lock import WriterLock
from modelyard.logstore.backends.tantivy.marks import Marks
from modelyard.logstore.backends.tantivy.matching import Matcher
from modelyard.logstore.backends.tantivy.partitions import open_partitions
from modelyard.logstore.backends.tantivy.reading import LineReader
from modelyard.logstore.backends.tantivy.writing import LineWriter
from modelyard.logstore.port import LogLine, LogPage, LogQuery

T = TypeVar("T")
_log = logging.getLogger(__name__)
_READING_THREADS = 2


@dataclass(frozen=True, slots=True)
class LogStoreSettings:
    """What may be tuned, each with the reason for its value.

    Attributes:
        gather_seconds: how long an append waits for others to share its commit. A commit costs 10 to 40 ms of disk, so five a second are nothing.
        gather_lines: a commit starts at once when this many lines wait; it also bounds what is lost in memory by a failed one.
        gather_bytes: the same for the bodies' total length.
        waiting_bytes: appends are held back while more than this waits to be written, so that a slow disk does not fill the memory.
        heap_bytes: tantivy's buffer while lines come in; 15 MB is the least it takes.
        rest_seconds: after this long without lines the writer, its threads and its buffer are given back.
        max_bytes: total size on disk; beyond it the oldest eighth goes.
    """

    gather_seconds: float = 0.2
    gather_lines: int = 20_000
    gather_bytes: int = 8_000_000
    waiting_bytes: int = 64_000_000
    heap_bytes: int = 15_000_000
    rest_seconds: float = 60.0
    max_bytes: int = 20_000_000_000


@dataclass(slots=True)
class _Waiting:
    """An append that waits for its commit."""

    lines: Sequence[LogLine]
    done: asyncio.Future[None]
    size: int


@dataclass(slots=True)
class _Queue:
    """Appends not yet given to the writing thread."""

    appends: list[_Waiting] = field(default_factory=list[_Waiting])
    line_count: int = 0
    size: int = 0


class TantivyLogs:
    """A `LogStore` in a directory.

    Use it as an asynchronous context manager, or call `open` and `close`. One process writes to a directory; any number may open it with
    `is_reader=True` and search.

    Raises on `open`: `LogStoreInUse`, `LogStoreTooNew`, OSError (not writable).
    Raises on `append`: `LogsNotKept` (full disk and the like: the same lines may be sent again), `LineNotValid`, `LogStoreClosed`.
    """

    def __init__(
        self, root: Path, settings: LogStoreSettings | None = None, *, is_reader: bool = False, clock: Clock = utc_now
    ) -> None:
        self._root = root
        self._settings = settings or LogStoreSettings()
        self._is_reader = is_reader
        self._clock = clock
        self._lock = WriterLock(root)
        self._queue = _Queue()
        self._arrived = asyncio.Event()
        self._is_full = asyncio.Event()
        self._has_room = asyncio.Event()
        self._reader: LineReader | None = None
        self._writer: LineWriter | None = None
        self._reading: ThreadPoolExecutor | None = None
        self._writing: ThreadPoolExecutor | None = None
        self._committing: asyncio.Task[None] | None = None
        self._is_closing = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Take the store into use."""
        self._is_closing = False
        await asyncio.to_thread(self._prepare)
        if not self._is_reader:
            self._has_room.set()
            self._committing = asyncio.create_task(self._commit_for_ever(), name="log store commits")

    async def close(self) -> None:
        """Finish what was appended, give back everything."""
        self._is_closing = True
        self._arrived.set()
        self._is_full.set()
        self._has_room.set()
        if self._committing is not None:
            await self._committing
            self._committing = None
        if self._writer is not None:
            await self._on_writing_thread(self._writer.rest)
        for executor in (self._reading, self._writing):
            if executor is not None:
                await asyncio.to_thread(executor.shutdown)
        self._reader, self._writer, self._reading, self._writing = None, None, None, None
        self._lock.release()

    async def append(self, lines: Sequence[LogLine]) -> None:
        """Keep the lines durably; see the port. Lines that are kept already are passed over."""
        for line in lines:
            layout.check_line(line)
        most = self._settings.gather_lines
        for start in range(0, len(lines), most):
            await self._append(lines[start : start + most])

    async def search(self, query: LogQuery) -> LogPage:
        """Find lines of one app key by their time; see the port. `begin_at` belongs to the answer, `end_at` does not."""
        reader = self._reader
        if reader is None or self._reading is None:
            raise LogStoreClosed("the log store is not open")
        return await asyncio.get_running_loop().run_in_executor(self._reading, reader.search, query)

    async def follow(self, query: LogQuery) -> LogPage:
        """Find lines in the order of their arrival, and always a cursor to ask on with: late lines are not missed, none comes twice."""
        reader = self._reader
        if reader is None or self._reading is None:
            raise LogStoreClosed("the log store is not open")
        return await asyncio.get_running_loop().run_in_executor(self._reading, reader.follow, query)

    async def last_position(self, source: str) -> int | None:
        """The highest position ever kept of a source, or None. Lines that were dropped since count."""
        writer = self._open_writer()
        return await self._on_writing_thread(lambda: writer.position(source))

    async def remove_before(self, time: datetime) -> int:
        """Drop lines older than this; the number dropped. A line is also old when it arrived so long ago, whatever its own time says."""
        if time.utcoffset() is None:
            raise ValueError("the time needs an offset from UTC")
        writer = self._open_writer()
        return await self._on_writing_thread(lambda: writer.remove_before(time))

    def _prepare(self) -> None:
        if not self._is_reader:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.take()
        try:
            self._check_layout()
            partitions, schema, analyzer = open_partitions(self._root / "partitions")
            if not self._is_reader:
                partitions.tidy()
        except BaseException:
            self._lock.release()
            raise
        matcher = Matcher(schema, analyzer)
        self._reader = LineReader(partitions, matcher, clock=self._clock)
        self._reading = ThreadPoolExecutor(_READING_THREADS, thread_name_prefix="log-search")
        if not self._is_reader:
            self._writing = ThreadPoolExecutor(1, thread_name_prefix="log-append")
            self._writer = LineWriter(
                partitions,
                matcher,
                Marks(self._root / "marks.sqlite"),
                heap_bytes=self._settings.heap_bytes,
                max_bytes=self._settings.max_bytes,
                clock=self._clock,
            )

    def _check_layout(self) -> None:
        path = self._root / "layout"
        if path.exists():
            found = path.read_text(encoding="ascii").strip()
            if found != layout.LAYOUT:
                raise LogStoreTooNew(self._root, found, layout.LAYOUT)
        elif not self._is_reader:
            path.write_text(f"{layout.LAYOUT}\n", encoding="ascii")

    async def _append(self, lines: Sequence[LogLine]) -> None:
        self._open_writer()
        await self._has_room.wait()
        self._open_writer()
        done = asyncio.get_running_loop().create_future()
        size = sum(len(line.body) for line in lines)
        queue = self._queue
        queue.appends.append(_Waiting(lines, done, size))
        queue.line_count += len(lines)
        queue.size += size
        self._arrived.set()
        if queue.line_count >= self._settings.gather_lines or queue.size >= self._settings.gather_bytes:
            self._is_full.set()
        if queue.size >= self._settings.waiting_bytes:
            self._has_room.clear()
        await done

    async def _commit_for_ever(self) -> None:
        """The committing task: gathers, writes, answers; gives the writer back when nothing comes."""
        while True:
            await self._something_to_do()
            if self._queue.appends:
                await self._commit()
            elif self._is_closing:
                return

    async def _something_to_do(self) -> None:
        """Wait until a commit is due, or the store closes."""
        if not self._arrived.is_set():
            try:
                await asyncio.wait_for(self._arrived.wait(), self._settings.rest_seconds)
            except TimeoutError:
                await self._rest()
                await self._arrived.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_full.wait(), self._settings.gather_seconds)

    async def _commit(self) -> None:
        writer = self._open_writer(is_last_commit=True)
        appends = self._take()
        lines = [line for append in appends for line in append.lines]
        try:
            await self._on_writing_thread(lambda: writer.write(lines))
        except Exception as error:
            # Told to every caller of this commit; the store itself goes on.
            for append in appends:
                if not append.done.done():
                    append.done.set_exception(error)
            return
        for append in appends:
            if not append.done.done():
                append.done.set_result(None)

    def _take(self) -> list[_Waiting]:
        """The appends of the next commit: at least one, and no more than a commit should hold."""
        queue = self._queue
        taken: list[_Waiting] = []
        line_count = size = 0
        for append in queue.appends:
            line_count += len(append.lines)
            size += append.size
            if taken and (line_count > self._settings.gather_lines or size > self._settings.gather_bytes):
                break
            taken.append(append)
        del queue.appends[: len(taken)]
        queue.line_count -= sum(len(append.lines) for append in taken)
        queue.size -= sum(append.size for append in taken)
        if queue.size < self._settings.waiting_bytes:
            self._has_room.set()
        if not queue.appends and not self._is_closing:
            self._arrived.clear()
        if (
            not self._is_closing
            and queue.line_count < self._settings.gather_lines
            and queue.size < self._settings.gather_bytes
        ):
            self._is_full.clear()
        return taken

    async def _rest(self) -> None:
        writer = self._open_writer(is_last_commit=True)
        try:
            await self._on_writing_thread(writer.rest)
        except (ValueError, OSError, RuntimeError) as error:
            _log.warning("The log store's writer ended with an error: %s", error)

    def _open_writer(self, *, is_last_commit: bool = False) -> LineWriter:
        if self._writer is None or (self._is_closing and not is_last_commit):
            raise LogStoreClosed(
                "the log store is for reading only" if self._is_reader else "the log store is not open"
            )
        return self._writer

    async def _on_writing_thread(self, work: Callable[[], T]) -> T:
        if self._writing is None:
            raise LogStoreClosed("the log store is not open")
        return await asyncio.get_running_loop().run_in_executor(self._writing, work)
