"""The queue's promises, on both databases: order, merging, back-off, leases that end, and tokens that keep stale holders out."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from modelyard.control.tables import WorkItemRow
from modelyard.control.work import Finished, Lease, LeaseLost, WorkItem, WorkQueue, enqueue, forget
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.testing.clock import ShiftedClock


async def ask(database: Database, *keys: str, kind: str = "thing", **options: object) -> None:
    async with database.write() as session:
        for key in keys:
            await enqueue(session, kind, key, **options)  # type: ignore[arg-type]  # options of enqueue


async def count(database: Database) -> int:
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(WorkItemRow)) or 0


def keys(items: list[WorkItem]) -> list[str]:
    return [item.key for item in items]


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
def queue(database: Database, clock: ShiftedClock) -> WorkQueue:
    return WorkQueue(database, "a", clock=clock)


async def test_what_is_due_longest_comes_first(database: Database, queue: WorkQueue) -> None:
    now = utc_now()
    for key, ago_seconds in (("young", 1), ("old", 3), ("middle", 2)):
        await ask(database, key, at=now - timedelta(seconds=ago_seconds))
    assert keys(await queue.claim(["thing"], 2)) == ["old", "middle"]
    assert keys(await queue.claim(["thing"], 2)) == ["young"]
    assert await queue.claim(["thing"], 2) == []


async def test_only_kinds_that_are_asked_for(database: Database, queue: WorkQueue) -> None:
    await ask(database, "x", kind="other")
    assert await queue.claim(["thing"], 10) == []
    assert keys(await queue.claim(["thing", "other"], 10)) == ["x"]


async def test_requests_merge_and_the_item_goes_when_done(database: Database, queue: WorkQueue) -> None:
    await ask(database, "x", "x", "x")
    (item,) = await queue.claim(["thing"], 10)
    await queue.finish(item)
    assert await queue.claim(["thing"], 10) == []
    assert await count(database) == 0


async def test_the_earlier_of_two_times_holds(database: Database, queue: WorkQueue, clock: ShiftedClock) -> None:
    await ask(database, "x", at=utc_now() + timedelta(seconds=60))
    await ask(database, "x", at=utc_now() + timedelta(seconds=600))
    assert await queue.claim(["thing"], 10) == []
    clock.advance(61)
    assert keys(await queue.claim(["thing"], 10)) == ["x"]


@pytest.mark.parametrize("is_hint", [False, True])
@pytest.mark.parametrize("again_after_seconds", [None, 60.0])
async def test_attention_asked_for_during_the_work_brings_it_back_at_once(
    database: Database, queue: WorkQueue, again_after_seconds: float | None, is_hint: bool
) -> None:
    await ask(database, "x")
    (item,) = await queue.claim(["thing"], 10)
    await ask(database, "x", is_hint=is_hint)
    assert await queue.claim(["thing"], 10) == []  # never twice at once
    await queue.finish(item, again_after_seconds=again_after_seconds)
    assert keys(await queue.claim(["thing"], 10)) == ["x"]


async def test_attention_asked_for_later_during_the_work_comes_later(
    database: Database, queue: WorkQueue, clock: ShiftedClock
) -> None:
    await ask(database, "x")
    (item,) = await queue.claim(["thing"], 10)
    await ask(database, "x", at=clock() + timedelta(seconds=30))
    await queue.finish(item, again_after_seconds=60)
    assert await queue.claim(["thing"], 10) == []
    clock.advance(31)
    assert keys(await queue.claim(["thing"], 10)) == ["x"]


async def test_after_a_failure_hints_wait_and_requests_do_not(
    database: Database, queue: WorkQueue, clock: ShiftedClock
) -> None:
    await ask(database, "x")
    (item,) = await queue.claim(["thing"], 10)
    await ask(database, "x", is_hint=True)
    await queue.finish(item, again_after_seconds=60, error="boom")
    assert await queue.claim(["thing"], 10) == []
    await ask(database, "x", is_hint=True)
    assert await queue.claim(["thing"], 10) == []
    clock.advance(61)
    (item,) = await queue.claim(["thing"], 10)
    assert item.attempts == 1
    await ask(database, "x")  # somebody wants something else now, e.g. to delete it
    await queue.finish(item, again_after_seconds=60, error="boom")
    (item,) = await queue.claim(["thing"], 10)
    assert item.attempts == 2
    await queue.finish(item)
    await ask(database, "x")
    (item,) = await queue.claim(["thing"], 10)
    assert item.attempts == 0  # it has worked since


async def test_an_abandoned_item_is_taken_over_and_its_old_holder_kept_out(
    database: Database, clock: ShiftedClock
) -> None:
    a, b = (WorkQueue(database, owner, lease_seconds=30, clock=clock) for owner in "ab")
    await ask(database, "x")
    (old,) = await a.claim(["thing"], 1)
    clock.advance(20)
    await a.renew([old])
    clock.advance(20)
    assert await b.claim(["thing"], 1) == []
    clock.advance(20)
    (new,) = await b.claim(["thing"], 1)
    assert new.token != old.token
    async with database.write() as session:
        await Lease(new).guard(session)
    with pytest.raises(LeaseLost):
        async with database.write() as session:
            await Lease(old).guard(session)
    async with database.read() as session:
        await Lease(new).check(session)
        with pytest.raises(LeaseLost):
            await Lease(old).check(session)
    await a.finish(old)  # without effect: it is not his any more
    clock.advance(29)
    assert await a.claim(["thing"], 1) == []


async def test_a_token_is_not_good_for_a_key_that_comes_back(database: Database, queue: WorkQueue) -> None:
    await ask(database, "x")
    (old,) = await queue.claim(["thing"], 1)
    async with database.write() as session:
        await forget(session, "thing", "x")
    await ask(database, "x")
    (new,) = await queue.claim(["thing"], 1)
    assert new.token != old.token
    with pytest.raises(LeaseLost):
        async with database.write() as session:
            await Lease(old).guard(session)


async def test_release_all_gives_back_what_this_owner_holds(database: Database, clock: ShiftedClock) -> None:
    a, b = (WorkQueue(database, owner, clock=clock) for owner in "ab")
    await ask(database, "x", "y")
    await a.claim(["thing"], 1)
    await b.claim(["thing"], 1)
    await WorkQueue(database, "a", clock=clock).release_all()
    assert len(await b.claim(["thing"], 5)) == 1


async def test_next_due_at(database: Database, queue: WorkQueue) -> None:
    assert await queue.next_due_at(["thing"]) is None
    due_at = utc_now() + timedelta(seconds=60)
    await ask(database, "x", at=due_at)
    assert await queue.next_due_at(["thing"]) == due_at
    assert await queue.next_due_at(["other"]) is None


async def test_finished_and_claimed_in_one_transaction(database: Database, queue: WorkQueue) -> None:
    await ask(database, "x", "y")
    (first,) = await queue.claim(["thing"], 1)
    (second,) = await queue.claim(["thing"], 1, finished=[Finished(first)])
    assert {first.key, second.key} == {"x", "y"}
    assert await count(database) == 1


async def test_a_rolled_back_request_was_never_made(database: Database, queue: WorkQueue) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.write() as session:
            await enqueue(session, "thing", "x")
            raise ZeroDivisionError
    assert await count(database) == 0


async def test_two_items_that_wake_each_other_do_not_wait_for_each_other(database: Database, queue: WorkQueue) -> None:
    """A holds its lease and wakes B while B holds its own and wakes A: a classical deadlock if requests took the leases' lock."""
    await ask(database, "x", "y")
    one, two = await queue.claim(["thing"], 2)
    meeting = asyncio.Barrier(1 if database.is_sqlite else 2)  # SQLite has one writer: they can't meet

    async def step(own: WorkItem, other: WorkItem) -> None:
        async with database.write() as session:
            await Lease(own).guard(session)
            await meeting.wait()
            await enqueue(session, other.kind, other.key)

    async with asyncio.timeout(30):
        await asyncio.gather(step(one, two), step(two, one))


