"""Use cases of metrics: take points, tell a run's history, compare runs."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.idempotency import claim, remember
from modelyard.db.engine import Database
from modelyard.eventfiles.reading import Piece, Place
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.errors import Fault, Invalid
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.metrics import arrivals, repository, store
from modelyard.resources.metrics.blocks import Columns, Extreme, before, columns_of, summarise, unpack
from modelyard.resources.metrics.comparison import Figures, choose, parse
from modelyard.resources.metrics.errors import ForeignRun
from modelyard.resources.metrics.model import Limits, Owner, Point, Run, split_instance
from modelyard.resources.metrics.sampling import sample, sample_summaries
from modelyard.resources.metrics.series import Series
from modelyard.resources.metrics.table import MetricRunRow
from modelyard.resources.projects.model import Caller

KIND = "metrics"
MAX_HISTORIES = 50
MAX_COMPARED_METRICS = 100
_ROWS_A_PIECE = 2000
_SERIES_A_TURN = 50
_ALWAYS = -(2**63)


class Runs(Protocol):
    """Those whose runs have metrics, as far as metrics need them: the trainings."""

    async def find_run(self, caller: Caller, run_id: str) -> Run:
        """A run of the caller's project. Raises `NotFound`."""
        ...

    async def hold_run(self, session: AsyncSession, caller: Caller, run_id: str) -> Owner:
        """The run as an owner of metrics; it stays until the session's transaction ends. Raises `NotFound`."""
        ...

    async def runs_of_experiment(self, caller: Caller, experiment_id: str) -> Sequence[Run]:
        """All runs of an experiment of the caller's project, newest first. Raises `NotFound`."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """Event files that are read: of which run, where they lie, and how far each was read."""

    owner_id: str
    directory: str
    instance_count: int
    places: Mapping[str, Place]


@dataclass(frozen=True, slots=True)
class History:
    """A metric of one instance with (some of) its points."""

    series: Series
    points: Columns | None = None
    is_sampled: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a run's metrics. `notes`: what was left out."""

    metrics: Page[History]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """Which histories: none without `names`. Steps are inclusive; `max_points` of each metric."""

    names: Sequence[str] = ()
    instance: int | None = None
    from_step: int | None = None
    to_step: int | None = None
    max_points: int = 1000


