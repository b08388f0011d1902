"""Sessions behave alike on SQLite and PostgreSQL where the product relies on it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import Integer, String, event, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from modelyard.db.columns import Json, Utc
from modelyard.db.engine import Database, NestedSession, announce, sqlite_url


class Base(DeclarativeBase):
    pass


class Parent(Base):
    __tablename__ = "parents"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    value: Mapped[int] = mapped_column(Integer, default=0)
    at: Mapped[datetime | None] = mapped_column(Utc)
    content: Mapped[dict[str, object] | None] = mapped_column(Json)


class Child(Base):
    __tablename__ = "children"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    parent_id: Mapped[int]
    name: Mapped[str | None] = mapped_column(String(20))


@pytest.fixture
async def database(empty_database_url: str) -> AsyncIterator[Database]:
    database = Database(empty_database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(
            text("CREATE TABLE leaves (id INTEGER PRIMARY KEY, p INTEGER REFERENCES parents (id))")
        )
    async with database.write() as session:
        session.add(Parent(id=1, value=0))
    yield database
    await database.close()


async def value(database: Database) -> int:
    async with database.read() as session:
        return await session.scalar(select(Parent.value).where(Parent.id == 1)) or 0


async def test_writers_that_read_first_lose_no_update(database: Database) -> None:
    async def add_one() -> None:
        async with database.write() as session:
            row = await session.scalar(select(Parent).where(Parent.id == 1).with_for_update())
            assert row is not None
            await asyncio.sleep(0)
            row.value += 1

    await asyncio.gather(*(add_one() for _ in range(40)))
    assert await value(database) == 40


async def test_two_processes_of_sqlite_lose_no_update_either(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('two') / 'test.db'}"
    databases = [Database(url), Database(url)]  # each with a lock of its own, as two processes have
    async with databases[0].engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with databases[0].write() as session:
        session.add(Parent(id=1, value=0))

    async def add_one(database: Database) -> None:
        async with database.write() as session:
            row = await session.get(Parent, 1)
            assert row is not None
            row.value += 1

    await asyncio.gather(*(add_one(databases[number % 2]) for number in range(30)))
    assert await value(databases[0]) == 30
    for database in databases:
        await database.close()


async def test_a_reader_does_not_wait_for_an_open_write_and_does_not_see_it(database: Database) -> None:
    is_in, go_on = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with database.write() as session:
            await session.execute(text("UPDATE parents SET value = 7"))
            is_in.set()
            await go_on.wait()

    writing = asyncio.create_task(write())
    await is_in.wait()
    async with asyncio.timeout(30):
        assert await value(database) == 0
    go_on.set()
    await writing
    assert await value(database) == 7


async def test_a_reader_sees_one_moment(database: Database) -> None:
    async with database.read() as session:
        first = await session.scalar(select(Parent.value))

        async def write() -> None:
            async with database.write() as other:
                await other.execute(text("UPDATE parents SET value = 9"))

        await asyncio.create_task(write())
        assert await session.scalar(text("SELECT value FROM parents")) == first
    assert await value(database) == 9


async def test_postgresql_plans_by_the_values_that_are_asked_for(pg_url: str) -> None:
    database = Database(pg_url)
    for open_session in (database.read, database.write, database.write):
        with pytest.raises(ZeroDivisionError):
            async with open_session() as session:
                assert await session.scalar(text("SHOW plan_cache_mode")) == "force_custom_plan"
                raise ZeroDivisionError  # what is rolled back takes the settings along where they came with it
    await database.close()


async def test_a_session_for_reading_can_not_write(database: Database) -> None:
    with pytest.raises(DBAPIError):
        async with database.read() as session:
            await session.execute(text("UPDATE parents SET value = 5"))
    assert await value(database) == 0
    async with database.write() as session:  # and the connections are as good as before
        await session.execute(text("UPDATE parents SET value = 6"))
    assert await value(database) == 6


async def test_an_error_rolls_back(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.write() as session:
            session.add(Parent(id=2))
            await session.flush()
            raise ZeroDivisionError
    async with database.read() as session:
        assert await session.get(Parent, 2) is None


async def test_listeners_hear_of_commits_and_of_nothing_else(database: Database) -> None:
    heard: list[frozenset[str]] = []

    def broken(_topics: frozenset[str]) -> None:
        raise RuntimeError("a listener's own fault")

    database.listen(broken)
    database.listen(heard.append)
    async with database.write() as session:
        announce(session, "a")
        announce(session, "b")
        announce(session, "a")
        assert heard == []
    assert heard == [frozenset({"a", "b"})]
    with pytest.raises(ZeroDivisionError):
        async with database.write() as session:
            announce(session, "c")
            raise ZeroDivisionError
    with pytest.raises(IntegrityError):
        async with database.write() as session:
            announce(session, "d")
            session.add(Parent(id=1))
    async with database.write():
        pass
    assert heard == [frozenset({"a", "b"})]


async def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.write() as session:
            await session.execute(text("INSERT INTO leaves VALUES (1, 999)"))


@pytest.mark.parametrize("outer", ["read", "write"])
@pytest.mark.parametrize("inner", ["read", "write"])
async def test_a_session_inside_a_session_is_refused_and_not_waited_for(
    database: Database, outer: str, inner: str
) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(NestedSession):
            async with getattr(database, outer)(), getattr(database, inner)():
                pass
        assert await value(database) == 0


async def test_many_readers_and_writers_at_once(database: Database) -> None:
    async def work(number: int) -> None:
        await value(database)
        async with database.write() as session:
            session.add(Parent(id=100 + number))
        await value(database)

    async with asyncio.timeout(20):
        await asyncio.gather(*(work(number) for number in range(60)))


async def test_tasks_that_are_cancelled_anywhere_leave_the_database_usable(database: Database) -> None:
    """Cancelled after 0, 1, 2 … turns of the event loop: each time either all is written or nothing, and no connection is lost."""
    for turns in range(60):
        number = 1000 + turns

        async def work(number: int = number) -> None:
            async with database.write() as session:
                session.add(Parent(id=number))
                await session.flush()
                session.add(Child(id=number, parent_id=number))
            await value(database)

        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0.0002 if turns % 2 else 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(30), database.read() as session:
            parent, child = await session.get(Parent, number), await session.get(Child, number)
            assert (parent is None) == (child is None)
    async with asyncio.timeout(30):
        await asyncio.gather(*(value(database) for _ in range(20)))
        async with database.write() as session:
            session.add(Parent(id=5000))


async def test_a_cancelled_write_gives_its_lock_back_at_once(database: Database) -> None:
    """Also while its traceback, which refers to the statement that was cut off, is still in somebody's hands."""

    async def work() -> None:
        async with database.write() as session:
            await session.execute(text("UPDATE parents SET value = value + 1"))
            await session.execute(text("SELECT count(*) FROM parents"))

    chance = random.Random(1)
    kept: list[object] = []
    for _ in range(150):
        task = asyncio.create_task(work())
        end_at = time.perf_counter() + chance.random() * 0.006
        while time.perf_counter() < end_at and not task.done():
            await asyncio.sleep(0)
        task.cancel()
        kept.extend(await asyncio.gather(task, return_exceptions=True))
        async with asyncio.timeout(30):
            await work()


