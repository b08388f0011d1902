"""The controller with real tasks and a real queue; waiting is polling with a deadline, never a fixed sleep."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from sqlalchemy import select

from modelyard.control.controller import Controller, ControllerSettings
from modelyard.control.reconciler import Again, Done, Outcome
from modelyard.control.tables import WorkItemRow
from modelyard.control.work import Lease, WorkQueue, enqueue
from modelyard.db.engine import Database
from modelyard.kit.backoff import Backoff
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.errors import RetryLater

FAST = ControllerSettings(poll_seconds=0.05, backoff=Backoff(0.05, 0.2), end_seconds=0.5)


@dataclass
class Probe:
    """A reconciler that notes what it is given and does what a test says."""

    act: Callable[[str, Lease], Awaitable[Outcome]]
    kind: str = "thing"
    calls: Counter[str] = field(default_factory=Counter[str])
    at_once: Counter[str] = field(default_factory=Counter[str])
    most_at_once: int = 0

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        self.calls[key] += 1
        self.at_once[key] += 1
        assert self.at_once[key] == 1, f"{key} is reconciled twice at once"
        self.most_at_once = max(self.most_at_once, self.at_once.total())
        try:
            return await self.act(key, lease)
        finally:
            self.at_once[key] -= 1


async def until(is_true: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not is_true():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(
    database: Database,
    probe: Probe,
    settings: ControllerSettings = FAST,
    owner: str = "a",
    lease_seconds: float = 30.0,
    clock: Clock = utc_now,
) -> AsyncGenerator[asyncio.Task[None]]:
    queue = WorkQueue(database, owner, lease_seconds=lease_seconds, clock=clock)
    controller = Controller(database, queue, [probe], settings, clock)
    task = asyncio.create_task(controller.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ask(database: Database, *keys: str) -> None:
    async with database.write() as session:
        for key in keys:
            await enqueue(session, "thing", key)


async def rows(database: Database) -> list[WorkItemRow]:
    async with database.read() as session:
        return list((await session.scalars(select(WorkItemRow))).all())


async def until_empty(database: Database) -> None:
    async with asyncio.timeout(30):
        while await rows(database):
            await asyncio.sleep(0.01)


async def done(_key: str, _lease: Lease) -> Outcome:
    return Done()


async def test_a_commit_in_this_process_wakes_it_at_once(database: Database) -> None:
    probe = Probe(done)
    lazy = ControllerSettings(poll_seconds=60)
    async with running(database, probe, lazy):
        await asyncio.sleep(0.1)  # it has looked, and sleeps for a minute
        await ask(database, "x")
        await until(lambda: probe.calls["x"] == 1, 30)
        await until_empty(database)


async def test_a_hint_is_heard_at_once_and_brings_back_what_is_under_way(database: Database) -> None:
    go_on = asyncio.Event()

    async def act(_key: str, _lease: Lease) -> Outcome:
        await go_on.wait()
        return Done()

    probe = Probe(act)
    controller = Controller(database, WorkQueue(database, "a"), [probe], ControllerSettings(poll_seconds=60))
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(0.1)  # it has looked, and sleeps for a minute
    controller.hint("thing", {"x", "y"})
    await until(lambda: probe.calls.total() == 2, 10)
    controller.hint("thing", {"x"})
    await asyncio.sleep(0.1)
    assert probe.calls["x"] == 1  # never twice at once
    go_on.set()
    await until(lambda: probe.calls["x"] == 2, 10)
    await until_empty(database)
    assert probe.calls["y"] == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_hint_does_not_shorten_the_wait_after_a_failure(database: Database) -> None:
    async def act(_key: str, _lease: Lease) -> Outcome:
        raise RetryLater("not now", delay_seconds=60)

    probe = Probe(act)
    controller = Controller(database, WorkQueue(database, "a"), [probe], FAST)
    task = asyncio.create_task(controller.run())
    controller.hint("thing", {"x"})
    await until(lambda: probe.calls["x"] == 1, 10)
    controller.hint("thing", {"x"})
    await asyncio.sleep(0.2)
    assert probe.calls["x"] == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_finds_what_another_process_has_queued(database: Database, database_url: str) -> None:
    other = Database(database_url)
    probe = Probe(done)
    async with running(database, probe):
        await ask(other, "x")
        await until(lambda: probe.calls["x"] == 1)
    await other.close()


async def test_one_key_never_twice_at_once_and_not_more_keys_than_allowed(database: Database) -> None:
    async def slow(_key: str, _lease: Lease) -> Outcome:
        await asyncio.sleep(0.02)
        return Done()

    probe = Probe(slow)
    keys = [f"k{number}" for number in range(9)]
    async with running(database, probe, ControllerSettings(concurrency=3, poll_seconds=0.05)):
        for _ in range(4):
            await ask(database, *keys)
            await asyncio.sleep(0.01)
        await until_empty(database)
    assert probe.most_at_once == 3
    assert set(probe.calls) == set(keys)


async def test_a_request_during_the_work_is_not_lost(database: Database) -> None:
    is_in, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_key: str, _lease: Lease) -> Outcome:
        is_in.set()
        await go_on.wait()
        return Done()

    probe = Probe(wait)
    async with running(database, probe):
        await ask(database, "x")
        await is_in.wait()
        await ask(database, "x")
        go_on.set()
        await until(lambda: probe.calls["x"] == 2)
        await until_empty(database)


async def test_again_comes_again(database: Database) -> None:
    async def act(key: str, _lease: Lease) -> Outcome:
        return Again(0.01) if probe.calls[key] < 4 else Done()

    probe = Probe(act)
    async with running(database, probe, ControllerSettings(poll_seconds=60)):
        await ask(database, "x")
        await until(lambda: probe.calls["x"] == 4)
        await until_empty(database)


async def test_errors_are_tried_again_and_one_does_not_hinder_the_others(database: Database) -> None:
    async def act(key: str, _lease: Lease) -> Outcome:
        if key == "bad" and probe.calls["bad"] < 4:
            raise ValueError("it can't be\x00")
        return Done()

    probe = Probe(act)
    async with running(database, probe):
        await ask(database, "bad", "good")
        await until(lambda: probe.calls["good"] == 1)
        await until(lambda: probe.calls["bad"] == 2)
        await until_empty(database)
    assert probe.calls["bad"] == 4


async def test_what_went_wrong_can_be_read(database: Database) -> None:
    async def act(_key: str, _lease: Lease) -> Outcome:
        raise RetryLater("the gateway is starting", delay_seconds=3600)

    probe = Probe(act)
    async with running(database, probe):
        await ask(database, "x")
        await until(lambda: probe.calls["x"] == 1)
        async with asyncio.timeout(30):
            while not (found := await rows(database))[0].last_error:
                await asyncio.sleep(0.01)
    assert (found[0].last_error, found[0].attempts) == ("the gateway is starting", 1)
    assert probe.calls["x"] == 1  # the delay is the error's own


async def test_a_reconcile_that_hangs_is_broken_off(database: Database) -> None:
    async def act(key: str, _lease: Lease) -> Outcome:
        if probe.calls[key] == 1:
            await asyncio.Event().wait()
        return Done()

    probe = Probe(act)
    async with running(database, probe, ControllerSettings(poll_seconds=0.05, limit_seconds=0.1)):
        await ask(database, "x")
        await until(lambda: probe.calls["x"] == 2)
        await until_empty(database)


async def test_a_long_reconcile_keeps_its_lease(database: Database) -> None:
    go_on = asyncio.Event()

    async def act(_key: str, lease: Lease) -> Outcome:
        await go_on.wait()
        async with database.write() as session:
            await lease.guard(session)
        return Done()

    one, two = Probe(act), Probe(act)
    # Time goes on only when a renewal was seen: a machine that is busy for a while lets no lease run out.
    now = utc_now() + timedelta(minutes=1)
    lease = timedelta(seconds=0.3)
    fields = {"lease_seconds": lease.total_seconds(), "clock": lambda: now}
    async with running(database, one, **fields), running(database, two, owner="b", **fields):
        await ask(database, "x")
        await until(lambda: one.calls.total() + two.calls.total() == 1)
        for _ in range(6):  # several leases long
            now += lease * 0.7
            async with asyncio.timeout(30):
                while [row.lease_until for row in await rows(database)] != [now + lease]:
                    await asyncio.sleep(0.01)
        assert one.calls.total() + two.calls.total() == 1
        go_on.set()
        await until_empty(database)


async def test_who_lost_the_lease_writes_nothing_and_gives_nothing_back(database: Database) -> None:
    outcomes: list[str] = []

    async def act(key: str, lease: Lease) -> Outcome:
        if probe.calls[key] == 1:
            async with database.write() as session:  # meanwhile somebody else has claimed it
                row = await session.get(WorkItemRow, ("thing", key))
                assert row is not None
                row.lease_token += 1
        async with database.write() as session:
            await lease.guard(session)
            outcomes.append("written")
        return Done()

    probe = Probe(act)
    async with running(database, probe):
        await ask(database, "x")
        await until(lambda: probe.calls["x"] == 1)
        await asyncio.sleep(0.1)
    assert outcomes == []
    assert len(await rows(database)) == 1


async def test_shutdown_lets_work_end_and_gives_the_rest_back(database: Database) -> None:
    ended: list[str] = []

    async def act(key: str, _lease: Lease) -> Outcome:
        await asyncio.sleep(0.05 if key == "short" else 60)
        ended.append(key)
        return Done()

    probe = Probe(act)
    async with running(database, probe):
        await ask(database, "short", "long")
        await until(lambda: probe.calls.total() == 2)
    assert ended == ["short"]
    (left,) = await rows(database)
    assert (left.key, left.lease_owner) == ("long", None)
    probe = Probe(done)
    async with running(database, probe, owner="b"):
        await until(lambda: probe.calls["long"] == 1)


async def test_the_database_goes_away_for_a_while(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(done)
    queue = WorkQueue(database, "a")
    claim, is_away = queue.claim, True

    async def fail(*arguments: object, **options: object) -> object:
        if is_away:
            raise ConnectionError("no database")
        return await claim(*arguments, **options)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(queue, "claim", fail)
    task = asyncio.create_task(Controller(database, queue, [probe], FAST).run())
    await ask(database, "x")
    await asyncio.sleep(0.2)
    assert probe.calls.total() == 0
    is_away = False
    await until(lambda: probe.calls["x"] == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
