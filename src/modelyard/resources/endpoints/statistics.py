"""Calls of endpoints over time, from the gateway's own counters.

Every ten seconds what the counters say more than last time is added to the spans of ten seconds, a minute and an hour that it falls into.
Last time's reading stands in the database in the same transaction, so nothing is counted twice or lost when the platform starts anew; what
Envoy had counted and nobody read when it died is lost.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import Fault, Invalid, RetryLater
from modelyard.resources.endpoints import repository
from modelyard.resources.endpoints.call_answer import Period, Told, answer
from modelyard.resources.endpoints.call_blocks import with_counts
from modelyard.resources.endpoints.counting import Counts, Reading, happened, readings, refused, restored_reading
from modelyard.resources.endpoints.schemas import CALL_SERIES, StatisticsQuery
from modelyard.resources.endpoints.table import CallBlockRow, CallMarkRow
from modelyard.resources.projects.model import Caller
from modelyard.resources.routes.model import Decisions
from modelyard.resources.routes.service import Routes

log = logging.getLogger(__name__)

_MAX_POINTS = 10_000
_MOST_TOLD = 256  # blocks, of at most 50 kB each
_LATE_SECONDS = 60  # how long a reading may take to be written down
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class _Resolution(NamedTuple):
    """Spans of so many seconds, so many of them in a block, kept for so long."""

    span_seconds: int
    spans: int
    kept: timedelta

    @property
    def block_seconds(self) -> int:
        return self.span_seconds * self.spans


_RESOLUTIONS = (
    _Resolution(10, 60, timedelta(days=2)),
    _Resolution(60, 120, timedelta(days=30)),
    _Resolution(3600, 240, timedelta(days=800)),
)


class Statistics:
    """Collects and tells."""

    def __init__(
        self,
        database: Database,
        routes: Routes,
        *,
        period_seconds: float = 10.0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._routes = routes
        self._period_seconds = period_seconds
        self._clock = clock
        self._collecting = asyncio.Lock()
        self._seen: tuple[frozenset[str], frozenset[str]] | None = (
            None  # what had counters the last time: models and the like, and API keys
        )
        self._told: OrderedDict[tuple[str, int, int], Told] = OrderedDict()  # the one that was told last stands last

    async def run(self) -> None:
        """Collect until cancelled."""
        rounds = 0
        while True:
            await asyncio.sleep(self._period_seconds)
            try:
                await self.collect()
                rounds += 1
                if rounds % 360 == 1:
                    await self.forget_old()
            except RetryLater as later:
                log.info("The gateway's counters can't be read: %s", later)
            except Exception:
                log.exception("The gateway's counters can't be kept; trying again")

    async def collect(self) -> None:
        """Add what has happened since the last time. Raises `RetryLater`."""
        async with self._collecting:  # a reading that comes late would look as if the counters had begun anew
            seen = readings(await self._routes.read_statistics())
            decisions = await self._routes.read_decisions()
            seen |= {item.route_id: Reading(refused(item)) for item in decisions}
            keys = _calls_by_key(decisions)
            async with self._database.write() as session:
                await self._begin_anew(session, seen.keys(), keys.keys())
                await self._keep(session, seen)
                await self._keep_keys(session, keys)
            self._seen = (frozenset(seen), frozenset(keys))

    async def _begin_anew(self, session: AsyncSession, ids: Set[str], keys: Set[str]) -> None:
        """Forget the last reading of what the gateway counts no more: Envoy began anew, or its route went. When it counts again, it counts from 0."""
        marked, used = self._seen or (await repository.marked_ids(session), await repository.counted_keys(session))
        for id in sorted(marked - ids):
            await repository.forget_call_mark(session, id)
        for key in await repository.api_keys_by_ids(session, used - keys):
            key.gateway_count = 0

    async def _keep(self, session: AsyncSession, seen: Mapping[str, Reading]) -> None:
        moment = int(self._clock().timestamp())
        places = await _places(session, seen.keys())
        marks = await repository.call_marks(session, places.keys())
        for id, place in sorted(places.items()):
            mark = marks.get(id)
            now, told = seen[id], seen[id].stored()
            news = happened(None if mark is None else restored_reading(mark.counters), now)
            if mark is not None and mark.counters != told:
                mark.counters = told
            if news.is_empty:
                continue
            if mark is None:
                session.add(CallMarkRow(endpoint_model_id=id, counters=told))
            for resolution in _RESOLUTIONS:
                await _add(session, place, resolution, moment, news)

    async def _keep_keys(self, session: AsyncSession, totals: Mapping[str, int]) -> None:
        """Note which API keys were used since the last time."""
        for key in await repository.api_keys_by_ids(session, totals.keys()):
            total = totals[key.id]
            if total == key.gateway_count:
                continue
            key.calls_count += total if total < key.gateway_count else total - key.gateway_count
            key.gateway_count = total
            key.last_used_at = self._clock()

    async def forget_old(self) -> None:
        """Delete what is older than it is kept."""
        now = self._clock()
        for resolution in _RESOLUTIONS:
            async with self._database.write() as session:
                before = int((now - resolution.kept).timestamp()) - resolution.block_seconds
                await repository.forget_old_calls(session, resolution.span_seconds, before)

    async def read(self, caller: Caller, endpoint_id: str, query: StatisticsQuery) -> bytes:
        """Calls of an endpoint from `query.from_` to `query.to` (the last hour when absent), as a whole and by stage and model.

        The JSON of `CallStatisticsOne`: to make and check an object for each of thousands of spans would take longer than all the rest.
        Spans without calls are left out. Raises `Invalid` for a resolution that is not kept and for more spans than are told at once.
        """
        resolution = next((item for item in _RESOLUTIONS if item.span_seconds == query.resolution_seconds), None)
        end = query.to or self._clock()
        start = query.from_ or end - timedelta(hours=1)
        _check(resolution, start, end, query.series_list)
        assert resolution is not None  # checked
        period = Period(int(start.timestamp()), int(end.timestamp()), resolution.span_seconds)
        known = self._known(endpoint_id, resolution, period) if query.series_list == list(CALL_SERIES[:1]) else {}
        async with self._database.read() as session:
            endpoint = await repository.endpoint_or_404(session, caller.project.id, endpoint_id)
            blocks = await repository.call_blocks(
                session, endpoint.id, period.span_seconds, period.first - resolution.block_seconds, period.last, known
            )
        about = {
            "resolutionSeconds": resolution.span_seconds,
            "fromDatetime": start.isoformat(timespec="milliseconds"),
            "toDatetime": end.isoformat(timespec="milliseconds"),
        }
        body, told = await asyncio.to_thread(answer, endpoint.id, about, blocks, period, query.series_list, known)
        self._keep_told(endpoint.id, resolution, period, told)
        return body

    def _known(self, endpoint_id: str, resolution: _Resolution, period: Period) -> dict[int, Told]:
        """By their begin, what was told of blocks that lie in the period and are over."""
        size = resolution.block_seconds
        known: dict[int, Told] = {}
        for begin in range(period.first - period.first % size, period.last, size):
            told = self._told.get((endpoint_id, resolution.span_seconds, begin))
            if told is not None and self._is_over(begin, resolution, period):
                self._told.move_to_end((endpoint_id, resolution.span_seconds, begin))
                known[begin] = told
        return known

    def _keep_told(self, endpoint_id: str, resolution: _Resolution, period: Period, told: Mapping[int, Told]) -> None:
        for begin, each in told.items():
            if self._is_over(begin, resolution, period):
                self._told[endpoint_id, resolution.span_seconds, begin] = each
        while len(self._told) > _MOST_TOLD:
            self._told.popitem(last=False)

    def _is_over(self, begin: int, resolution: _Resolution, period: Period) -> bool:
        """Whether a block lies in the period as a whole, and nothing more will be written into it."""
        span, end = resolution.span_seconds, begin + resolution.block_seconds
        is_whole = period.first < begin + span and end - span <= period.last
        return is_whole and end + _LATE_SECONDS <= self._clock().timestamp()


class _Place(NamedTuple):
    """Whose calls they are: a model on a stage, or (for what was turned away) a stage or an endpoint as a whole."""

    id: str
    endpoint_id: str
    stage_id: str


def _calls_by_key(decisions: Sequence[Decisions]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for item in decisions:
        for id, count in item.calls_by_key.items():
            totals[id] = totals.get(id, 0) + count
    return totals


async def _places(session: AsyncSession, ids: Collection[str]) -> dict[str, _Place]:
    """Those of the ids that the platform knows. What an endpoint's own address turned away counts for its default stage."""
    models = await repository.models_by_ids(session, ids)
    stages = await repository.stages_by_ids(session, ids)
    defaults = await repository.default_stages(session, ids)
    found = {row.id: _Place(row.id, row.endpoint_id, row.stage_id) for row in models}
    found |= {row.id: _Place(row.id, row.endpoint_id, row.id) for row in stages}
    return found | {row.endpoint_id: _Place(row.endpoint_id, row.endpoint_id, row.id) for row in defaults}