async def test_moments_keep_their_offset(database: Database) -> None:
    korea = timezone(timedelta(hours=9))
    moment = datetime(2026, 3, 4, 5, 6, 7, 123456, tzinfo=korea)
    async with database.write() as session:
        session.add(Parent(id=2, at=moment))
        session.add(Parent(id=3, at=moment + timedelta(microseconds=1)))
    async with database.read() as session:
        rows = (await session.scalars(select(Parent).where(Parent.at >= moment).order_by(Parent.at.desc()))).all()
        assert [row.id for row in rows] == [3, 2]
        assert rows[1].at == moment
        assert rows[1].at is not None
        assert rows[1].at.tzinfo is UTC
    with pytest.raises(StatementError, match="a moment needs its offset"):
        async with database.write() as session:
            session.add(Parent(id=4, at=datetime(2026, 1, 1)))  # noqa: DTZ001  # that is the point


async def test_json_comes_back_as_it_was(database: Database) -> None:
    content: dict[str, object] = {"a": [1, 2.5, None, True], "b": {"한국": "어"}, "c": "x" * 5000}
    async with database.write() as session:
        session.add(Parent(id=2, content=content))
    async with database.read() as session:
        row = await session.get(Parent, 2)
        assert row is not None
        assert row.content == content


async def test_sqlite_writes_through_to_the_disk(tmp_path_factory: pytest.TempPathFactory) -> None:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('pragmas') / 'test.db'}")
    begun: list[str] = []

    def _on_begin(_connection: object) -> None:
        begun.append("begin")

    event.listen(database.engine.sync_engine, "begin", _on_begin)
    for opened, is_reader in ((database.read, 1), (database.write, 0)):
        async with opened() as session:
            seen = {
                name: await session.scalar(text(f"PRAGMA {name}"))
                for name in ("journal_mode", "synchronous", "foreign_keys", "query_only", "busy_timeout")
            }
        assert seen == {
            "journal_mode": "wal",
            "synchronous": 2,  # FULL
            "foreign_keys": 1,
            "query_only": is_reader,
            "busy_timeout": 10000,
        }
    assert begun
    await database.close()


async def test_a_statement_is_one_trip_to_sqlites_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trips: list[str] = []
    driver: Any = aiosqlite.Connection  # its only door to the thread has no public name
    go = driver._execute

    async def counted(self: Any, work: Any, *arguments: Any, **more: Any) -> object:
        trips.append(getattr(work, "__name__", ""))
        return await go(self, work, *arguments, **more)

    monkeypatch.setattr(driver, "_execute", counted)
    database = Database(sqlite_url(tmp_path / "trips.db"))
    async with database.write() as session:
        await session.execute(text("CREATE TABLE words (word TEXT)"))
    trips.clear()
    async with database.write() as session:
        await session.execute(text("INSERT INTO words VALUES (:word)"), [{"word": "a"}, {"word": "b"}])
        await session.execute(text("UPDATE words SET word = word || '!'"))
    assert trips == ["_begun", "_begun", "commit"]
    async with database.write():
        pass
    async with database.read() as session:
        pass
    assert len(trips) == 3  # nothing was said, so nothing was begun
    async with database.read() as session:
        await session.execute(text("SELECT 1"))  # the reader connects, and sets itself up
    trips.clear()
    async with database.read() as session:
        assert (await session.scalars(text("SELECT word FROM words ORDER BY word"))).all() == ["a!", "b!"]
    assert trips == ["_begun", "rollback"]
    await database.close()
