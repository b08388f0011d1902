"""Notebooks that are kept ready: who gets them, who never does, and when they go; over compute and gateway in memory, on both databases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from notebook_rig import Rig, rig_on

from modelyard.compute.port import Capacity
from modelyard.kit.errors import RetryLater
from modelyard.resources.notebooks.model import SpareSettings
from modelyard.resources.notebooks.pool import Change, ShapeKey, compare
from modelyard.resources.notebooks.schemas import NotebookChange

ONE = SpareSettings(count=1, hours=2.0)
OTHER_SIZE = {"dataStorageSize": 30}


@pytest.fixture
async def rig(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    async with rig_on(database_url, tmp_path, monkeypatch, ONE) as made:
        yield made


@pytest.fixture
async def small_rig(sqlite_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """With room for two notebooks; on SQLite, for what the database has no part in."""
    room = Capacity(cpus=4.0, memory_bytes=4 * 2**30)
    async with rig_on(sqlite_database_url, tmp_path, monkeypatch, ONE, room) as made:
        yield made


async def pass_time(rig: Rig, seconds: int) -> None:
    for _ in range(seconds):
        await rig.settle()
        rig.clock.advance(1.0)
    await rig.settle()


async def stocked(rig: Rig) -> tuple[str, str]:
    """A notebook of its user's, and the instance of one that is kept ready."""
    notebook = await rig.make()
    await rig.until(notebook, "ACTIVE_HEALTHY")
    await pass_time(rig, 6)
    (spare,) = spares(rig)
    return notebook, spare


def spares(rig: Rig) -> list[str]:
    return [each for each in rig.compute.alive_ids if rig.compute.instance(each).role == "spare-notebook"]


def account_of(rig: Rig, instance: str) -> str | None:
    return rig.compute.instance(instance).account


async def test_who_creates_one_like_it_gets_the_one_that_is_ready(rig: Rig) -> None:
    first, spare = await stocked(rig)
    assert await rig.count() == 1, "no project sees it"
    started = rig.compute.starts.total()

    second = await rig.make(notebookName="second", idleStopMinutes=5)
    assert second == account_of(rig, spare), "storage and account are the notebook's own from the beginning"
    await rig.until(second, "ACTIVE_HEALTHY")
    assert rig.compute.starts.total() == started, "nothing had to be started"
    assert (rig.compute.instance(spare).role, rig.compute.instance(spare).title) == ("notebook", "notebook 'second'")
    assert json.loads(rig.compute.told[spare])["idle_minutes"] == 5
    assert spare in {each for each in rig.compute.alive_ids if account_of(rig, each) == second}
    shown = await rig.get(second)
    assert shown.started_datetime is not None
    assert shown.started_datetime >= shown.created_datetime, "what was before is nobody's"

    third = await rig.make(notebookName="third")
    await rig.until(third, "ACTIVE_HEALTHY")
    assert third not in {first, second}
    await pass_time(rig, 6)
    (again,) = spares(rig)
    assert account_of(rig, again) not in {first, second, third}, "each is given once"

    await rig.notebooks.stop(rig.caller, second)
    await rig.until(second, "STOPPED")
    await rig.notebooks.start(rig.caller, second)
    await rig.until(second, "ACTIVE_HEALTHY")
    (fresh,) = [each for each in rig.compute.alive_ids if account_of(rig, each) == second]
    assert [volume.id for volume in rig.compute.instance(fresh).volumes] == [second], "with the same data storage"

    for notebook in (first, second, third):
        await rig.notebooks.delete(rig.caller, notebook)
    await pass_time(rig, 8)
    assert rig.compute.alive_ids == [again]
    rig.clock.advance(2 * 3600.0)
    await pass_time(rig, 5)
    assert (rig.compute.alive_ids, rig.compute.volumes) == ([], set()), "nobody has created one for long"


async def test_two_at_once_never_get_the_same(rig: Rig) -> None:
    _, spare = await stocked(rig)
    made = await asyncio.gather(*(rig.make(notebookName=f"n{number}") for number in range(5)))
    assert len(set(made)) == 5
    assert sum(each == account_of(rig, spare) for each in made) == 1
    for notebook in made:
        await rig.until(notebook, "ACTIVE_HEALTHY")


@pytest.mark.parametrize(
    "other", [OTHER_SIZE, {"flavorId": "m2.c2m4"}, {"imageId": "Ubuntu 22.04 CPU PyTorch Notebook"}]
)
async def test_another_kind_starts_as_ever(small_rig: Rig, other: dict[str, object]) -> None:
    rig = small_rig
    _, spare = await stocked(rig)
    made = await rig.make(**other)
    assert made != account_of(rig, spare)


