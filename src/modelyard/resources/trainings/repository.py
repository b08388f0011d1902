"""Queries on trainings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.db.listing import Listing, Wanted
from modelyard.db.rows import row_of
from modelyard.kit.errors import Blocker
from modelyard.kit.ids import first_id
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.trainings.lifecycle import LIFECYCLE, TrainingState
from modelyard.resources.trainings.table import COVERING, TermRow, TrainingRow
from modelyard.resources.trainings.terms import AFTER_ALL, folded, tag_term

ACTIVE = tuple(state.value for state in TrainingState if not LIFECYCLE.is_final(state))
"""The states of what has not ended."""
FEW = 500
"""A filter that leaves no more than this is answered from its own index, whatever the order of the list."""

LISTING = Listing(
    TrainingRow,
    {
        "updatedDatetime": TrainingRow.updated_at,
        "trainingName": TrainingRow.name,
        "trainingStatusCode": TrainingRow.state,
    },
    COVERING,
)
_IS_THERE = TrainingRow.desired != "delete"


@dataclass(frozen=True, slots=True)
class TrainingFilter:
    """Which trainings; empty means all. Of several values of one filter any will do; of tags and words all must be there.

    Attributes:
        name_part: a part of the name, without regard to case.
        tags: keys with values; without one, any value will do.
        words: beginnings of words of name, description and tags.
        created_from, created_to: the first moment that is in, and the first that is out again.
    """

    ids: Sequence[str] = ()
    names: Sequence[str] = ()
    states: Sequence[str] = ()
    experiment_ids: Sequence[str] = ()
    image_ids: Sequence[str] = ()
    flavor_ids: Sequence[str] = ()
    tags: Sequence[tuple[str, str | None]] = ()
    words: Sequence[str] = ()
    name_part: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


async def by_id(session: AsyncSession, project_id: str, training_id: str) -> TrainingRow | None:
    """A training of the project."""
    row = await row_of(session, TrainingRow, training_id)
    return row if row is not None and row.project_id == project_id and row.desired != "delete" else None


async def held(session: AsyncSession, project_id: str, training_id: str) -> TrainingRow | None:
    """Like `by_id`; until the transaction ends nobody else gets it so: what a guard has seen stays true."""
    row = await session.get(TrainingRow, training_id, with_for_update=True)
    return row if row is not None and row.project_id == project_id and row.desired != "delete" else None


async def by_key(session: AsyncSession, training_id: str) -> TrainingRow | None:
    """A training of any project, for the reconciler."""
    return await row_of(session, TrainingRow, training_id)


async def locked(session: AsyncSession, training_id: str) -> TrainingRow | None:
    """Like `by_key`; until the transaction ends nobody else changes it."""
    return await row_of(session, TrainingRow, training_id, lock="wait")


async def free(session: AsyncSession, training_id: str) -> TrainingRow | None:
    """Like `locked`, but None also when somebody else has it: whoever holds other locks must not wait for this one."""
    return await row_of(session, TrainingRow, training_id, lock="skip")


async def in_experiment(session: AsyncSession, experiment_id: str, limit: int) -> Sequence[Blocker]:
    """Some trainings of an experiment, oldest first."""
    statement = select(TrainingRow.id, TrainingRow.name).where(TrainingRow.experiment_id == experiment_id, _IS_THERE)
    found = await session.execute(statement.order_by(TrainingRow.id).limit(limit))
    return [Blocker("training", id, name) for id, name in found]


async def active(session: AsyncSession, project_id: str) -> Sequence[TrainingRow]:
    """The trainings of the project that have not ended."""
    return (await session.scalars(select(TrainingRow).where(*_active(project_id)).order_by(TrainingRow.id))).all()


async def count_active(session: AsyncSession, project_id: str, limit: int) -> int:
    """How many trainings of the project have not ended; counts no further than `limit`."""
    found = select(TrainingRow.id).where(*_active(project_id)).limit(limit)
    return await session.scalar(select(func.count()).select_from(found.subquery())) or 0


async def names_in(session: AsyncSession, experiment_id: str, limit: int) -> dict[str, str]:
    """The names of an experiment's trainings, by their ids; the newest where there are more than `limit`."""
    statement = select(TrainingRow.id, TrainingRow.name).where(TrainingRow.experiment_id == experiment_id, _IS_THERE)
    rows = await session.execute(statement.order_by(TrainingRow.id.desc()).limit(limit))
    return dict(rows.tuples().all())


async def run_columns(session: AsyncSession, project_id: str, experiment_id: str, limit: int) -> Sequence[Any]:
    """Of the trainings of an experiment, newest first, what `views.run_from` takes."""
    statement = select(
        TrainingRow.id,
        TrainingRow.name,
        TrainingRow.state,
        TrainingRow.created_at,
        TrainingRow.experiment_id,
        TrainingRow.status,
        TrainingRow.spec["parameters"],
    ).where(
        TrainingRow.project_id == project_id,
        TrainingRow.experiment_id == experiment_id,
        TrainingRow.desired != "delete",
    )
    return (await session.execute(statement.order_by(TrainingRow.id.desc()).limit(limit))).all()


