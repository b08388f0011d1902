"""Moves and their events: together or not at all, and never one that the lifecycle does not have."""

from __future__ import annotations

from enum import StrEnum

import pytest
from sqlalchemy import select

from modelyard.control.events import events_of, forget_events
from modelyard.control.tables import EventRow
from modelyard.control.transitions import born, move
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.lifecycle import Lifecycle, MoveNotAllowed
from modelyard.resources.routes.table import RouteRow


class State(StrEnum):
    NEW = "NEW"
    UP = "UP"
    GONE = "GONE"


LIFECYCLE = Lifecycle(
    name="lamp",
    initial=State.NEW,
    moves={State.NEW: frozenset({State.UP}), State.UP: frozenset({State.GONE}), State.GONE: frozenset()},
)


def new_row() -> RouteRow:
    now = utc_now()
    return RouteRow(
        id="r1", project_id="p1", name="r", desired="run", created_at=now, updated_at=now, owner_kind="x", owner_id="y"
    )


async def add(database: Database) -> None:
    async with database.write() as session:
        row = new_row()
        born(session, LIFECYCLE, row, actor="user:ann")
        session.add(row)


async def step(database: Database, state: State, **why: str) -> bool:
    async with database.write() as session:
        row = await session.get(RouteRow, "r1")
        assert row is not None
        return move(session, LIFECYCLE, row, state, **why)


async def test_a_life_is_told_in_events(database: Database) -> None:
    await add(database)
    assert await step(database, State.UP, reason="SWITCHED_ON", message="Somebody came in.")
    assert not await step(database, State.UP, reason="SWITCHED_ON", message="Somebody came in.")  # nothing new
    assert await step(database, State.UP, reason="SWITCHED_ON", message="Somebody else came in.")
    assert await step(database, State.GONE)
    async with database.read() as session:
        events = await events_of(session, "lamp", "r1")
    assert [(event.actor, event.old_state, event.new_state, event.message) for event in events] == [
        ("user:ann", None, "NEW", None),
        ("controller", "NEW", "UP", "Somebody came in."),
        ("controller", "UP", "UP", "Somebody else came in."),
        ("controller", "UP", "GONE", None),
    ]
    assert all(event.at.tzinfo is not None for event in events)
    async with database.write() as session:
        await forget_events(session, "lamp", "r1")
    async with database.read() as session:
        assert await events_of(session, "lamp", "r1") == []


async def test_a_move_that_is_not_in_the_table_is_refused_and_leaves_nothing(database: Database) -> None:
    await add(database)
    with pytest.raises(MoveNotAllowed, match="lamp: NEW → GONE is not a move"):
        await step(database, State.GONE)
    async with database.read() as session:
        row = await session.get(RouteRow, "r1")
        assert row is not None
        assert row.state == "NEW"
        assert len(await events_of(session, "lamp", "r1")) == 1


async def test_a_rollback_leaves_neither_state_nor_event(database: Database) -> None:
    await add(database)
    with pytest.raises(ZeroDivisionError):
        async with database.write() as session:
            row = await session.get(RouteRow, "r1")
            assert row is not None
            move(session, LIFECYCLE, row, State.UP)
            raise ZeroDivisionError
    async with database.read() as session:
        row = await session.get(RouteRow, "r1")
        assert row is not None
        assert row.state == "NEW"
        assert len((await session.scalars(select(EventRow))).all()) == 1


async def test_long_histories_are_cut_at_the_old_end(database: Database) -> None:
    await add(database)
    await step(database, State.UP)
    async with database.write() as session:
        row = await session.get(RouteRow, "r1")
        assert row is not None
        for number in range(1100):
            move(session, LIFECYCLE, row, State.UP, message=f"{number}")
    async with database.read() as session:
        events = await events_of(session, "lamp", "r1")
    assert (len(events), events[-1].message) == (1000, "1099")
