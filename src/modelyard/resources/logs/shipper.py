"""Brings the output of workloads to the log store, line by line, each exactly once.

A line's position is its byte offset in the instance's output, which is the same however often it is read. The log store knows how far it
has come (`last_position`), so the shipper keeps no record of its own: after a crash it goes on where the store ends. Output that was
dropped before it could be kept (an instance printed faster than lines can be indexed, or the platform was down for long) is told by a
line in its place. How output becomes lines is in `lines`.
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
from modelyard.resources.logs.lines import cut, line_end
from modelyard.resources.logs.records import Record, read_record
from modelyard.resources.logs.service import LOG_TYPE
from modelyard.resources.projects.service import Projects
from modelyard.resources.workloads.lifecycle import LIFECYCLE
from modelyard.resources.workloads.model import Desired, Workload
from modelyard.resources.workloads.service import Workloads

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_MOST_TURNS = 16
_AT_ONCE = 32
_ERROR = re.compile(r"\b(?:ERROR|CRITICAL|FATAL)\b|^Traceback \(most recent|^\w*(?:Error|Exception)\b")
_WARNING = re.compile(r"\bWARN(?:ING)?\b|^\w*Warning\b|: \w+Warning: ")


@dataclass(frozen=True, slots=True)
class Source:
    """An instance whose output is shipped."""

    instance_id: str
    app_key: str
    category: str
    fields: Mapping[str, str]


@dataclass(slots=True)
class _Reached:
    """How far a source has come: the next byte to read, and how much of an unfinished line lies before it."""

    offset: int
    open_bytes: int = 0


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
            is_behind = False
            try:
                is_behind = await self._round()
            except Exception:
                log.exception("Output can't be shipped to the log store; trying again")
            await asyncio.sleep(0 if is_behind else self._poll_seconds)

    async def _round(self) -> bool:
        """A turn for everybody at the same time, since lines that come together share a commit. Whether somebody has more to ship."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def _turn(workload: Workload) -> bool:
            async with turns:
                return await self._ship(workload)

        waiting = await self._workloads.with_output_to_ship()
        answers = await asyncio.gather(*map(_turn, waiting), return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if failures:
            raise failures[0]
        return any(answers)

    async def _ship(self, workload: Workload) -> bool:
        project = await self._projects.get(workload.project_id)
        if workload.spec.log is None or project is None:
            await self._workloads.mark_shipped(workload.id)
            return False
        is_all_there, is_behind = True, False
        printed = [item.id for item in workload.status.instances if item.is_launched]
        for instance_id in (*(item.id for item in workload.status.retired), *printed):
            fields = {**workload.spec.log.fields, **_place(instance_id)}
            source = Source(instance_id, project.app_key, workload.spec.log.category, fields)
            turn = await self._shipper.ship(source)
            is_all_there, is_behind = is_all_there and turn.is_all_there, is_behind or turn.is_behind
        # What never started has nothing to say; what is being deleted says nothing more once all of it has ended.
        is_over = LIFECYCLE.is_final(workload.state) or workload.desired is Desired.DELETE
        if is_over and is_all_there:
            await self._workloads.mark_shipped(workload.id)
        return is_behind


@dataclass(frozen=True, slots=True)
class Turn:
    """How a turn at a source ended: everything is kept and nothing follows; there is more that could be shipped at once."""

    is_all_there: bool = False
    is_behind: bool = False


class Shipper:
    """Ships the output of instances, one piece at a time."""

    def __init__(self, store: LogStore, read: ReadOutput, clock: Clock = utc_now) -> None:
        self._store = store
        self._read = read
        self._clock = clock
        self._reached: dict[str, _Reached] = {}

    async def ship(self, source: Source) -> Turn:
        """Ship what is new, up to 16 MiB: others wait for their turn."""
        reached = self._reached.get(source.instance_id)
        if reached is None:
            reached = await self._find(source)
            self._reached[source.instance_id] = reached
        for _ in range(_MOST_TURNS):
            chunk = await self._read(source.instance_id, reached.offset, _CHUNK_BYTES)
            lines: list[LogLine] = []
            if chunk.offset > reached.offset:
                lines.append(self._gap(source, reached.offset, chunk.offset))
                reached.open_bytes = 0
            found = cut(chunk.data, chunk.offset, reached.open_bytes, is_end=chunk.is_end)
            lines += [self._line(source, line.position, line.body) for line in found.lines]
            if lines:
                await self._store.append(lines)
            reached.offset, reached.open_bytes = chunk.offset + found.consumed, found.open_bytes
            if chunk.is_end and reached.offset >= chunk.next_offset:
                del self._reached[source.instance_id]
                return Turn(is_all_there=True)
            if found.consumed == 0 or (len(chunk.data) < _CHUNK_BYTES and found.consumed == len(chunk.data)):
                return Turn()
        return Turn(is_behind=True)

    async def _find(self, source: Source) -> _Reached:
        """Where to go on after a start of the server."""
        last = await self._store.last_position(source.instance_id)
        if last is None:
            return _Reached(0)
        # The position is where the last kept line began; find its end again.
        chunk = await self._read(source.instance_id, last, _CHUNK_BYTES)
        if chunk.offset != last or not chunk.data:
            return _Reached(last + 1)
        return _Reached(last + line_end(chunk.data, 0, is_end=chunk.is_end)[1])

    def _gap(self, source: Source, begin: int, end: int) -> LogLine:
        text = (
            f"[modelyard] WARNING: {end - begin:,} bytes of output are missing here: they were printed faster than lines can be "
            "kept, or while the platform was down, and older output had to make room. Print less, or write to a file."
        )
        return self._line(source, begin, text)

    def _line(self, source: Source, position: int, body: str) -> LogLine:
        record = read_record(body) or Record(body, _level(body), {})
        return LogLine(
            source=source.instance_id,
            position=position,
            time=self._clock(),
            level=record.level,
            category=source.category,
            log_type=LOG_TYPE,
            app_key=source.app_key,
            body=record.body,
            fields={**record.fields, **source.fields},
        )


def _place(instance_id: str) -> dict[str, str]:
    """Which instance, of which attempt: an instance's id is `{workload id}.{index}.{attempt}`."""
    parts = instance_id.rsplit(".", 2)
    return {"instanceIndex": parts[1], "attempt": parts[2]} if len(parts) == 3 else {}


def _level(body: str) -> str:
    """A guess from the words that loggers write; most output says nothing and is INFO."""
    head = body[:200]
    if _ERROR.search(head):
        return "ERROR"
    return "WARNING" if _WARNING.search(head) else "INFO"