async def test_one_that_is_not_ready_is_not_given(small_rig: Rig) -> None:
    rig = small_rig
    _, spare = await stocked(rig)
    rig.answers = lambda: False
    await pass_time(rig, 8)
    assert spares(rig) == [spare]
    made = await rig.make()
    assert made != account_of(rig, spare)


async def test_it_makes_way_for_who_needs_its_room(small_rig: Rig) -> None:
    rig = small_rig
    _, spare = await stocked(rig)
    other = await rig.make(**OTHER_SIZE)
    await rig.until(other, "ACTIVE_HEALTHY")
    assert spare not in rig.compute.alive_ids
    await pass_time(rig, 20)
    assert spares(rig) == [], "and there is no room for another"
    assert len(rig.compute.volumes) == 2
    waiting = await rig.make(**OTHER_SIZE)
    await pass_time(rig, 5)
    assert (await rig.get(waiting)).status_reason == "WAITING_FOR_ROOM"
    await rig.notebooks.delete(rig.caller, other)
    await rig.until(waiting, "ACTIVE_HEALTHY")


async def test_who_was_not_told_at_once_is_told_later(rig: Rig) -> None:
    _, spare = await stocked(rig)
    failures = ["the server was killed", "the disk is full"]

    async def fail(verb: str, _instance: str) -> None:
        if verb == "tell" and failures:
            raise RetryLater(failures.pop())

    rig.compute.before = fail
    notebook = await rig.make(notebookName="late", idleStopMinutes=7)
    await rig.until(notebook, "ACTIVE_HEALTHY")
    await pass_time(rig, 5)
    assert failures == []
    assert json.loads(rig.compute.told[spare])["idle_minutes"] == 7
    await rig.notebooks.delete(rig.caller, notebook)
    await pass_time(rig, 10)
    assert spare not in rig.compute.alive_ids


async def test_a_new_idle_stop_holds_at_once(small_rig: Rig) -> None:
    rig = small_rig
    notebook = await rig.make()
    await rig.until(notebook, "ACTIVE_HEALTHY")
    (running,) = rig.compute.alive_ids
    await rig.notebooks.change(rig.caller, notebook, NotebookChange.model_validate({"idleStopMinutes": 12}))
    await rig.settle()
    assert json.loads(rig.compute.told[running])["idle_minutes"] == 12


async def test_what_would_be_started_otherwise_today_is_made_anew(rig: Rig) -> None:
    notebook, spare = await stocked(rig)
    rig.reconcilers["notebook-spares"] = rig.spare_reconciler(ONE, region="kr9")
    rig.clock.advance(60.0)  # the stock is looked at once a minute
    await pass_time(rig, 8)
    (fresh,) = spares(rig)
    assert fresh != spare
    rig.reconcilers["notebook-spares"] = rig.spare_reconciler(SpareSettings(count=0))
    rig.clock.advance(60.0)  # the stock is looked at once a minute
    await pass_time(rig, 8)
    assert spares(rig) == []
    assert rig.compute.volumes == {notebook}


async def test_one_that_ends_by_itself_is_replaced(small_rig: Rig) -> None:
    rig = small_rig
    await stocked(rig)
    rig.compute.lose_everything()
    rig.clock.advance(60.0)  # the stock is looked at once a minute
    await pass_time(rig, 8)
    assert len(spares(rig)) == 1


async def test_what_does_not_start_is_not_tried_over_and_over(small_rig: Rig) -> None:
    rig = small_rig
    notebook = await rig.make()
    await rig.until(notebook, "ACTIVE_HEALTHY")
    broken: list[str] = []

    async def crash(verb: str, instance: str) -> None:
        if verb == "launch":
            broken.append(instance)
            rig.compute.finish(instance, 1)

    rig.compute.after = crash
    await pass_time(rig, 20)
    assert len(broken) == 1
    rig.compute.after = rig.compute.before
    rig.clock.advance(300.0)
    await pass_time(rig, 8)
    (spare,) = spares(rig)
    assert spare not in broken
    assert rig.compute.volumes == {notebook, account_of(rig, spare)}


def test_what_lacks_and_what_is_too_much() -> None:
    small, large, theirs = ShapeKey("p", "small"), ShapeKey("p", "large"), ShapeKey("q", "small")
    assert compare([], 3, {"a": small}) == Change((), ("a",))
    assert compare([small], 2, {"a": small}) == Change((small,), ())
    assert compare([large, small, theirs], 1, {"a": small, "b": large}) == Change((), ("a",))
    assert compare([theirs, small], 3, {}) == Change((theirs, theirs, small), ())
    assert compare([small], 0, {"a": small}) == Change((), ("a",))
