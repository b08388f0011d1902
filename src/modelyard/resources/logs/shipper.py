"""Brings the output of workloads to the log store, line by line, each exactly once.

A line's position is its byte offset in the instance's output, which is the same however often it is read. The log store knows how far it
has come (`last_position`), so the shipper keeps no record of its own: after a crash it goes on where the store ends.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from modelyard.compute.port import LogChunk
from modelyard.kit.clock import Clock, utc_now
from modelyard.logstore.port import LogLine, LogStore
from modelyard.resources.logs.service import LOG_TYPE
from modelyard.resources.projects.service import Projects
from modelyard.resources.workloads.lifecycle import LIFECYCLE
from modelyard.resources.workloads.model import Desired, Workload
from modelyard.resources.workloads.service import Workloads

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_MAX_LINE_BYTES = 64 * 1024
_ERROR = re.compile(r"\b(?:ERROR|CRITICAL|FATAL)\b|^Traceback \(most recent|^\w*(?:Error|Exception)\b")
_WARNING = re.compile(r"\bWARN(?:ING)?\b|^\w*Warning\b|: \w+Warning: ")


@dataclass(frozen=True, slots=True)
class Source:
    """An instance whose output is shipped."""

    instance_id: str
    app_key: str
    category: str
    fields: Mapping[str, str]


ReadOutput = Callable[[str, int, int], Awaitable[LogChunk]]


class ShippingLoop:
    """Ships the output of every workload that asked for it, until it is all there."""

    def __init__(
        self, shipper: Shipper, workloads: Workloads, projects: Projects, *, poll_seconds: float = 1.0
    ) -> None:
        self._shipper = shipper
        self._workloads = workloads
        self._projects = projects
        self._poll_seconds = poll_seconds

    async def run(self) -> None:
        """Ship until cancelled."""
        while True:
            try:
                for workload in await self._workloads.with_output_to_ship():
                    await self._ship(workload)
            except Exception:
                log.exception("Output can't be shipped to the log store; trying again")
            await asyncio.sleep(self._poll_seconds)

    async def _ship(self, workload: Workload) -> None:
        project = await self._projects.get(workload.project_id)
        if workload.spec.log is None or project is None:
            await self._workloads.mark_shipped(workload.id)
            return
        is_all_there = True
        printed = [item.id for item in workload.status.instances if item.is_launched]
        for instance_id in (*(item.id for item in workload.status.retired), *printed):
            source = Source(instance_id, project.app_key, workload.spec.log.category, workload.spec.log.fields)
            is_all_there = await self._shipper.ship(source) and is_all_there
        # What never started has nothing to say; what is being deleted says nothing more once all of it has ended.
        is_over = LIFECYCLE.is_final(workload.state) or workload.desired is Desired.DELETE
        if is_over and is_all_there:
            await self._workloads.mark_shipped(workload.id)


class Shipper:
    """Ships the output of instances, one piece at a time."""

    def __init__(self, store: LogStore, read: ReadOutput, clock: Clock = utc_now) -> None:
        self._store = store
        self._read = read
        self._clock = clock
        self._offsets: dict[str, int] = {}

    async def ship(self, source: Source) -> bool:
        """Ship what is new. True when the instance has ended and all of its output is kept."""
        offset = await self._offset(source)
        while True:
            chunk = await self._read(source.instance_id, offset, _CHUNK_BYTES)
            lines, consumed = self._lines(source, chunk)
            if lines:
                await self._store.append(lines)
            offset = chunk.offset + consumed
            self._offsets[source.instance_id] = offset
            if chunk.is_end and offset >= chunk.next_offset:
                self._offsets.pop(source.instance_id, None)
                return True
            if consumed == 0 or len(chunk.data) < _CHUNK_BYTES:
                return False
            await asyncio.sleep(0)

    async def _offset(self, source: Source) -> int:
        known = self._offsets.get(source.instance_id)
        if known is not None:
            return known
        last = await self._store.last_position(source.instance_id)
        if last is None:
            return 0
        # The position is where the last kept line began; find its end again.
        chunk = await self._read(source.instance_id, last, _CHUNK_BYTES)
        return chunk.offset + _line_end(chunk.data, 0, is_end=chunk.is_end)[1] if chunk.data else last

    def _lines(self, source: Source, chunk: LogChunk) -> tuple[list[LogLine], int]:
        """The whole lines of a piece, and how many bytes they took."""
        lines: list[LogLine] = []
        begin = 0
        while begin < len(chunk.data):
            end, following = _line_end(chunk.data, begin, is_end=chunk.is_end)
            if following == begin:
                break
            # A progress bar rewrites its line with carriage returns: what was last on the screen is the line.
            raw = chunk.data[begin:end].rstrip(b"\r").rpartition(b"\r")[2]
            if raw.strip():
                lines.append(self._line(source, chunk.offset + begin, raw))
            begin = following
        return lines, begin

    def _line(self, source: Source, position: int, raw: bytes) -> LogLine:
        body = raw.decode("utf-8", errors="replace").replace("\x00", "�")
        return LogLine(
            source=source.instance_id,
            position=position,
            time=self._clock(),
            level=_level(body),
            category=source.category,
            log_type=LOG_TYPE,
            app_key=source.app_key,
            body=body,
            fields=source.fields,
        )


def _line_end(data: bytes, begin: int, *, is_end: bool) -> tuple[int, int]:
    """Where the line that begins there ends, and where the next one begins; (begin, begin) while its end has not been printed."""
    newline = data.find(b"\n", begin, begin + _MAX_LINE_BYTES)
    if newline >= 0:
        return newline, newline + 1
    if len(data) - begin >= _MAX_LINE_BYTES:
        return begin + _MAX_LINE_BYTES, begin + _MAX_LINE_BYTES
    if is_end:
        return len(data), len(data)
    return begin, begin


def _level(body: str) -> str:
    """A guess from the words that loggers write; most output says nothing and is INFO."""
    head = body[:200]
    if _ERROR.search(head):
        return "ERROR"
    return "WARNING" if _WARNING.search(head) else "INFO"