async def _add(session: AsyncSession, place: _Place, resolution: _Resolution, moment: int, news: Counts) -> None:
    starts_at = moment - moment % resolution.block_seconds
    number = (moment - starts_at) // resolution.span_seconds
    block = await repository.call_block(session, place.id, resolution.span_seconds, starts_at)
    if block is not None:
        block.content = with_counts(block.content, number, news)
        return
    session.add(
        CallBlockRow(
            endpoint_model_id=place.id,
            span_seconds=resolution.span_seconds,
            starts_at=starts_at,
            endpoint_id=place.endpoint_id,
            stage_id=place.stage_id,
            content=with_counts(b"", number, news),
        )
    )


def _check(resolution: _Resolution | None, start: datetime, end: datetime, series: Sequence[str]) -> None:
    faults: list[Fault] = []
    unknown = [item for item in series if item not in CALL_SERIES and not _ID.fullmatch(item)]
    if unknown:
        sentence = f"'{unknown[0][:64]}' is neither {', '.join(CALL_SERIES)} nor the id of a stage or model"
        faults.append(Fault("seriesList", sentence))
    if resolution is None:
        kept = ", ".join(str(item.span_seconds) for item in _RESOLUTIONS)
        faults.append(Fault("resolutionSeconds", f"must be one of {kept}"))
    elif (end - start).total_seconds() / resolution.span_seconds > _MAX_POINTS:
        faults.append(
            Fault("from", f"asks for more than {_MAX_POINTS:,} spans; take a later one or a coarser resolution")
        )
    if start >= end:
        faults.append(Fault("from", "must be before 'to'"))
    if faults:
        raise Invalid(faults)