async def test_many_owners_never_hold_the_same_item(database: Database) -> None:
    """Each key has a counter that is read, thought about, and written back under the lease: a lost update would show."""
    clock = ShiftedClock()
    all_keys = [f"k{number}" for number in range(12)]
    working: Counter[str] = Counter()
    done: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    stop = asyncio.Event()

    async def own(name: str, chance: random.Random) -> None:
        queue = WorkQueue(database, name, clock=clock)
        while not stop.is_set():
            for item in await queue.claim(["thing"], chance.randint(1, 4)):
                working[item.key] += 1
                assert working[item.key] == 1, f"{item.key} is held twice"
                await asyncio.sleep(chance.random() * 0.003)
                async with database.write() as session:
                    await Lease(item).guard(session)
                working[item.key] -= 1
                done[item.key] += 1
                if chance.random() < 0.3:
                    await queue.finish(item, again_after_seconds=0.0, error="again")
                else:
                    await queue.finish(item)
            await asyncio.sleep(0)

    async def request(chance: random.Random) -> None:
        for _ in range(60):
            key = chance.choice(all_keys)
            asked[key] += 1
            await ask(database, key)

    owners = [asyncio.create_task(own(f"owner-{number}", random.Random(number))) for number in range(4)]
    await asyncio.gather(*(request(random.Random(100 + number)) for number in range(2)))
    async with asyncio.timeout(30):
        while await count(database):
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*owners)
    assert set(done) == set(asked)


