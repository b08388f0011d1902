"""The list of trainings: filters, orders, pages, search; and that each of them reads an index and not the table."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_platform import ApiPlatform, api_platform, faults_of
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from modelyard.db import listing
from modelyard.kit.ids import new_id
from modelyard.kit.paging import Mark, PageRequest, Sort
from modelyard.resources.trainings import repository
from modelyard.resources.trainings.model import TrainingSpec, TrainingStatus
from modelyard.resources.trainings.repository import TrainingFilter
from modelyard.resources.trainings.schemas import TRAINING_SORTS
from modelyard.resources.trainings.table import TermRow, TrainingRow
from modelyard.resources.trainings.terms import terms_of, words

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
COUNT = 600
EXPERIMENTS = [new_id() for _ in range(3)]


def row(project_id: str, number: int) -> TrainingRow:
    """A training of a list in which every filter has many and few."""
    created_at = BEGIN + timedelta(minutes=number)
    spec = TrainingSpec(
        image_id=f"image-{number % 2}",
        image_name="image",
        framework="PYTHON",
        framework_version="3.11",
        flavor_id=f"flavor-{0 if number % 100 else 1}",
        flavor_name="flavor",
        source_uri="obs://h/v1/AUTH_t/c/source",
        entry_point="train.py",
        model_uri="obs://h/v1/AUTH_t/c/output",
        timeout_minutes=10,
    )
    is_rare = number % 200 == 7
    return TrainingRow(
        id=new_id(created_at),
        project_id=project_id,
        name=f"run {(number * 37) % COUNT:04d}" + (" Zebra" if is_rare else ""),
        description="about learning" if number % 3 else "about 학습",
        tags=[{"tagKey": "team", "tagValue": "a" if number % 2 else "b"}, *([{"tagKey": "rare", "tagValue": ""}] if is_rare else [])],
        spec=spec.model_dump(mode="json"),
        status=TrainingStatus(last_lines=("a line",)).model_dump(mode="json"),
        desired="delete" if number % 300 == 299 else "run",
        state="RUNNING" if is_rare else "FAIL_TRAIN" if number % 4 == 0 else "COMPLETE",
        created_by="test",
        created_at=created_at,
        updated_at=created_at + timedelta(days=(number * 7) % 10),
        experiment_id=EXPERIMENTS[number % 3] if number % 5 else None,
        image_id=spec.image_id,
        flavor_id=spec.flavor_id,
    )  # fmt: skip


@pytest.fixture
async def full(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiPlatform]:
    """A platform with a list of trainings, and some of a neighbour. What is few and many is in proportion to a list of 100,000."""
    monkeypatch.setattr(repository, "FEW", 30)
    monkeypatch.setattr(listing, "_WALKED", 100)
    async with api_platform(database_url, tmp_path / "home") as api:
        for keys, count in ((api.keys, COUNT), ((await api.neighbour()).keys, 20)):
            project = await api.services.projects.of_tenant(keys.tenant_id)
            assert project is not None
            made = [row(project.id, number) for number in range(count)]
            async with api.database.write() as session:
                await session.run_sync(add_all, made)
        async with api.database.write() as session:
            await session.execute(text("ANALYZE"))
        yield api


def add_all(session: Session, made: Sequence[TrainingRow]) -> None:
    session.add_all(made)
    session.flush()
    session.add_all(
        TermRow(project_id=item.project_id, term=term, training_id=item.id)
        for item in made
        for term in terms_of(item.name, item.description, [(tag["tagKey"], tag["tagValue"]) for tag in item.tags])
    )


async def names(api: ApiPlatform, **params: Any) -> list[str]:
    return [item["trainingName"] for item in (await api.ask("GET", "/trainings", params=params))["trainingList"]]


@pytest.mark.slow
async def test_every_filter_gives_what_it_says(full: ApiPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "FEW", 20)  # as if this list were a hundred times as long
    monkeypatch.setattr(listing, "_WALKED", 40)
    everything = (await full.ask("GET", "/trainings"))["trainingList"]
    assert len(everything) == COUNT - COUNT // 300
    assert [item["createdDatetime"] for item in everything] == sorted(
        (item["createdDatetime"] for item in everything), reverse=True
    )
    third = everything[2]
    failed = {"trainingStatusCodeList": "FAIL_TRAIN"}
    noon, later = "2026-01-01T12:00:00+00:00", "2026-01-01T13:00:00+00:00"
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"trainingIdList": third["trainingId"]}, lambda item: item["trainingId"] == third["trainingId"]),
        ({"trainingNameList": ["run 0001", "run 0002"]}, lambda item: item["trainingName"] in ("run 0001", "run 0002")),
        ({"trainingStatusCodeList": "RUNNING"}, lambda item: item["trainingStatusCode"] == "RUNNING"),
        ({"trainingStatusCodeList": "RUNNING,FAIL_TRAIN"}, lambda item: item["trainingStatusCode"] != "COMPLETE"),
        ({"experimentId": EXPERIMENTS[1]}, lambda item: minute(item) % 3 == 1 and minute(item) % 5),
        ({"experimentIdList": EXPERIMENTS[:2]}, lambda item: minute(item) % 3 < 2 and minute(item) % 5),
        ({"imageIdList": "image-1"}, lambda item: minute(item) % 2),
        ({"flavorIdList": "flavor-1"}, lambda item: minute(item) % 100 == 0),
        ({"tag": "team=a"}, lambda item: minute(item) % 2),
        ({"tag": ["team", "rare"]}, lambda item: minute(item) % 200 == 7),
        ({"tag": "rare="}, lambda item: minute(item) % 200 == 7),
        ({"tag": "tea"}, lambda item: False),
        ({"nameContains": "zEB"}, lambda item: "Zebra" in item["trainingName"]),
        ({"nameContains": "00%"}, lambda item: False),
        ({"nameContains": "ｒＵＮ"}, lambda item: True),
        ({"search": "zeb run"}, lambda item: "Zebra" in item["trainingName"]),
        ({"search": "학"}, lambda item: minute(item) % 3 == 0),
        ({"search": "LEARN about"}, lambda item: minute(item) % 3),
        ({"search": "ebra"}, lambda item: False),
        ({"tag": ["team=a", "team=b"]}, lambda item: False),
        ({"imageIdList": "image-0", "tag": "team=a"}, lambda item: False),
        ({"search": third["trainingId"]}, lambda item: item["trainingId"] == third["trainingId"]),
        ({"createdFrom": noon, "createdTo": later}, lambda item: 720 <= minute(item) < 780),
        ({"createdFrom": "2026-01-01T21:00:00+09:00", "createdTo": "2026-01-01T13:00:00Z"}, lambda item: 720 <= minute(item) < 780),
        (failed | {"imageIdList": "image-0", "search": "learning", "tag": "team=b"}, lambda item: has_failed(item) and minute(item) % 3),
        (failed | {"imageIdList": "image-1"}, lambda item: has_failed(item) and minute(item) % 2),
    ]  # fmt: skip
    for params, is_in in cases:
        wanted = [item["trainingId"] for item in everything if is_in(item)]
        for more in ({}, {"limit": 1000}, {"limit": 7}):
            content = await full.ask("GET", "/trainings", params=params | more)
            found = [item["trainingId"] for item in content["trainingList"]]
            assert found == wanted[: more.get("limit")], params
            assert content["paging"]["totalCount"] == len(wanted), params
            assert content["paging"]["isTotalCountExact"] is True
    parts = [await full.ask("GET", "/trainings", params={"limit": 100, "page": page}) for page in range(1, 8)]
    assert everything == [
        item for part in parts for item in part["trainingList"]
    ]  # the whole list is told as its pages are


def has_failed(item: dict[str, Any]) -> bool:
    return item["trainingStatusCode"] == "FAIL_TRAIN"


def minute(item: dict[str, Any]) -> int:
    return (datetime.fromisoformat(item["createdDatetime"]) - BEGIN) // timedelta(minutes=1)


@pytest.mark.slow
async def test_cursors_walk_through_every_order(full: ApiPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "FEW", 20)
    monkeypatch.setattr(listing, "_WALKED", 40)
    for sort, sign in itertools.product(TRAINING_SORTS, ("", "-")):
        params: dict[str, Any] = {"sort": sign + sort, "imageIdList": "image-1", "search": "learn", "tag": "team=a"}
        whole = (await full.ask("GET", "/trainings", params=params))["trainingList"]
        keys = [(item[sort], item["trainingId"]) for item in whole]
        assert keys == sorted(keys, reverse=bool(sign)), params
        found: list[str] = []
        more: dict[str, Any] = {}
        while more is not None:
            content = await full.ask("GET", "/trainings", params=params | {"limit": 70} | more)
            found += [item["trainingId"] for item in content["trainingList"]]
            cursor = content["paging"].get("nextCursor")
            more = None if cursor is None else {"cursor": cursor}
        assert found == [item["trainingId"] for item in whole], params
        paged = [await full.ask("GET", "/trainings", params=params | {"limit": 70, "page": page}) for page in (1, 2, 5)]
        ids = [item["trainingId"] for page in paged for item in page["trainingList"]]
        assert ids == found[:140] + found[280:350]
        assert len(found) > 150


@pytest.mark.slow
async def test_rows_that_come_and_go_disturb_no_cursor(full: ApiPlatform) -> None:
    first = await full.ask("GET", "/trainings", params={"limit": 50})
    everything = [item["trainingId"] for item in (await full.ask("GET", "/trainings"))["trainingList"]]
    project = await full.services.projects.of_tenant(full.keys.tenant_id)
    assert project is not None
    async with full.database.write() as session:
        session.add(row(project.id, COUNT + 1))
        gone = await session.get_one(TrainingRow, everything[49])  # the very row that the cursor names
        gone.desired = "delete"
    rest = await full.ask("GET", "/trainings", params={"limit": 1000, "cursor": first["paging"]["nextCursor"]})
    assert [item["trainingId"] for item in rest["trainingList"]] == everything[50:1050]


@pytest.mark.slow
async def test_a_list_shows_why_and_keeps_the_lines_for_the_detail(full: ApiPlatform) -> None:
    [item] = (await full.ask("GET", "/trainings", params={"limit": 1}))["trainingList"]
    assert item["lastLogLines"] == []
    shown = (await full.ask("GET", f"/trainings/{item['trainingId']}"))["training"]
    assert shown["lastLogLines"] == ["a line"]


WRONG: list[tuple[dict[str, str], str]] = [
    ({"sort": "size"}, "sort"),
    ({"sort": "--trainingName"}, "sort"),
    ({"limit": "0"}, "limit"),
    ({"limit": "1001"}, "limit"),
    ({"page": "0"}, "page"),
    ({"page": "10000001"}, "page"),
    ({"cursor": "nonsense"}, "cursor"),
    ({"cursor": "x" * 2001}, "cursor"),
    ({"cursor": "a", "page": "2"}, "cursor"),
    ({"cursor": Mark(Sort("trainingName", False), "a", "b").to_cursor()}, "cursor"),
    ({"cursor": Mark(Sort("updatedDatetime"), "a", "b").to_cursor(), "sort": "-updatedDatetime"}, "cursor"),
    ({"cursor": Mark(Sort(), "", "\0").to_cursor()}, "cursor"),
    ({"trainingStatusCodeList": "DANCING"}, "trainingStatusCodeList"),
    ({"trainingNameList": "a\0b"}, "trainingNameList"),
    ({"experimentId": "a\0b"}, "experimentId"),
    ({"tag": "a\0b"}, "tag[0]"),
    ({"nameContains": "a\0b"}, "nameContains"),
    ({"search": "!!"}, "search"),
    ({"search": "x" * 201}, "search"),
    ({"createdFrom": "yesterday"}, "createdFrom"),
    ({"createdFrom": "2026-01-01T00:00:00"}, "createdFrom"),
]


async def test_a_wrong_query_is_told(api: ApiPlatform) -> None:
    for params, field in WRONG:
        assert field in faults_of(await api.call("GET", "/trainings", params=params)), params


async def test_an_id_with_a_nul_is_no_failure_of_the_platform(api: ApiPlatform) -> None:
    assert (await api.call("GET", "/trainings/a%00b")).status_code in (400, 404)


def test_words_are_found_whatever_their_form() -> None:
    assert words("Ｆｏｏ-bar_BAR straße 학습 2.5") == ["foo", "bar", "strasse", "학습", "2", "5"]
    assert terms_of("n", None, [("k", "v=w")]) == {"n", "k", "v", "w", "=k", "=k=v=w"}
    assert len(terms_of("n", " ".join(f"w{number}" for number in range(200)), [])) <= 60


FILTERS = {
    "all": TrainingFilter(),
    "state": TrainingFilter(states=["COMPLETE"]),
    "states": TrainingFilter(states=["COMPLETE", "FAIL_TRAIN"]),
    "experiment": TrainingFilter(experiment_ids=[EXPERIMENTS[1]]),
    "image": TrainingFilter(image_ids=["image-1"]),
    "flavor": TrainingFilter(flavor_ids=["flavor-0"]),
    "rare": TrainingFilter(states=["RUNNING"], flavor_ids=["flavor-0"], words=["zebra"]),
    "tag": TrainingFilter(tags=[("team", "a")]),
    "created": TrainingFilter(created_from=BEGIN + timedelta(hours=1), created_to=BEGIN + timedelta(hours=5)),
    "part": TrainingFilter(name_part="run"),
    "words": TrainingFilter(words=["learn"]),
    "never together": TrainingFilter(image_ids=["image-0"], tags=[("team", "a")]),
    "many": TrainingFilter(image_ids=["image-0"], states=["FAIL_TRAIN"], words=["learn"], name_part="5"),
}


@pytest.mark.slow
async def test_no_list_reads_the_whole_table(full: ApiPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the planner does with the very statements of the list: all rows are reached by indexes."""
    monkeypatch.setattr(listing, "_COUNTED", 300)
    project = await full.services.projects.of_tenant(full.keys.tenant_id)
    assert project is not None
    async with full.database.read() as session:
        if not full.database.is_sqlite:  # of a table as small as this one reading all of it costs less
            await session.execute(text("SET LOCAL enable_seqscan = off"))
            await session.execute(text("SET LOCAL enable_bitmapscan = off"))
        for sort, down, (name, wanted) in itertools.product(TRAINING_SORTS, (True, False), FILTERS.items()):
            request = PageRequest(limit=20, sort=Sort(sort, down))
            said = await statements(session, repository.page(session, project.id, wanted, request))
            assert len(said) >= 3
            for statement, parameters in said:
                plan = await explained(session, statement, parameters, is_sqlite=full.database.is_sqlite)
                assert "Seq Scan" not in plan, (sort, name, plan)
                assert not re.search(r"SCAN trainings(?! USING (COVERING )?INDEX)", plan), (sort, name, plan)


async def statements(session: AsyncSession, work: Awaitable[object]) -> list[tuple[str, Any]]:
    """What is said to the database meanwhile."""
    connection = await session.connection()
    said: list[tuple[str, Any]] = []

    def _hear(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        said.append((statement, parameters))

    event.listen(connection.sync_connection, "before_cursor_execute", _hear)
    try:
        await work
    finally:
        event.remove(connection.sync_connection, "before_cursor_execute", _hear)
    return said


async def explained(session: AsyncSession, statement: str, parameters: Any, *, is_sqlite: bool) -> str:
    connection = await session.connection()
    words = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
    lines = (await connection.exec_driver_sql(f"{words} {statement}", parameters)).all()
    return "\n".join(line[3 if is_sqlite else 0] for line in lines)
