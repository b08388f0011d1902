"""Calls over time, from a gateway's counters that grow, stand still and begin anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from api_platform import ApiPlatform
from sqlalchemy import update

from modelyard.gateway.port import Decisions, UpstreamStatistics
from modelyard.kit.clock import utc_now
from modelyard.kit.ids import new_id
from modelyard.resources.endpoints.repository import default_stages
from modelyard.resources.endpoints.schemas import CallStatistics
from modelyard.resources.endpoints.statistics import Statistics
from modelyard.resources.endpoints.table import ApiKeyRow, CallBlockRow, EndpointModelRow, EndpointRow, StageRow
from modelyard.resources.routes.service import Routes
from modelyard.testing.gateway import FakeGateway

BEGIN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class Calls:
    """An endpoint with two stages of one model each, and the gateway that counts their calls."""

    def __init__(self, api: ApiPlatform) -> None:
        self.api = api
        self.gateway = FakeGateway()
        self.now = BEGIN
        self.statistics = self.started()
        self.endpoint_id, self.models = new_id(), [new_id(), new_id()]
        self.counts = dict.fromkeys(self.models, 0)

    def started(self) -> Statistics:
        return Statistics(self.api.database, Routes(self.gateway), clock=lambda: self.now)

    async def store(self) -> None:
        project = await self.api.services.projects.of_tenant(self.api.keys.tenant_id)
        assert project is not None
        shared = {
            "project_id": project.id,
            "tags": [],
            "spec": {"service_id": "s", "flavor_id": "f", "flavor_name": "f"},
            "status": {},
            "desired": "run",
            "state": "ACTIVE",
            "created_at": utc_now(),
            "updated_at": utc_now(),
        }
        async with self.api.database.write() as session:
            session.add(EndpointRow(id=self.endpoint_id, name="e", **shared))
            await session.flush()
            for number, model_id in enumerate(self.models):
                stage_id = new_id()
                stage = {"endpoint_id": self.endpoint_id, "is_default": number == 0}
                session.add(StageRow(id=stage_id, name=f"s{number}", **shared, **stage))
                await session.flush()
                place = {"endpoint_id": self.endpoint_id, "stage_id": stage_id, "model_id": "m"}
                session.add(EndpointModelRow(id=model_id, name="m", **shared, **place))

    async def happen(self, *counts: int, seconds: int = 10) -> None:
        """So many calls of each model, and the next reading."""
        for id, count in zip(self.models, counts, strict=True):
            self.counts[id] += count
            total = self.counts[id]
            self.gateway.statistics[id] = UpstreamStatistics(
                id, calls_count=total, success_count=total, received_bytes=10 * total, latencies=((0.01, total),)
            )
        self.now += timedelta(seconds=seconds)
        await self.statistics.collect()

    async def read(self, **query: str) -> dict:
        path = f"/endpoints/{self.endpoint_id}/statistics"
        return (await self.api.ask("GET", path, params={**self.period, **query}))["statistics"]

    @property
    def period(self) -> dict[str, str]:
        return {"from": BEGIN.isoformat(), "to": self.now.isoformat()}


@pytest.fixture
async def calls(api: ApiPlatform) -> Calls:
    calls = Calls(api)
    await calls.store()
    return calls


async def test_calls_are_counted_once_at_every_resolution(calls: Calls) -> None:
    for _ in range(12):
        await calls.happen(5, 1)
    await calls.statistics.collect()  # nothing new
    for resolution, points in (("10", 12), ("60", 3), ("3600", 1)):
        found = await calls.read(resolutionSeconds=resolution)
        assert found["endpoint"]["total"]["callsCount"] == 72
        assert len(found["endpoint"]["pointList"]) == points
        assert sorted(series["total"]["callsCount"] for series in found["stageList"]) == [12, 60]
        assert {series["endpointModelId"] for series in found["modelList"]} == set(calls.models)
    latency = found["endpoint"]["total"]["latencyP99Milliseconds"]
    assert 8 <= latency <= 10


async def test_a_gateway_and_a_platform_that_begin_anew_lose_and_repeat_nothing(calls: Calls) -> None:
    await calls.happen(5, 0)
    calls.statistics = calls.started()
    await calls.happen(4, 0)
    calls.counts = dict.fromkeys(calls.models, 0)  # the gateway was started anew
    await calls.happen(3, 0)
    found = await calls.read()
    assert found["endpoint"]["total"]["callsCount"] == 12
    assert found["endpoint"]["total"]["receivedBytes"] == 120


async def test_a_gateway_that_begins_anew_and_rests_first_counts_all_that_comes_then(calls: Calls) -> None:
    await calls.happen(5, 0)
    calls.counts = dict.fromkeys(calls.models, 0)  # the gateway was started anew
    calls.gateway.statistics.clear()  # and tells nothing of what it has not counted yet
    calls.now += timedelta(seconds=10)
    await calls.statistics.collect()
    await calls.happen(7, 0)  # more than before, so nothing seems to have fallen
    calls.statistics = calls.started()  # a platform that comes back finds out as well
    calls.gateway.statistics.clear()
    await calls.statistics.collect()
    calls.counts = dict.fromkeys(calls.models, 0)
    await calls.happen(9, 0)
    assert (await calls.read())["endpoint"]["total"]["callsCount"] == 21


async def test_the_end_of_a_mirror_repeats_nothing(calls: Calls) -> None:
    copies = f"{calls.models[1]}_mirrored"
    calls.gateway.statistics[copies] = UpstreamStatistics(copies, calls_count=40)
    await calls.happen(0, 100)
    del calls.gateway.statistics[copies]
    await calls.happen(0, 2)
    calls.gateway.statistics[copies] = UpstreamStatistics(copies, calls_count=50)
    await calls.happen(0, 1)
    total = (await calls.read())["endpoint"]["total"]
    assert (total["callsCount"], total["mirroredCount"]) == (193, 90)


async def test_old_calls_go_and_coarse_ones_stay(calls: Calls) -> None:
    await calls.happen(5, 0)
    calls.now += timedelta(days=4)
    await calls.statistics.forget_old()
    fine = await calls.read(resolutionSeconds="10", to=(BEGIN + timedelta(hours=1)).isoformat())
    coarse = await calls.read(resolutionSeconds="3600")
    assert (fine["endpoint"]["total"]["callsCount"], coarse["endpoint"]["total"]["callsCount"]) == (0, 5)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"resolutionSeconds": "7"}, "resolutionSeconds: must be one of 10, 60, 3600"),
        ({"resolutionSeconds": "10", "from": "2026-01-01T00:00:00Z"}, "from: asks for more than 10,000 spans"),
        ({"from": "2026-03-02T00:00:00Z", "to": "2026-03-01T00:00:00Z"}, "from: must be before 'to'"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-03-01T00:00:00"}, "from"),
    ],
)
async def test_a_question_that_makes_no_sense_is_told(calls: Calls, query: dict[str, str], sentence: str) -> None:
    calls.now += timedelta(days=1)
    asked = {"from": BEGIN.isoformat(), "to": calls.now.isoformat(), **query}
    answer = await calls.api.call("GET", f"/endpoints/{calls.endpoint_id}/statistics", params=asked)
    assert answer.status_code == 400
    assert sentence in answer.json()["header"]["resultMessage"]


async def test_another_projects_endpoint_is_not_there(calls: Calls) -> None:
    other = await calls.api.neighbour()
    answer = await other.call("GET", f"/endpoints/{calls.endpoint_id}/statistics")
    assert answer.status_code == 404


async def test_refusals_keys_and_copies_are_told_apart_from_calls(calls: Calls) -> None:
    first, second = calls.models
    stages = {series["endpointStageId"] for series in (await one_call_each(calls))["stageList"]}
    async with calls.api.database.read() as session:
        default = next(iter(await default_stages(session, [calls.endpoint_id]))).id
    async with calls.api.database.write() as session:
        for id, name in (("mkya", "a"), ("mkyb", "b")):
            now = utc_now()
            key = ApiKeyRow(id=id, endpoint_id=calls.endpoint_id, name=name, digest="d", created_at=now)
            key.calls_count = key.gateway_count = 0
            session.add(key)
    mirror = f"{second}_mirrored"
    calls.gateway.statistics[mirror] = UpstreamStatistics(mirror, calls_count=7, success_count=7)
    decide = calls.gateway.decisions
    decide[calls.endpoint_id] = Decisions(calls.endpoint_id, key_count=2, rate_count=1, calls_by_key={"mkya": 4})
    decide[default] = Decisions(default, key_count=3, size_count=1, calls_by_key={"mkya": 1, "unknown": 9})
    await calls.happen(0, 0)
    await calls.statistics.collect()
    found = await calls.read()
    assert {series["endpointStageId"] for series in found["stageList"]} == stages
    assert {series["endpointModelId"] for series in found["modelList"]} == {first, second}
    total = found["endpoint"]["total"]
    assert (total["callsCount"], total["mirroredCount"]) == (2 + 7, 7)
    [own] = [series["total"] for series in found["stageList"] if series["endpointStageId"] == default]
    refused = {name: own[f"{name}RefusedCount"] for name in ("key", "rate", "size", "address")}
    assert refused == {"key": 5, "rate": 1, "size": 1, "address": 0}

    decide.clear()  # the gateway was started anew
    decide[default] = Decisions(default, key_count=1, calls_by_key={"mkya": 2})
    await calls.happen(0, 0)
    assert (await calls.read())["endpoint"]["total"]["keyRefusedCount"] == 6
    listed = (await calls.api.ask("GET", f"/endpoints/{calls.endpoint_id}/api-keys"))["apiKeyList"]
    assert [(key["name"], key["callsCount"], key.get("lastUsedDatetime") is None) for key in listed] == [
        ("a", 7, False),
        ("b", 0, True),
    ]


async def one_call_each(calls: Calls) -> dict:
    await calls.happen(1, 1)
    return await calls.read()


async def test_points_are_told_of_the_series_that_are_asked_for_and_totals_of_all(calls: Calls) -> None:
    await calls.happen(5, 1)
    await calls.happen(0, 3)
    everything = await calls.read(resolutionSeconds="10")
    CallStatistics.model_validate(everything)
    first = calls.models[0]
    for asked, points in (
        ("ENDPOINT", (2, [0, 0], [0, 0])),
        ("STAGE", (0, [1, 2], [0, 0])),
        (first, (0, [0, 0], [0, 1])),
    ):
        found = await calls.read(resolutionSeconds="10", seriesList=asked)
        assert len(found["endpoint"]["pointList"]) == points[0]
        assert sorted(len(series["pointList"]) for series in found["stageList"]) == points[1]
        assert sorted(len(series["pointList"]) for series in found["modelList"]) == points[2]
        for name in ("stageList", "modelList"):
            assert [series["total"] for series in found[name]] == [series["total"] for series in everything[name]]
    path = f"/endpoints/{calls.endpoint_id}/statistics"
    answer = await calls.api.call("GET", path, params={"seriesList": "STAGES"})
    assert answer.status_code == 400
    assert "seriesList: 'STAGES' is neither ENDPOINT, STAGE, MODEL nor" in answer.json()["header"]["resultMessage"]


async def test_more_points_than_can_be_told_at_once_are_refused(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.resources.endpoints.call_answer.MAX_ALL_POINTS", 3)
    await calls.happen(5, 1)  # five points: the endpoint's, two stages', two models'
    answer = await calls.api.call("GET", f"/endpoints/{calls.endpoint_id}/statistics", params=calls.period)
    assert answer.status_code == 400
    assert "name the series to be drawn" in answer.json()["header"]["resultMessage"]
    assert (await calls.read(seriesList="ENDPOINT"))["endpoint"]["total"]["callsCount"] == 6


async def test_what_is_over_is_told_again_without_being_read(calls: Calls) -> None:
    for _ in range(70):  # seconds 10 to 700: a block of ten minutes, and a part of the next
        await calls.happen(5, 1)

    async def told() -> list[tuple[int, list[int], list[int]]]:
        """Of the endpoint as a whole, of two periods: all calls, those of each point, those of each model."""
        found = [
            await calls.read(resolutionSeconds="10", seriesList="ENDPOINT"),
            await calls.read(resolutionSeconds="10", seriesList="ENDPOINT", **{"from": _at(300), "to": _at(640)}),
        ]
        return [
            (
                one["endpoint"]["total"]["callsCount"],
                [point["callsCount"] for point in one["endpoint"]["pointList"]],
                sorted(model["total"]["callsCount"] for model in one["modelList"]),
            )
            for one in found
        ]

    wanted = [(70 * 6, [6] * 70, [70, 350]), (35 * 6, [6] * 35, [35, 175])]
    assert await told() == wanted
    async with calls.api.database.write() as session:  # who looks would find nothing in the block that is over
        await session.execute(update(CallBlockRow).values(content=b"").where(CallBlockRow.starts_at == _second(0)))
    assert [all_ for all_, _, _ in await told()] == [70 * 6, 5 * 6], "a part of a block is read"
    await calls.happen(1, 1)
    [(all_, points, _), _] = await told()
    assert (all_, points[-2:]) == (70 * 6 + 2, [6, 2]), "what goes on is read"
    assert (await calls.read(resolutionSeconds="10"))["endpoint"]["total"]["callsCount"] == 11 * 6 + 2


def _second(at: int) -> int:
    return int(BEGIN.timestamp()) + at


def _at(second: int) -> str:
    return datetime.fromtimestamp(_second(second), UTC).isoformat()


async def test_a_moment_in_another_zone_needs_no_escapes(calls: Calls) -> None:
    await calls.happen(5, 0)
    path = f"/endpoints/{calls.endpoint_id}/statistics?from=2026-03-01T21:00:00+09:00&to=2026-03-01T22:00:00+09:00"
    assert (await calls.api.ask("GET", path))["statistics"]["endpoint"]["total"]["callsCount"] == 5