async def page(
    session: AsyncSession, project_id: str, wanted: TrainingFilter, request: PageRequest
) -> Page[TrainingRow]:
    """Trainings of the project, as the request sorts them."""
    return await LISTING.page(session, await _wanted(session, project_id, wanted), request)


async def ids(session: AsyncSession, project_id: str, wanted: TrainingFilter, request: PageRequest) -> Sequence[str]:
    """The ids of all trainings of the project that are wanted, as the request sorts them."""
    return await LISTING.all_ids(session, await _wanted(session, project_id, wanted), request)


async def some(session: AsyncSession, ids: Sequence[str]) -> Sequence[TrainingRow]:
    """The trainings of ids that `ids` has told, as far as they are still there, in that order."""
    return [row for row in await LISTING.rows(session, ids) if row.desired != "delete"]


async def set_terms(session: AsyncSession, row: TrainingRow, terms: Iterable[str]) -> None:
    """Replace the terms that the training is found by."""
    await session.execute(delete(TermRow).where(TermRow.training_id == row.id))
    session.add_all(TermRow(project_id=row.project_id, term=term, training_id=row.id) for term in sorted(terms))


async def _wanted(session: AsyncSession, project_id: str, wanted: TrainingFilter) -> Wanted:
    """What rows must fulfil. Each filter is asked first for its rows, up to `FEW`: few rows make all other filters cheap."""
    common: list[ColumnElement[bool]] = [TrainingRow.project_id == project_id, _IS_THERE]
    if wanted.created_from is not None:
        common.append(TrainingRow.id >= first_id(wanted.created_from))
    if wanted.created_to is not None:
        common.append(TrainingRow.id < first_id(wanted.created_to))
    if wanted.ids:
        common.append(TrainingRow.id.in_(wanted.ids))
    filters: list[ColumnElement[bool]] = []
    for column, values in (
        (TrainingRow.name, wanted.names),
        (TrainingRow.state, wanted.states),
        (TrainingRow.experiment_id, wanted.experiment_ids),
        (TrainingRow.image_id, wanted.image_ids),
        (TrainingRow.flavor_id, wanted.flavor_ids),
    ):
        if values:
            filters.append(column == values[0] if len(values) == 1 else column.in_(values))
    # In the order of their ids, which every index for a filter has: without it SQLite may walk along an index that lacks what is tested.
    newest = TrainingRow.id.desc()
    looks = [(select(TrainingRow.id).where(*common, each).order_by(newest), each) for each in filters]
    if wanted.name_part:
        has_part = _has_part(session, folded(wanted.name_part))
        looks.append((LISTING.covered(select(TrainingRow.id).where(*common, has_part)), has_part))
    terms = [(term, term) for term in (tag_term(*tag) for tag in wanted.tags)]
    terms += [(word, word + AFTER_ALL) for word in wanted.words]
    postings = [_posting(project_id, *term) for term in terms]
    tests: list[ColumnElement[bool]] = []
    probes: list[tuple[ColumnElement[bool], Select[str]]] = []
    for look, condition in looks:
        if not await _are_few(session, look, common):
            tests.append(condition)
    for ids, condition in postings:
        if not await _are_few(session, ids.distinct(), common):
            probes.append((condition, ids))
    is_indexed = len(looks) + len(postings) == 1 and not wanted.name_part
    constant = {key for key, values in (("name", wanted.names), ("state", wanted.states)) if len(values) == 1}
    return Wanted(common, tests, probes, is_indexed, constant)


async def _are_few(session: AsyncSession, look: Select[str], common: list[ColumnElement[bool]]) -> bool:
    """Whether a filter leaves few rows; if so, they are what all rows are from now on."""
    ids = set((await session.scalars(look.limit(FEW + 1))).all())
    if len(ids) > FEW:
        return False
    common.append(TrainingRow.id.in_(sorted(ids)))
    return True


def _has_part(session: AsyncSession, part: str) -> ColumnElement[bool]:
    find = func.instr if session.get_bind().dialect.name == "sqlite" else func.strpos
    return find(TrainingRow.name_folded, part) > 0


def _posting(project_id: str, first: str, last: str) -> tuple[Select[str], ColumnElement[bool]]:
    """The ids of trainings that have a term from `first` to `last`, and the same as a condition."""
    is_meant = TermRow.term == first if first == last else TermRow.term.between(first, last)
    ids = select(TermRow.training_id).where(TermRow.project_id == project_id, is_meant)
    return ids, exists().where(TermRow.training_id == TrainingRow.id, is_meant)


def _active(project_id: str) -> list[ColumnElement[bool]]:
    return [TrainingRow.project_id == project_id, TrainingRow.state.in_(ACTIVE), _IS_THERE]
