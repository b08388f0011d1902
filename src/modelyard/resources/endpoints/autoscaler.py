"""Decides how many model servers there are to be, for stages that scale.

It looks at what the gateway has counted and at what the servers use, and writes its decision down: the stage's reconciler makes it true. What
was measured is kept in memory alone. A platform that begins anew measures anew, and takes nothing away before it has looked long enough.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.activator.board import Seat
from modelyard.control.transitions import CONTROLLER, note
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import RetryLater
from modelyard.resources.endpoints import repository
from modelyard.resources.endpoints.counting import LATENCY_BOUNDS, Counts, Reading, happened, readings
from modelyard.resources.endpoints.errors import BeingDeleted
from modelyard.resources.endpoints.lifecycle import STAGE
from modelyard.resources.endpoints.model import (
    HOLD_SECONDS,
    STAGE_KIND,
    EndpointModelSpec,
    EndpointModelStatus,
    Metric,
    Scaling,
    StageSpec,
    StageStatus,
    metric_of,
    model_server_count,
)
from modelyard.resources.endpoints.scaling import FAST_SECONDS, History, Wish, wish
from modelyard.resources.endpoints.schemas import AutoScaler
from modelyard.resources.endpoints.table import EndpointModelRow, StageRow
from modelyard.resources.projects.model import Caller
from modelyard.resources.routes.service import Routes
from modelyard.resources.workloads.model import Workload
from modelyard.resources.workloads.service import Workloads

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 2.0
_WAKE_SECONDS = 0.1
_CALM_SECONDS = 2.0
_MOST_WAITING = 256


class Room(Protocol):
    """Where requests wait for models that rest (`modelyard.activator.room.WaitingRoom`)."""

    def socket_of(self, id: str) -> str:
        """Where the requests of a model come in while it rests."""
        ...

    def publish(self, seats: Collection[Seat]) -> None:
        """Say who may rest."""
        ...

    def take_wakes(self) -> set[str]:
        """The models that requests wait for."""
        ...

    def is_open(self, id: str) -> bool:
        """Whether somebody listens for the requests of this model."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """A model on a stage that scales, as it was seen."""

    id: str
    stage_id: str
    spec: EndpointModelSpec
    count: int
    workload: Workload | None
    stage_message: str | None
    scaling: Scaling | None
    was_deployed: bool


class Autoscaler:
    """Measures, decides, and says who may rest."""

    def __init__(
        self,
        database: Database,
        workloads: Workloads,
        routes: Routes,
        room: Room,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._database = database
        self._workloads = workloads
        self._routes = routes
        self._room = room
        self._clock = clock
        self._histories: dict[str, History] = {}
        self._counts: dict[str, Reading] = {}
        self._used: dict[str, float] = {}
        self._measured_at: float | None = None
        self._news = asyncio.Event()
        database.listen(self._on_topics)

    async def change(self, caller: Caller, stage_id: str, asked: AutoScaler) -> None:
        """Let a stage scale otherwise, or no longer: then it keeps the servers that it has, and at least one of each model."""
        async with self._database.write() as session:
            stage = await repository.held_stage(session, caller.project.id, stage_id)
            if stage.desired == "delete":
                raise BeingDeleted("stage", stage.name)
            spec, scaling = StageSpec.model_validate(stage.spec), asked.scaling()
            counts: list[int] = []
            for model in await repository.staying_models(session, [stage.id]):
                counts.append(_count(spec, model))
                status = EndpointModelStatus(count=None if scaling is None else counts[-1])
                model.status = status.model_dump(mode="json")
                if scaling is None and spec.scaling is not None:
                    own = EndpointModelSpec.model_validate(model.spec)
                    model.spec = own.model_copy(update={"count": None}).model_dump(mode="json")
            changes = {"scaling": scaling, "node_count": max(1, *counts) if scaling is None else spec.node_count}
            stage.spec = spec.model_copy(update=changes).model_dump(mode="json")
            stage.is_scaled = True  # until what rests is up again
            stage.generation += 1
            stage.updated_at = utc_now()
            told = "off" if scaling is None else f"{scaling.min_count} to {scaling.max_count} model servers"
            message = f"The number of model servers is to follow the load: {told}."
            note(session, STAGE, stage, reason="AUTO_SCALER_CHANGED", message=message, actor=caller.actor)
            await enqueue(session, STAGE_KIND, stage.id)

    async def run(self) -> None:
        """Look until cancelled: for requests that wait all the time, at the load every two seconds."""
        due_at = 0.0
        has_any = True
        while True:
            try:
                wakes = self._room.take_wakes() if has_any else set[str]()
                is_due = self._clock() >= due_at
                if wakes or is_due or self._news.is_set():
                    self._news.clear()
                    has_any = await self.look(wakes, measures=is_due)
                    due_at = self._clock() + _PERIOD_SECONDS if is_due else due_at
            except Exception:
                log.exception("The number of model servers can't be decided; trying again")
            with suppress(TimeoutError):
                async with asyncio.timeout(_WAKE_SECONDS if has_any else _CALM_SECONDS):
                    await self._news.wait()

    async def look(self, wakes: Collection[str], *, measures: bool = True) -> bool:
        """One look at all stages that scale; whether there are any."""
        served, settled = await self._read()
        now = self._clock()
        self._room.publish([_seat(each, self._room.socket_of(each.id)) for each in served if each.was_deployed])
        self._histories = {each.id: self._histories.get(each.id) or History(now, now) for each in served}
        active: set[str] | None = None
        if served and measures:
            with suppress(RetryLater):
                active = await self._measure(served, now)
        wishes: list[tuple[Served, Wish]] = []
        for each in served:
            is_waited_for = each.id in wakes or (active is not None and each.id in active)
            wished = self._wish(each, now, is_waited_for=is_waited_for, is_measured=active is not None)
            if wished is not None:
                wishes.append((each, wished))
        if wishes or settled:
            await self._write(wishes, settled, now)
        return bool(served)

    def _wish(self, each: Served, now: float, *, is_waited_for: bool, is_measured: bool) -> Wish | None:
        if each.scaling is None or not each.was_deployed:
            return None
        history = self._histories[each.id]
        history.forget_before(now - each.scaling.unneeded_seconds - 2 * FAST_SECONDS)
        metric, target = metric_of(each.spec, each.scaling)
        flags = {"is_waited_for": is_waited_for, "is_measured": is_measured}
        wished = wish(each.scaling, metric, target, each.count, history, now, **flags)
        if wished is not None and wished.count == 0 and not self._room.is_open(each.id):
            return None  # its requests would wait nowhere
        return wished

    async def _read(self) -> tuple[list[Served], list[str]]:
        """The models of all stages that scale; and the stages that did, and don't need us any more."""
        async with self._database.read() as session:
            stages = {stage.id: stage for stage in await repository.scaled_stages(session)}
            if not stages:
                return [], []
            rows = await repository.staying_models(session, list(stages))
            workloads = await self._workloads.get_many(session, [row.id for row in rows])
        served = [_served(stages[row.stage_id], row, workloads.get(row.id)) for row in rows]
        settled = [
            stage.id
            for stage in stages.values()
            if StageSpec.model_validate(stage.spec).scaling is None
            and all(_is_complete(each) for each in served if each.stage_id == stage.id)
        ]
        return served, settled

    async def _measure(self, served: Sequence[Served], now: float) -> set[str]:
        """Add a sample to each model's history. The models that have requests under way. Raises `RetryLater`."""
        counts = readings(await self._routes.read_statistics())
        seconds, self._measured_at = None if self._measured_at is None else now - self._measured_at, now
        shares = await self._shares(served, seconds)
        before, self._counts = self._counts, {each.id: counts.get(each.id, Reading()) for each in served}
        active: set[str] = set()
        for each in served:
            seen = self._counts[each.id]
            active_count = seen.own.active_max + seen.copies.active_max
            if active_count:
                active.add(each.id)
            if seconds is None or seconds <= 0 or each.id not in before or each.scaling is None:
                continue
            # Copies of another stage's requests are load like any other.
            news = happened(before[each.id], seen)
            load = _load(metric_of(each.spec, each.scaling)[0], news, shares[each.id], seconds)
            if load is not None:
                is_active = bool(news.calls_count or active_count)
                self._histories[each.id].add(now, load, is_active=is_active)
        return active

    async def _shares(self, served: Sequence[Served], seconds: float | None) -> Mapping[str, tuple[float, float]]:
        """How much of the cores and of the memory of one server all servers of a model use together, in percent."""
        running = {seen.id: each for each in served if each.workload for seen in each.workload.status.instances}
        needs = any(
            each.scaling is not None
            and metric_of(each.spec, each.scaling)[0] in (Metric.CPU_UTILIZATION, Metric.MEMORY_UTILIZATION)
            for each in served
        )
        found = {each.id: (0.0, 0.0) for each in served}
        used: dict[str, float] = {}
        for use in await self._workloads.measure(list(running)) if needs else ():
            each = running[use.id]
            assert each.workload is not None  # chosen above
            limits = each.workload.spec.limits
            cpu_seconds = use.cpu_seconds or 0.0
            used[use.id] = cpu_seconds
            spent = max(0.0, cpu_seconds - self._used.get(use.id, cpu_seconds))
            cores, memory = found[each.id]
            cores += 100 * spent / (seconds * limits.cpus) if seconds else 0.0
            found[each.id] = (cores, memory + 100 * (use.memory_bytes or 0) / limits.memory_bytes)
        self._used = used
        return found

    async def _write(self, wishes: Sequence[tuple[Served, Wish]], settled: Collection[str], now: float) -> None:
        async with self._database.write() as session:
            for each, wished in wishes:
                if await _decide(session, each, wished):
                    log.info("Endpoint model %s: %s", each.id, wished.message)
                    if wished.count > each.count:
                        self._histories[each.id].added_at = self._histories[each.id].active_at = now
            for stage_id in settled:
                stage = await repository.stage_by_key(session, stage_id)
                if stage is not None and StageSpec.model_validate(stage.spec).scaling is None:
                    stage.is_scaled = False

    def _on_topics(self, topics: frozenset[str]) -> None:
        if STAGE_KIND in topics:
            self._news.set()


