"""Calls of endpoints over time, from the gateway's own counters.

Every ten seconds what the counters say more than last time is added to the spans of ten seconds, a minute and an hour that it falls into.
Last time's reading stands in the database in the same transaction, so nothing is counted twice or lost when the platform starts anew; what
Envoy had counted and nobody read when it died is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import Fault, Invalid, RetryLater
from modelyard.resources.endpoints import repository
from modelyard.resources.endpoints.counting import Counts, added, counted, percentile, refused, restored, since
from modelyard.resources.endpoints.opening import MIRRORED
from modelyard.resources.endpoints.schemas import CallSeries, CallStatistics, StatisticsQuery
from modelyard.resources.endpoints.table import CallBlockRow, CallMarkRow
from modelyard.resources.projects.model import Caller
from modelyard.resources.routes.model import CallCounters, Decisions
from modelyard.resources.routes.service import Routes

log = logging.getLogger(__name__)

_MAX_POINTS = 10_000


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
            seen = _readings(await self._routes.read_statistics())
            decisions = await self._routes.read_decisions()
            seen |= {item.route_id: refused(item) for item in decisions}
            async with self._database.write() as session:
                await self._keep(session, seen)
                await self._keep_keys(session, decisions)

    async def _keep(self, session: AsyncSession, seen: Mapping[str, Counts]) -> None:
        moment = int(self._clock().timestamp())
        places = await _places(session, seen.keys())
        marks = await repository.call_marks(session, places.keys())
        for id, place in sorted(places.items()):
            mark = marks.get(id)
            now = seen[id]
            news = since(None if mark is None else restored(mark.counters), now)
            if news.is_empty:
                continue
            if mark is None:
                session.add(CallMarkRow(endpoint_model_id=id, counters=now.stored()))
            else:
                mark.counters = now.stored()
            for resolution in _RESOLUTIONS:
                await _add(session, place, resolution, moment, news)

    async def _keep_keys(self, session: AsyncSession, decisions: Sequence[Decisions]) -> None:
        """Note which API keys were used since the last time."""
        totals: dict[str, int] = {}
        for item in decisions:
            for id, count in item.calls_by_key.items():
                totals[id] = totals.get(id, 0) + count
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

    async def read(self, caller: Caller, endpoint_id: str, query: StatisticsQuery) -> CallStatistics:
        """Calls of an endpoint from `query.from_` to `query.to` (the last hour when absent), as a whole and by stage and model.

        Spans without calls are left out. Raises `Invalid` for a resolution that is not kept and for more than 10,000 spans.
        """
        resolution = next((item for item in _RESOLUTIONS if item.span_seconds == query.resolution_seconds), None)
        end = query.to or self._clock()
        start = query.from_ or end - timedelta(hours=1)
        _check(resolution, start, end)
        assert resolution is not None  # checked
        first, last = int(start.timestamp()), int(end.timestamp())
        async with self._database.read() as session:
            endpoint = await repository.endpoint_or_404(session, caller.project.id, endpoint_id)
            blocks = await repository.call_blocks(
                session, endpoint.id, resolution.span_seconds, first - resolution.block_seconds, last
            )
        points = [point for block in blocks for point in _points(block, resolution, first, last)]
        return await asyncio.to_thread(_statistics, endpoint_id, resolution.span_seconds, start, end, points)


class _Point(NamedTuple):
    at: int
    stage_id: str
    model_id: str
    counts: Counts


class _Place(NamedTuple):
    """Whose calls they are: a model on a stage, or (for what was turned away) a stage or an endpoint as a whole."""

    id: str
    endpoint_id: str
    stage_id: str


def _readings(counters: Sequence[CallCounters]) -> dict[str, Counts]:
    """Counts by model; copies that a model got as a mirror are among its calls."""
    found: dict[str, Counts] = {}
    for item in counters:
        is_mirror = item.name.endswith(MIRRORED)
        id = item.name.removesuffix(MIRRORED)
        counts = counted(item, is_mirror=is_mirror)
        found[id] = added([found[id], counts]) if id in found else counts
    return found


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
    number = str((moment - starts_at) // resolution.span_seconds)
    block = await repository.call_block(session, place.id, resolution.span_seconds, starts_at)
    if block is None:
        session.add(
            CallBlockRow(
                endpoint_model_id=place.id,
                span_seconds=resolution.span_seconds,
                starts_at=starts_at,
                endpoint_id=place.endpoint_id,
                stage_id=place.stage_id,
                points={number: news.stored()},
            )
        )
        return
    known = block.points.get(number)
    total = news if known is None else added([restored(known), news])
    block.points = {**block.points, number: total.stored()}


def _points(block: CallBlockRow, resolution: _Resolution, first: int, last: int) -> Iterable[_Point]:
    for number, value in block.points.items():
        at = block.starts_at + int(number) * resolution.span_seconds
        if first - resolution.span_seconds < at <= last:
            yield _Point(at, block.stage_id, block.endpoint_model_id, restored(value))


def _statistics(
    endpoint_id: str, span_seconds: int, start: datetime, end: datetime, points: Sequence[_Point]
) -> CallStatistics:
    stages: dict[str, list[_Point]] = {}
    models: dict[tuple[str, str], list[_Point]] = {}
    for point in points:
        stages.setdefault(point.stage_id, []).append(point)
        if point.model_id not in (point.stage_id, endpoint_id):
            models.setdefault((point.stage_id, point.model_id), []).append(point)
    return CallStatistics(
        resolution_seconds=span_seconds,
        from_datetime=start,
        to_datetime=end,
        endpoint=_series(points, endpoint_id=endpoint_id),
        stage_list=[_series(items, endpoint_stage_id=id) for id, items in stages.items()],
        model_list=[
            _series(items, endpoint_stage_id=stage_id, endpoint_model_id=id) for (stage_id, id), items in models.items()
        ],
    )


def _series(points: Sequence[_Point], **ids: str) -> CallSeries:
    spans: dict[int, list[Counts]] = {}
    for point in points:
        spans.setdefault(point.at, []).append(point.counts)
    total = added(point.counts for point in points)
    return CallSeries.model_validate(
        {
            **ids,
            "total": _shown(total),
            "point_list": [
                {"time": datetime.fromtimestamp(at, UTC), **_shown(added(items) if len(items) > 1 else items[0])}
                for at, items in sorted(spans.items())
            ],
        }
    )


def _shown(counts: Counts) -> Mapping[str, object]:
    def milliseconds(share: float) -> float | None:
        seconds = percentile(counts.latencies, share)
        return None if seconds is None else round(seconds * 1000, 3)

    return {
        "calls_count": counts.calls_count,
        "success_count": counts.success_count,
        "redirect_count": counts.redirect_count,
        "client_error_count": counts.client_error_count,
        "server_error_count": counts.server_error_count,
        "timeout_count": counts.timeout_count,
        "received_bytes": counts.received_bytes,
        "sent_bytes": counts.sent_bytes,
        "mirrored_count": counts.mirrored_count,
        "size_refused_count": counts.size_refused_count,
        "key_refused_count": counts.key_refused_count,
        "address_refused_count": counts.address_refused_count,
        "rate_refused_count": counts.rate_refused_count,
        "active_max": counts.active_max,
        "latency_p50_milliseconds": milliseconds(0.5),
        "latency_p90_milliseconds": milliseconds(0.9),
        "latency_p99_milliseconds": milliseconds(0.99),
    }


def _check(resolution: _Resolution | None, start: datetime, end: datetime) -> None:
    faults: list[Fault] = []
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
