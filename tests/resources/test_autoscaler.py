"""Stages that scale: what is asked for on the wire, by whom, and decisions that are written down with their reasons."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from api_platform import ApiPlatform, faults_of

from modelyard.activator.board import Seat
from modelyard.gateway.port import UpstreamStatistics
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import RetryLater
from modelyard.kit.ids import new_id
from modelyard.resources.endpoints.autoscaler import Autoscaler
from modelyard.resources.endpoints.model import Metric
from modelyard.resources.endpoints.preflight import first_count
from modelyard.resources.endpoints.schemas import AutoScaler, EndpointCreate, auto_scaler_of
from modelyard.resources.endpoints.table import EndpointModelRow, EndpointRow, StageRow
from modelyard.resources.routes.service import Routes
from modelyard.testing.gateway import FakeGateway

BODY = {
    "endpointName": "e",
    "flavorId": "f",
    "nodeCount": 1,
    "endpointModelResourceList": [{"modelId": "m"}],
    "useLog": False,
}
# What the official client sends with every endpoint, and with one that is to scale.
CLIENT = {
    "caEnable": False,
    "caMinNodeCount": 1,
    "caMaxNodeCount": 10,
    "caScaleDownEnable": True,
    "caScaleDownUtilThresh": 50,
    "caScaleDownUnneededTime": 10,
    "caScaleDownDelayAfterAdd": 10,
}


class Room:
    """A waiting room that nobody waits in unless a test says so."""

    def __init__(self) -> None:
        self.seats: Collection[Seat] = ()
        self.open = True

    def socket_of(self, id: str) -> str:
        return f"/wait/{id}.sock"

    def publish(self, seats: Collection[Seat]) -> None:
        self.seats = seats

    def take_wakes(self) -> set[str]:
        return set()

    def is_open(self, id: str) -> bool:
        return self.open


class Stage:
    """A stage with one model that has answered requests, and the gateway that counts them."""

    def __init__(self, api: ApiPlatform) -> None:
        self.api = api
        self.gateway = FakeGateway()
        self.room = Room()
        self.now = 1000.0
        self.calls = 0
        self.endpoint_id, self.id, self.model_id = new_id(), new_id(), new_id()
        self.scaler = self.started()

    def started(self) -> Autoscaler:
        database, routes = self.api.database, Routes(self.gateway)
        return Autoscaler(database, self.api.services.workloads, routes, self.room, clock=lambda: self.now)

    async def store(self) -> None:
        project = await self.api.services.projects.of_tenant(self.api.keys.tenant_id)
        assert project is not None
        shared: dict[str, Any] = {
            "project_id": project.id,
            "tags": [],
            "desired": "run",
            "state": "ACTIVE",
            "created_at": utc_now(),
            "updated_at": utc_now(),
        }
        model = {"model_id": "m", "model_name": "m", "format_code": "ONNX", "artifact_uri": "obs://x", "image_id": "i"}
        async with self.api.database.write() as session:
            session.add(EndpointRow(id=self.endpoint_id, name="e", spec={"service_id": "s"}, status={}, **shared))
            await session.flush()
            spec = {"flavor_id": "f", "flavor_name": "f", "node_count": 1}
            place = {"endpoint_id": self.endpoint_id}
            status = {"was_deployed": True}
            session.add(
                StageRow(id=self.id, name="default", spec=spec, status=status, is_default=True, **place, **shared)
            )
            await session.flush()
            place["stage_id"] = self.id
            session.add(
                EndpointModelRow(id=self.model_id, name="m", spec=model, status={}, model_id="m", **place, **shared)
            )

    async def put(self, **fields: Any) -> dict[str, Any]:
        body = {"enable": True, "metricCode": "REQUESTS_PER_SECOND", "metricTarget": 10, **fields}
        return (await self.api.ask("PUT", f"/endpoint-stages/{self.id}/auto-scaler", body))["endpointStage"]

    async def happen(self, *, per_second: float, seconds: int, wakes: bool = False) -> int:
        """A load for so long; how many servers there are to be then."""
        for _ in range(seconds // 2):
            self.now += 2
            self.calls += round(2 * per_second)
            self.gateway.statistics[self.model_id] = UpstreamStatistics(self.model_id, calls_count=self.calls)
            await self.scaler.look({self.model_id} if wakes else set())
        return int((await self.shown())["nodeCount"])

    async def shown(self) -> dict[str, Any]:
        return (await self.api.ask("GET", f"/endpoint-stages/{self.id}"))["endpointStage"]

    async def reasons(self) -> list[str]:
        events = (await self.api.ask("GET", f"/endpoint-stages/{self.id}/events"))["eventList"]
        return [event["statusReason"] for event in events]


@pytest.fixture
async def stage(api: ApiPlatform) -> Stage:
    stage = Stage(api)
    await stage.store()
    return stage


def test_the_official_clients_fields_are_understood() -> None:
    assert EndpointCreate.model_validate(BODY | CLIENT).auto_scaler is None
    asked = EndpointCreate.model_validate(BODY | CLIENT | {"caEnable": True, "caMinNodeCount": 2}).auto_scaler
    assert asked == AutoScaler(enable=True, min_node_count=2, max_node_count=10)
    assert auto_scaler_of(asked.scaling()) == asked.model_copy(update={"metric_target": 8.0})
    model = {"modelId": "m", "podAutoScaleEnable": True, "scaleMetricCode": "CPU_UTILIZATION", "scaleMetricTarget": 60}
    alone = EndpointCreate.model_validate(BODY | CLIENT | {"nodeCount": 2, "endpointModelResourceList": [model]})
    assert alone.auto_scaler == AutoScaler(enable=True, min_node_count=2)
    assert alone.endpoint_model_resource_list[0].scale_metric_code is Metric.CPU_UTILIZATION
    for least, most, nodes, first in ((0, 3, 1, 1), (2, 3, 1, 2), (0, 2, 5, 2)):
        bounds = {"enable": True, "minNodeCount": least, "maxNodeCount": most}
        assert first_count(EndpointCreate.model_validate(BODY | {"nodeCount": nodes, "autoScaler": bounds})) == first


async def test_what_is_wrong_is_told_all_at_once_and_others_have_no_say(small_api: ApiPlatform) -> None:
    stage = Stage(small_api)
    await stage.store()
    path = f"/endpoint-stages/{stage.id}/auto-scaler"
    wrong = {"minNodeCount": -1, "maxNodeCount": 11, "metricCode": "MOOD", "metricTarget": 0, "idleSeconds": 0}
    faults = faults_of(await small_api.call("PUT", path, {"enable": True, **wrong}))
    assert faults.keys() == wrong.keys()
    swapped = await small_api.call("PUT", path, {"enable": True, "minNodeCount": 3, "maxNodeCount": 2})
    assert "minNodeCount (3) must not be above maxNodeCount (2)" in swapped.text
    neighbour = await small_api.neighbour()
    assert (await neighbour.call("PUT", path, {"enable": True})).status_code == 404
    assert (await stage.shown())["autoScaler"]["enable"] is False


async def test_decisions_are_written_down_with_their_reasons(stage: Stage) -> None:
    shown = await stage.put(minNodeCount=0, maxNodeCount=4, idleSeconds=30)
    assert shown["autoScaler"]["metricTarget"] == 10
    assert shown["endpointModelList"][0]["scaleMetricCode"] == "REQUESTS_PER_SECOND"
    assert await stage.happen(per_second=5, seconds=20) == 1
    assert await stage.happen(per_second=25, seconds=8) == 3
    [seat] = stage.room.seats
    assert (seat.id, seat.addresses) == (stage.model_id, ())
    assert await stage.happen(per_second=0, seconds=28) == 3
    assert await stage.happen(per_second=0, seconds=6) == 0
    assert await stage.happen(per_second=0, seconds=40) == 0
    assert await stage.happen(per_second=0, seconds=2, wakes=True) == 1
    assert list(dict.fromkeys(await stage.reasons())) == ["AUTO_SCALER_CHANGED", "SCALING_UP", "AT_REST", "WAKING"]
    events = (await stage.api.ask("GET", f"/endpoint-stages/{stage.id}/events"))["eventList"]
    assert events[1]["statusMessage"].startswith("Model 'm': From 1 to ")
    assert {event["newStatusCode"] for event in events} == {"ACTIVE"}


async def test_copies_of_another_stages_requests_are_load_too(stage: Stage) -> None:
    await stage.put(maxNodeCount=4)
    copies = f"{stage.model_id}_mirrored"
    for turn in range(1, 7):
        stage.gateway.statistics[copies] = UpstreamStatistics(copies, calls_count=30 * turn)
        count = await stage.happen(per_second=10, seconds=2)
    assert count == 3


async def test_the_end_of_a_mirror_is_no_load(stage: Stage) -> None:
    await stage.put(maxNodeCount=4)
    copies = f"{stage.model_id}_mirrored"
    stage.gateway.statistics[copies] = UpstreamStatistics(copies, calls_count=10_000)
    assert await stage.happen(per_second=5, seconds=60) == 1
    del stage.gateway.statistics[copies]
    assert await stage.happen(per_second=5, seconds=10) == 1


async def test_a_platform_that_begins_anew_goes_on_from_what_was_decided(stage: Stage) -> None:
    await stage.put(minNodeCount=0, maxNodeCount=4, idleSeconds=30)
    assert await stage.happen(per_second=25, seconds=12) == 3
    stage.scaler = stage.started()
    assert await stage.happen(per_second=0, seconds=28) == 3  # it has not yet looked for long enough
    assert await stage.happen(per_second=0, seconds=8) == 0


async def test_nobody_rests_where_nobody_would_listen_and_nothing_is_decided_blindly(stage: Stage) -> None:
    await stage.put(minNodeCount=0, idleSeconds=2)
    stage.room.open = False
    assert await stage.happen(per_second=0, seconds=10) == 1
    stage.room.open = True

    async def refuse(_verb: str, _id: str) -> None:
        raise RetryLater("the gateway is away")

    stage.gateway.before = refuse
    assert await stage.happen(per_second=0, seconds=10) == 1


async def test_switched_off_it_keeps_what_there_is(stage: Stage) -> None:
    await stage.put(maxNodeCount=4)
    assert await stage.happen(per_second=25, seconds=12) == 3
    off = await stage.put(enable=False)
    assert (off["nodeCount"], off["autoScaler"]["enable"]) == (3, False)
    assert await stage.happen(per_second=100, seconds=20) == 3
    # The next bounds hold for what there is.
    await stage.put(maxNodeCount=2)
    assert await stage.happen(per_second=5, seconds=2) == 2