@dataclass(frozen=True, slots=True)
class ComparisonRequest:
    """Which runs of an experiment, and which of their metrics (`names`; empty for all)."""

    names: Sequence[str] = ()
    filters: Sequence[str] = ()
    sort: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side."""

    parameter_names: Sequence[str]
    metric_names: Sequence[str]
    has_more_metrics: bool
    runs: Page[Run]
    figures: Mapping[str, Mapping[str, Figures]]


class Metrics:
    """Metrics of runs."""

    def __init__(self, database: Database, limits: Limits | None = None, clock: Clock = utc_now) -> None:
        self._database = database
        self._limits = limits or Limits()
        self._clock = clock
        self._turns = weakref.WeakValueDictionary[str, asyncio.Lock]()

    async def open_source(self, session: AsyncSession, owner: Owner, directory: str, instance_count: int) -> None:
        """Have the event files of a directory read from now on, as part of the caller's transaction. Asking again is fine."""
        await self._ensure_run(session, owner)
        run = await repository.held_run(session, owner.id)
        if run is not None and not run.is_gone:
            run.directory, run.instance_count, run.is_open = directory, instance_count, True

    async def open_sources(self) -> list[Source]:
        """Event files that are to be read."""
        async with self._database.read() as session:
            places = await repository.open_places(session)
            return [
                Source(run.owner_id, run.directory, run.instance_count, places.get(run.owner_id, {}))
                for run in await repository.open_runs(session)
                if run.directory is not None
            ]

    async def take_piece(self, source: Source, piece: Piece) -> bool:
        """Keep what was read of a file, and how far, both or neither. False when somebody else has read on from there meanwhile."""
        async with self._database.write() as session:
            run = await repository.held_run(session, source.owner_id)
            if run is None or run.is_gone:
                return False
            if await repository.place_of(session, source.owner_id, piece.path) != source.places.get(piece.path):
                return False
            if piece.restart_step is not None:
                directory = piece.path.rpartition("/")[0]
                instance, _ = split_instance(f"{directory}/", source.instance_count)
                await store.forget_from(session, run, instance, directory, piece.restart_step)
            await self._take_points(session, run, source, piece)
            _note_losses(run, piece)
            await repository.set_file(session, source.owner_id, piece.path, piece.inode, piece.end)
        return True

    async def take_notes(self, owner_id: str, notes: Sequence[str], *, is_over: bool) -> None:
        """Keep what is to be said about a run's event files; `is_over`: all of them was read."""
        async with self._database.write() as session:
            run = await repository.held_run(session, owner_id)
            if run is None or run.is_gone:
                return
            for text in notes:
                store.note(run, text)
            if is_over:
                run.is_open = False

    async def write(self, runs: Runs, caller: Caller, run_id: str, instance: int, points: Sequence[Point]) -> None:
        """Keep points that a program sends. Sent again they change nothing. Raises `NotFound`, `ForeignRun` or `Invalid`."""
        if caller.workload_id is not None and caller.workload_id != run_id:
            raise ForeignRun(run_id)
        wanted = _by_name(points)
        has_much = False
        async with self._database.write() as session:
            owner = await runs.hold_run(session, caller, run_id)
            if instance >= owner.instance_count:
                raise Invalid([Fault("instance", f"must be less than {owner.instance_count}, the run's instances")])
            key = caller.idempotency_key
            if await claim(session, caller.project.id, KIND, key) is not None:
                return
            await self._ensure_run(session, owner)
            run = await repository.held_run(session, run_id)
            if run is None or run.is_gone:
                return
            if arrivals.is_small(wanted) and not await arrivals.has(session, run_id):
                by_key = {(instance, name): columns for name, columns in wanted.items()}
                await store.add_points(session, run, by_key, self._limits)
            else:
                has_much = await arrivals.keep(session, run_id, instance, wanted) > arrivals.MAX_WAITING
            remember(session, caller.project.id, KIND, key, run_id)
        if has_much:
            await self.settle(run_id)

    async def waiting_runs(self, group_id: str | None = None) -> Sequence[str]:
        """Runs (of a group) of which writes wait to be put into their series."""
        async with self._database.read() as session:
            return await arrivals.owners(session, group_id)

    async def settle(self, run_id: str) -> None:
        """Put what waits of a run into its series, some of them in each transaction: meanwhile others write."""
        async with self._turns.setdefault(run_id, asyncio.Lock()):
            async with self._database.read() as session:
                known = await arrivals.waiting(session, run_id)
            if not known:
                return
            wanted = await asyncio.to_thread(arrivals.together, [content for _, content in known])
            keys = list(wanted)
            for begin in range(0, max(len(keys), 1), _SERIES_A_TURN):
                part = keys[begin : begin + _SERIES_A_TURN]
                async with self._database.write() as session:
                    run = await repository.held_run(session, run_id)
                    if run is None or run.is_gone:
                        return
                    await store.add_points(session, run, {key: wanted[key] for key in part}, self._limits)
                    if begin + _SERIES_A_TURN >= len(keys):
                        await arrivals.drop_known(session, run_id, known)

    async def report(
        self, runs: Runs, caller: Caller, run_id: str, wanted: HistoryRequest, page: PageRequest
    ) -> Report:
        """What a run's metrics come to, and the histories asked for. Raises `NotFound`, or `Invalid` for too many names."""
        if len(wanted.names) > MAX_HISTORIES:
            raise Invalid([Fault("name", f"at most {MAX_HISTORIES} at once (there are {len(wanted.names)})")])
        await runs.find_run(caller, run_id)
        async with self._database.read() as session:
            is_behind = await arrivals.has(session, run_id)
        if is_behind:
            await self.settle(run_id)
        async with self._database.read() as session:
            run = await repository.run_of(session, run_id)
            found = await repository.series_page(session, run_id, wanted.names, wanted.instance, page)
            histories = [
                await _read_history(session, series, wanted) if wanted.names else History(series)
                for series in found.items
            ]
        return Report(Page(histories, found.total_count, page), [] if run is None else run.notes)

    async def compare(
        self, runs: Runs, caller: Caller, experiment_id: str, wanted: ComparisonRequest, page: PageRequest
    ) -> Comparison:
        """The runs of an experiment side by side. Raises `NotFound`, or `Invalid` with all that is wrong with filters and order."""
        parsed, faults = parse(wanted.filters, wanted.sort)
        if len(wanted.names) > MAX_COMPARED_METRICS:
            faults.append(Fault("name", f"at most {MAX_COMPARED_METRICS} at once (there are {len(wanted.names)})"))
        if faults:
            raise Invalid(faults)
        all_runs = await runs.runs_of_experiment(caller, experiment_id)
        for run_id in await self.waiting_runs(experiment_id):
            await self.settle(run_id)
        async with self._database.read() as session:
            names = await repository.names_in_group(session, experiment_id)
            decisive = {column.name for column in parsed.metric_columns}
            figures = await repository.figures_in_group(session, experiment_id, sorted(decisive))
            chosen = choose(all_runs, figures, parsed)
            shown = chosen[page.offset :][: page.limit]
            columns = [name for name in names if name in wanted.names] if wanted.names else names
            shown_names = columns[:MAX_COMPARED_METRICS]
            figures = await repository.figures_of(session, [run.id for run in shown], shown_names, len(names))
        return Comparison(
            parameter_names=sorted({name for run in all_runs for name in run.parameters}),
            metric_names=shown_names,
            has_more_metrics=len(columns) > len(shown_names),
            runs=Page(shown, len(chosen), page),
            figures=figures,
        )

    async def forget(self, owner_id: str) -> None:
        """Delete all metrics of an owner, in pieces that hold nobody up. Nothing is added to it any more."""
        async with self._database.write() as session:
            await repository.mark_gone(session, owner_id)
        while True:
            async with self._database.write() as session:
                if not await repository.drop_some(session, owner_id, _ROWS_A_PIECE):
                    await repository.drop_run(session, owner_id)
                    return
            await asyncio.sleep(0)

    async def _ensure_run(self, session: AsyncSession, owner: Owner) -> None:
        values: dict[str, Any] = {
            "owner_id": owner.id,
            "owner_kind": owner.kind,
            "project_id": owner.project_id,
            "group_id": owner.group_id,
            "instance_count": 1,
            "is_open": False,
            "is_gone": False,
            "notes": [],
            "created_at": self._clock(),
        }
        await repository.add_run(session, values)

    async def _take_points(self, session: AsyncSession, run: MetricRunRow, source: Source, piece: Piece) -> None:
        points = piece.points
        keys = [split_instance(name, source.instance_count) for name in points.names]
        rows: dict[arrivals.Key, list[tuple[int, int, float]]] = {key: [] for key in keys}
        for index, step, time, value in zip(points.series, points.steps, points.times, points.values, strict=True):
            rows[keys[index]].append((step, time, value))
        wanted = {key: columns_of(each) for key, each in rows.items() if each}
        directory = piece.path.rpartition("/")[0]
        await store.add_points(session, run, wanted, self._limits, dict.fromkeys(wanted, directory))