_WORKER = """
import asyncio, os, sys
from modelyard.control.work import Lease, WorkQueue
from modelyard.db.engine import Database
from sqlalchemy import text

async def main(url, name):
    database = Database(url)
    queue = WorkQueue(database, name)
    idle = 0
    while idle < 20:
        items = await queue.claim(["thing"], 3)
        idle = 0 if items else idle + 1
        for item in items:
            async with database.read() as session:
                before = await session.scalar(text("SELECT value FROM tally WHERE key = :key"), {"key": item.key})
            await asyncio.sleep(0.002)
            async with database.write() as session:
                await Lease(item).guard(session)
                await session.execute(
                    text("UPDATE tally SET value = :value, seen = seen || :name WHERE key = :key"),
                    {"key": item.key, "value": before + 1, "name": name},
                )
            await queue.finish(item, again_after_seconds=0.0 if before + 1 < 25 else None)
        if not items:
            await asyncio.sleep(0.02)
    await database.close()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.slow
async def test_real_processes_on_one_postgresql_share_the_work(pg_url: str) -> None:
    """Read, wait, write under the lease: 25 rounds of 8 keys in 3 processes end at exactly 25 each."""
    from sqlalchemy import text

    from modelyard.testing.workloads import make_tables

    database = Database(pg_url)
    await make_tables(database)
    names = [f"k{number}" for number in range(8)]
    async with database.write() as session:
        await session.execute(text("CREATE TABLE tally (key text PRIMARY KEY, value int, seen text)"))
        for name in names:
            await session.execute(text("INSERT INTO tally VALUES (:key, 0, '')"), {"key": name})
            await enqueue(session, "thing", name)
    workers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", _WORKER, pg_url, name, stderr=subprocess.PIPE)
        for name in "abc"
    ]
    for worker in workers:
        _, errors = await asyncio.wait_for(worker.communicate(), 120)
        assert worker.returncode == 0, errors.decode()
    async with database.read() as session:
        rows = (await session.execute(text("SELECT value, seen FROM tally"))).all()
    assert [row.value for row in rows] == [25] * 8
    assert {letter for row in rows for letter in row.seen} == set("abc")
    assert await count(database) == 0
    await database.close()