async def _decide(session: AsyncSession, each: Served, wished: Wish) -> bool:
    """Write a decision down, unless what it was made for has changed meanwhile."""
    stage = await repository.stage_by_key(session, each.stage_id)
    model = await repository.model_by_key(session, each.id)
    if stage is None or model is None or stage.desired == "delete" or model.desired == "delete":
        return False
    spec = StageSpec.model_validate(stage.spec)
    if spec.scaling != each.scaling or _count(spec, model) != each.count:
        return False
    model.status = EndpointModelStatus(count=wished.count).model_dump(mode="json")
    message = f"Model '{model.name}': {wished.message}"
    note(session, STAGE, stage, reason=wished.reason, message=message, actor=CONTROLLER)
    await enqueue(session, STAGE_KIND, stage.id)
    return True


def _served(stage: StageRow, row: EndpointModelRow, workload: Workload | None) -> Served:
    spec = StageSpec.model_validate(stage.spec)
    return Served(
        id=row.id,
        stage_id=stage.id,
        spec=EndpointModelSpec.model_validate(row.spec),
        count=_count(spec, row),
        workload=workload,
        stage_message=stage.message,
        scaling=spec.scaling,
        was_deployed=StageStatus.model_validate(stage.status).was_deployed,
    )


def _count(spec: StageSpec, row: EndpointModelRow) -> int:
    status = EndpointModelStatus.model_validate(row.status)
    return model_server_count(spec, EndpointModelSpec.model_validate(row.spec), status)


