"""What a project may ask for when it makes endpoints and stages: quotas of the gateway, and parts of an instance type."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from api_platform import ApiPlatform, api_platform, faults_of

from modelyard.compute.port import Capacity
from modelyard.kit.clock import utc_now
from modelyard.resources.endpoints.resource_option import ResourceOption, cpus_of, memory_of, share_faults
from modelyard.resources.endpoints.table import EndpointRow
from modelyard.testing.compute import FakeCompute

QUOTA = {"services_per_project": 2, "stages_per_service": 3, "resources_per_service": 4}
GIB = 2**30


class Maker:
    """Makes endpoints and stages of any number of models, whose servers never start: nothing is looked at but the request."""

    def __init__(self, api: ApiPlatform) -> None:
        self.api = api
        self.models: list[str] = []

    async def prepare(self, count: int) -> None:
        await self.api.put("models/m/model.pkl", pickle.dumps(None))
        for number in range(count):
            body = {"modelName": f"m{number}", "modelFormatCode": "SKLEARN", "modelUploadUri": self.api.uri("models/m")}
            self.models.append((await self.api.ask("POST", "/models", body))["model"]["modelId"])
        flavors = (await self.api.ask("GET", "/flavors"))["flavorList"]
        self.flavor = next(item["id"] for item in flavors if item["name"] == "c2.c2m2")

    def body(self, count: int, *options: dict[str, Any], **fields: Any) -> dict[str, Any]:
        models = [{"modelId": id} for id in self.models[:count]]
        for model, option in zip(models, options, strict=False):
            model |= {"resourceOptionDetail": option}
        return {"flavorId": self.flavor, "endpointModelResourceList": models, **fields}


@pytest.fixture
async def maker(database_url: str, tmp_path: Path) -> AsyncIterator[Maker]:
    fakes = {"compute": FakeCompute(Capacity(32.0, 12 * GIB))}
    async with api_platform(database_url, tmp_path / "home", fakes, gateway=QUOTA) as api:
        maker = Maker(api)
        await maker.prepare(5)
        yield maker


@pytest.fixture
async def sqlite_maker(sqlite_database_url: str, tmp_path: Path) -> AsyncIterator[Maker]:
    fakes = {"compute": FakeCompute(Capacity(32.0, 12 * GIB))}
    async with api_platform(sqlite_database_url, tmp_path / "home", fakes) as api:
        maker = Maker(api)
        await maker.prepare(2)
        yield maker


async def test_quotas_of_the_gateway_are_told_by_their_number(maker: Maker) -> None:
    api = maker.api
    first = (await api.ask("POST", "/endpoints", maker.body(2, endpointName="first")))["endpoint"]["endpointId"]

    async def refusal(path: str, body: dict[str, Any]) -> str:
        answer = await api.call("POST", path, body)
        assert (answer.status_code, answer.json()["header"]["resultCode"]) == (409, 409075)
        return answer.json()["header"]["resultMessage"]

    stage = {"endpointId": first, "apigwStageName": "blue"}
    assert "at most 4 resources (models on stages)" in await refusal("/endpoint-stages", maker.body(3, **stage))
    assert "at most 4 resources" in await refusal("/endpoints", maker.body(5, endpointName="large"))
    await api.ask("POST", "/endpoint-stages", maker.body(1, **stage))
    await api.ask("POST", "/endpoint-stages", maker.body(1, **stage | {"apigwStageName": "green"}))
    sentence = await refusal("/endpoint-stages", maker.body(1, **stage | {"apigwStageName": "red"}))
    assert sentence.startswith("at most 3 stages of an API gateway service are allowed; delete one, or ask an admin")
    await api.ask("POST", "/endpoints", maker.body(1, endpointName="second"))
    assert "at most 2 API gateway services" in await refusal("/endpoints", maker.body(1, endpointName="third"))


async def test_models_share_an_instance_type(maker: Maker) -> None:
    api = maker.api
    body = maker.body(2, {"cpu": "500m", "memory": "512Mi"}, {"cpu": 1.5, "memory": "1Gi"}, endpointName="shared")
    made = (await api.ask("POST", "/endpoints", body))["endpoint"]
    [stage] = made["endpointStageList"]
    shown = [model["resourceOptionDetail"] for model in stage["endpointModelList"]]
    assert shown == [{"cpu": "500m", "memory": "512Mi"}, {"cpu": "1.5", "memory": "1Gi"}]
    for options, field, sentence in (
        ([{"cpu": "3"}], "endpointModelResourceList[0].resourceOptionDetail.cpu", "3 cores, but 'c2.c2m2' has 2 cores"),
        ([{}, {"memory": "3Gi"}], "endpointModelResourceList[1].resourceOptionDetail.memory", "3,072 MiB, but"),
        ([{"cpu": "1"}, {"cpu": "1100m"}], "endpointModelResourceList", "cpu comes to 2.1 cores together"),
        ([{"memory": "512"}], "endpointModelResourceList[0].resourceOptionDetail.memory", "with its unit"),
        ([{"cpu": 10**400}], "endpointModelResourceList[0].resourceOptionDetail.cpu", "cores such as 1, 0.5 or 500m"),
        ([{"cpu": []}], "endpointModelResourceList[0].resourceOptionDetail.cpu", "must be text"),
        ([{"cpu": "two"}], "endpointModelResourceList[0].resourceOptionDetail.cpu", "cores such as 1, 0.5 or 500m"),
    ):
        told = faults_of(await api.call("POST", "/endpoints", maker.body(2, *options, endpointName="wrong")))
        assert sentence in told[field], told


async def test_parts_are_what_must_fit_into_the_machine(maker: Maker) -> None:
    body = maker.body(2, {"memory": "512Mi"}, endpointName="parts")
    await maker.api.ask("POST", "/endpoints", body | {"nodeCount": 4})  # 10 GiB; whole instances would be 16
    [stage] = (await maker.api.ask("GET", "/endpoint-stages"))["endpointStageList"]
    assert stage["endpointModelList"][1].get("resourceOptionDetail") is None
    refused = await maker.api.call("POST", "/endpoints", body | {"nodeCount": 5, "endpointName": "more"})
    assert "asks for 12.5 GiB of memory" in faults_of(refused)["flavorId"]


async def test_older_clients_say_the_number_of_a_models_instances(maker: Maker) -> None:
    body = maker.body(2, {"memory": "512Mi"}, {"memory": "512Mi"}, endpointName="pods") | {"nodeCount": 2}
    body["endpointModelResourceList"][0]["podCount"] = 3
    [stage] = (await maker.api.ask("POST", "/endpoints", body))["endpoint"]["endpointStageList"]
    assert [model["podCount"] for model in stage["endpointModelList"]] == [3, 2]
    assert (stage["nodeCount"], stage["podCount"]) == (3, 5)
    body["endpointModelResourceList"][1]["podCount"] = 20
    refused = await maker.api.call("POST", "/endpoints", body | {"endpointName": "many"})
    assert "GiB of memory" in faults_of(refused)["flavorId"]
    # A stage that follows its load decides by itself.
    scaled = await maker.api.ask("PUT", f"/endpoint-stages/{stage['endpointStageId']}/auto-scaler", {"enable": True})
    assert [model["podCount"] for model in scaled["endpointStage"]["endpointModelList"]] == [3, 2]
    settled = await maker.api.ask("PUT", f"/endpoint-stages/{stage['endpointStageId']}/auto-scaler", {"enable": False})
    assert [model["podCount"] for model in settled["endpointStage"]["endpointModelList"]] == [3, 3]


async def test_an_endpoint_is_not_deleted_with_a_stage_that_is_kept_for_a_revert(sqlite_maker: Maker) -> None:
    api = sqlite_maker.api
    made = (await api.ask("POST", "/endpoints", sqlite_maker.body(1, endpointName="e")))["endpoint"]["endpointId"]
    stage = {"endpointId": made, "apigwStageName": "blue"}
    former = (await api.ask("POST", "/endpoint-stages", sqlite_maker.body(1, **stage)))["endpointStage"]

    async def keep(minutes: int, *shares: dict[str, Any]) -> None:
        async with api.database.write() as session:
            row = await session.get(EndpointRow, made)
            assert row is not None
            until = (utc_now() + timedelta(minutes=minutes)).isoformat()
            row.spec = {
                **row.spec,
                "former": {"stage_id": former["endpointStageId"], "until": until},
                "shares": list(shares),
            }

    await keep(5)
    refused = await api.call("DELETE", f"/endpoints/{made}")
    assert (refused.status_code, refused.json()["header"]["resultCode"]) == (409, 409072)
    assert "blue" in refused.json()["header"]["resultMessage"]
    await keep(-5, {"stage_id": former["endpointStageId"], "weight": 9})
    assert (await api.call("DELETE", f"/endpoints/{made}")).status_code == 409
    await keep(-5, {"stage_id": former["endpointStageId"], "weight": 0})
    await api.ask("DELETE", f"/endpoints/{made}")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/default", "is the address of the default stage"),
        ("/default/inference", "is the address of the default stage"),
        ("/v1/models/m1/predict", "the model 'm1' has anyway"),
        ("/v2/models/m0", "the model 'm0' has anyway"),
        ("/m1/v1/x", "the model 'm1' has anyway"),
        ("/defaults", None),
        ("/v1/models/m10/predict", None),
        ("/m1", None),
    ],
)
async def test_resource_paths_that_mean_something_already_are_refused(
    sqlite_maker: Maker, path: str, sentence: str | None
) -> None:
    body = sqlite_maker.body(2, endpointName="paths")
    body["endpointModelResourceList"][0]["apigwResourceUri"] = path
    answer = await sqlite_maker.api.call("POST", "/endpoints", body)
    if sentence is None:
        assert answer.status_code == 200, answer.text
    else:
        assert sentence in faults_of(answer)["endpointModelResourceList[0].apigwResourceUri"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1Gi", GIB), ("512Mi", GIB // 2), ("1.5G", 1_500_000_000), ("1073741824", GIB), ("1024Ki", 2**20)],
)
def test_memory(text: str, value: int) -> None:
    assert memory_of(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "1 GB", "-1Gi", "1e3", "0x10", "1Gi1", "١Gi"])
def test_what_is_no_memory(text: str) -> None:
    with pytest.raises(ValueError, match="memory such as"):
        memory_of(text)


def test_cores() -> None:
    assert (cpus_of("2"), cpus_of("0.25"), cpus_of("250m")) == (2.0, 0.25, 0.25)


def test_parts_that_make_up_the_whole_fit() -> None:
    tenths = [ResourceOption(cpu="0.1", memory="128Mi")] * 10
    assert not share_faults([*tenths, None], "f", 1.0, 10 * 128 * 2**20)
    assert len(share_faults([*tenths, ResourceOption(cpu="0.1")], "f", 1.0, GIB)) == 2