def _by_name(points: Sequence[Point]) -> dict[str, Columns]:
    rows: dict[str, list[tuple[int, int, float]]] = {}
    for point in points:
        rows.setdefault(point.name, []).append((point.step, point.time, point.value))
    return {name: columns_of(each) for name, each in rows.items()}


def _note_losses(run: MetricRunRow, piece: Piece) -> None:
    if piece.corrupt_bytes:
        store.note(run, f"'{piece.path}' is damaged: records that fail their checksum were left out.")
    if piece.bad_events:
        store.note(run, f"'{piece.path}' has records that are no events; they were left out.")
    if piece.long_names:
        store.note(run, f"'{piece.path}' has metrics whose names are too long; they were left out.")


async def _read_history(session: AsyncSession, series: Series, wanted: HistoryRequest) -> History:
    """A series with at most `max_points` of its points within the steps."""
    tail = _clipped(series.tail, wanted)
    if not series.packed_count:
        return _sampled(series, tail, wanted.max_points)
    stretches = await repository.summaries_of(session, series.id, wanted.from_step, wanted.to_step)
    keys = [stretch.first for stretch in stretches]
    if len(stretches) * 4 < wanted.max_points:
        contents = await repository.blocks_at(session, series.id, keys)
        return await asyncio.to_thread(_unpacked, series, [contents[key] for key in keys], tail, wanted)
    # So many that the summaries of blocks draw the curve; only the ends are looked at.
    ends = await repository.blocks_at(session, series.id, [keys[0], keys[-1]])
    first, last = (_clipped(unpack(ends[key]), wanted) for key in (keys[0], keys[-1]))
    parts = [*([summarise(first)] if len(first) else []), *stretches[1:-1]]
    parts += [summarise(each) for each in (last, tail) if len(each)]
    end_points = [_at(each, index) for each, index in ((first, 0), (tail if len(tail) else last, -1)) if len(each)]
    return History(series, sample_summaries(parts, end_points, wanted.max_points), is_sampled=True)


def _unpacked(series: Series, packed: Sequence[bytes], tail: Columns, wanted: HistoryRequest) -> History:
    whole = Columns()
    for content in packed:
        whole.extend(unpack(content))
    whole = _clipped(whole, wanted)
    whole.extend(tail)
    return _sampled(series, whole, wanted.max_points)


def _sampled(series: Series, columns: Columns, max_points: int) -> History:
    return History(series, sample(columns, max_points), is_sampled=len(columns) > max_points)


def _clipped(columns: Columns, wanted: HistoryRequest) -> Columns:
    if wanted.from_step is not None:
        columns = before(columns, (wanted.from_step, _ALWAYS))[1]
    if wanted.to_step is not None:
        columns = before(columns, (wanted.to_step + 1, _ALWAYS))[0]
    return columns


def _at(columns: Columns, index: int) -> Extreme:
    return Extreme(columns.steps[index], columns.times[index], columns.values[index])