def _is_complete(each: Served) -> bool:
    return each.workload is not None and each.workload.ready_count_of(each.count) == each.count


def _seat(each: Served, socket: str) -> Seat:
    workload = each.workload
    ready = () if workload is None else workload.ready_addresses_of(each.count)
    message = (workload.message if workload is not None else None) or each.stage_message or ""
    return Seat(each.id, socket, ready, message, HOLD_SECONDS, _MOST_WAITING)


def _load(metric: Metric, news: Counts, shares: tuple[float, float], seconds: float) -> float | None:
    """The load of all servers of a model together, in units of the metric."""
    match metric:
        case Metric.REQUESTS_PER_SECOND:
            return news.calls_count / seconds
        case Metric.CPU_UTILIZATION:
            return shares[0]
        case Metric.MEMORY_UTILIZATION:
            return shares[1]
        case Metric.CONCURRENCY:
            # What was under way at the moment of looking misses short requests; what has ended misses long ones.
            return max(float(news.active_max), _busy_seconds(news) / seconds)


def _busy_seconds(news: Counts) -> float:
    """How long the calls took, all together."""
    total = 0.0
    for index, count in news.latencies.items():
        low = LATENCY_BOUNDS[index - 1] if index else 0.0
        total += count * (low + LATENCY_BOUNDS[index]) / 2
    return total
