"""Queries on trainings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, exists, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.db.listing import COUNT_LIMIT, TESTED_COUNT_LIMIT, Listing
from modelyard.kit.errors import Blocker
from modelyard.kit.ids import first_id
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.trainings.lifecycle import LIFECYCLE, TrainingState
from modelyard.resources.trainings.table import TermRow, TrainingRow
from modelyard.resources.trainings.terms import AFTER_ALL, tag_term

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
)
# A literal, not a parameter: the indexes of the list are for rows that fulfil just this, and the planner must see that.
_IS_THERE = TrainingRow.desired != literal_column("'delete'")


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
    row = await session.get(TrainingRow, training_id)
    return row if row is not None and row.project_id == project_id and row.desired != "delete" else None


async def held(session: AsyncSession, project_id: str, training_id: str) -> TrainingRow | None:
    """Like `by_id`; until the transaction ends nobody else gets it so: what a guard has seen stays true."""
    row = await session.get(TrainingRow, training_id, with_for_update=True)
    return row if row is not None and row.project_id == project_id and row.desired != "delete" else None


async def by_key(session: AsyncSession, training_id: str) -> TrainingRow | None:
    """A training of any project, for the reconciler."""
    return await session.get(TrainingRow, training_id)


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
    conditions, is_indexed = await _conditions(session, project_id, wanted)
    limit = COUNT_LIMIT if is_indexed else TESTED_COUNT_LIMIT
    return await LISTING.page(session, conditions, request, count_limit=limit)


async def set_terms(session: AsyncSession, row: TrainingRow, terms: Iterable[str]) -> None:
    """Replace the terms that the training is found by."""
    await session.execute(delete(TermRow).where(TermRow.training_id == row.id))
    session.add_all(TermRow(project_id=row.project_id, term=term, training_id=row.id) for term in sorted(terms))


async def _conditions(
    session: AsyncSession, project_id: str, wanted: TrainingFilter
) -> tuple[list[ColumnElement[bool]], bool]:
    """What rows must fulfil, and whether one index alone can tell how many do.

    A planner can't know whether a filter leaves many rows or few: of many, the first in the list's order are soon found by walking along
    it; few would be searched for through the whole list. So each filter is asked first for its rows, up to `FEW`.
    """
    shared: list[ColumnElement[bool]] = [TrainingRow.project_id == project_id, _IS_THERE]
    if wanted.created_from is not None:
        shared.append(TrainingRow.id >= first_id(wanted.created_from))
    if wanted.created_to is not None:
        shared.append(TrainingRow.id < first_id(wanted.created_to))
    if wanted.ids:
        shared.append(TrainingRow.id.in_(wanted.ids))
    filters: list[ColumnElement[bool]] = [TrainingRow.name.in_(wanted.names)] if wanted.names else []
    for column, values in (
        (TrainingRow.state, wanted.states),
        (TrainingRow.experiment_id, wanted.experiment_ids),
        (TrainingRow.image_id, wanted.image_ids),
        (TrainingRow.flavor_id, wanted.flavor_ids),
    ):
        if values:
            filters.append(column == values[0] if len(values) == 1 else column.in_(values))
    if wanted.name_part:
        filters.append(TrainingRow.name.icontains(wanted.name_part, autoescape=True))
    # In the order of their ids, which every index for a filter has: without it SQLite may walk along an index that lacks what is tested.
    postings = [(select(TrainingRow.id).where(*shared, each).order_by(TrainingRow.id.desc()), each) for each in filters]
    postings += [_posting(project_id, term, term) for term in (tag_term(*tag) for tag in wanted.tags)]
    postings += [_posting(project_id, word, word + AFTER_ALL) for word in wanted.words]
    conditions = list(shared)
    for few, condition in postings:
        ids = set((await session.scalars(few.limit(FEW + 1))).all())
        conditions.append(TrainingRow.id.in_(sorted(ids)) if len(ids) <= FEW else condition)
    is_indexed = not postings or (len(filters) == 1 and len(postings) == 1 and wanted.name_part is None)
    return conditions, is_indexed


def _posting(project_id: str, first: str, last: str) -> tuple[Select[str], ColumnElement[bool]]:
    """The ids of trainings that have a term from `first` to `last`, and the same as a condition."""
    few = select(TermRow.training_id).where(TermRow.project_id == project_id, TermRow.term.between(first, last))
    has_one = exists().where(TermRow.training_id == TrainingRow.id, TermRow.term.between(first, last))
    return few.distinct() if first != last else few, has_one


def _active(project_id: str) -> list[ColumnElement[bool]]:
    return [TrainingRow.project_id == project_id, TrainingRow.state.in_(ACTIVE), _IS_THERE]
