"""Models that no training of the platform made: an ONNX graph and a scikit-learn estimator, from a path to an answer."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from journey_iris import ask
from journey_models import MAKE, TOOLS
from journey_platform import RunningPlatform, clean_environment, eventually
from journey_scripts import SMALL_FLAVOR

from modelyard.sdk.errors import BadRequest, Conflict

pytestmark = pytest.mark.slow

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


def ask_text(url: str, ca_file: str) -> str:
    return httpx.get(url, verify=ssl.create_default_context(cafile=ca_file)).text


@pytest.fixture(scope="module")
def artifacts(tools_python: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("artifacts")
    command = [str(tools_python(*TOOLS)), "-c", MAKE, str(place)]
    subprocess.run(command, check=True, timeout=120, env=clean_environment())
    return place


@pytest.mark.parametrize("format_code", ["ONNX", "SKLEARN"])
def test_a_model_from_elsewhere_answers(
    platform: RunningPlatform, framework_python: Callable[[str, str], Path], artifacts: Path, format_code: str
) -> None:
    framework_python(format_code, "")
    client, name = platform.client, f"elsewhere-{format_code.lower()}"
    client.storage.upload(artifacts / format_code.lower(), f"formats/{name}")
    client.models.create(name, artifact=f"formats/{name}", format=format_code)
    client.endpoints.create(name, models={name: "/inference"}, flavor=SMALL_FLAVOR, use_log=True)
    endpoint = client.endpoints.wait(name, timeout_seconds=120)
    url = endpoint.endpoint_stage_list[0].endpoint_model_list[0].apigw_endpoint_uri
    answer = ask(str(url), {"instances": ROWS}, platform.credentials["caFile"])
    assert answer.status_code == 200, answer.text
    rows = answer.json()["predictions"]
    assert [row["label"] if isinstance(row, dict) else row for row in rows] == [0, 2]
    inference = answer.headers["x-inference-id"]
    query = f'category:"easymaker.inference" AND inferenceId:"{inference}"'
    eventually(lambda: client.logs.search(query).total_count == 2, "both lines of the inference are in the log")
    lines = client.logs.search(query, order="asc").log_list
    stage = endpoint.endpoint_stage_list[0]
    assert [line["action"] for line in lines] == ["Inference.Request", "Inference.Response"]
    assert {(line["endpointId"], line["endpointStageId"], line["modelName"]) for line in lines} == {
        (endpoint.id, stage.id, name)
    }
    assert '"predictions"' in str(lines[1]["body"])
    client.endpoints.delete(name)


def test_a_model_shows_its_artifact_and_is_served_from_a_copy(platform: RunningPlatform, artifacts: Path) -> None:
    client = platform.client
    client.storage.upload(artifacts / "onnx", "formats/kept")
    model = client.models.create("kept", artifact="formats/kept", format="ONNX", keeps_copy=True)
    assert model.model_status_code == "ACTIVE"
    assert model.artifact is not None
    assert (model.artifact.artifact_kind_code, model.artifact.load_path) == ("ONNX", "model.onnx")
    [signature] = model.artifact.signature_list
    assert [(each.tensor_name, each.data_type, each.shape) for each in signature.input_list] == [
        ("X", "float32", [None, 4])
    ]
    assert client.models.set_alias("kept", "production").alias_list == ["production"]
    for item in client.storage.list("formats/kept"):
        client.storage.delete(f"formats/{item.name}")
    client.endpoints.create("kept", models={"kept@production": "/inference"}, flavor=SMALL_FLAVOR)
    endpoint = client.endpoints.wait("kept", timeout_seconds=120)
    url = str(endpoint.endpoint_stage_list[0].endpoint_model_list[0].apigw_endpoint_uri)
    answer = ask(url, {"instances": ROWS}, platform.credentials["caFile"])
    assert [row["label"] for row in answer.json()["predictions"]] == [0, 2]
    with pytest.raises(Conflict, match="kept"):
        client.models.delete("kept")
    client.endpoints.delete("kept", wait=True, timeout_seconds=60)
    assert [path for path in (platform.home / "copies").rglob("*") if path.is_file()]
    client.models.delete("kept", wait=True, timeout_seconds=60)
    assert not [path for path in (platform.home / "copies").rglob("*") if path.is_file()]


def test_a_wrong_artifact_is_told_when_the_model_is_made(platform: RunningPlatform, tmp_path: Path) -> None:
    client = platform.client
    (tmp_path / "iris.mar").write_bytes(b"no archive")
    client.storage.upload(tmp_path, "formats/wrong")
    model = client.models.create("wrong", artifact="formats/wrong", format="PYTORCH")
    assert model.model_status_code == "CREATE_FAILED"
    assert "iris.mar can't be read as a zip file" in str(model.status_message)
    with pytest.raises(BadRequest, match=r"iris\.mar can't be read"):
        client.endpoints.create("wrong", models={"wrong": "/inference"}, flavor=SMALL_FLAVOR)
    client.models.delete("wrong")


def test_options_of_the_model_server_are_checked_and_shown(platform: RunningPlatform, artifacts: Path) -> None:
    client = platform.client
    client.storage.upload(artifacts / "onnx", "formats/options")
    model = client.models.create("options", artifact="formats/options", format="ONNX")
    flavors = httpx.get(f"{platform.api}/flavors", headers=platform.headers).json()["flavorList"]
    flavor = next(item["id"] for item in flavors if item["name"] == SMALL_FLAVOR)

    def create(options: dict[str, object]) -> httpx.Response:
        resource = {"modelId": model.id, "servingOptions": options}
        body = {"endpointName": "options", "flavorId": flavor, "endpointModelResourceList": [resource]}
        return httpx.post(f"{platform.api}/endpoints", headers=platform.headers, json=body)

    wrong: dict[str, object] = {"maxBatchSize": 0, "queueSize": -1, "deadlineSeconds": "soon", "logSampleRate": 2}
    refused = create(wrong)
    assert refused.status_code == 400
    assert all(name in refused.text for name in wrong), refused.text
    good: dict[str, object] = {
        "maxBatchSize": 8,
        "maxBatchDelayMilliseconds": 2.5,
        "deadlineSeconds": 7.0,
        "workerCount": 2,
    }
    created = create(good)
    assert created.status_code == 200, created.text
    endpoint = client.endpoints.wait("options", timeout_seconds=120)
    served = endpoint.endpoint_stage_list[0].endpoint_model_list[0]
    shown = served.serving_options.model_dump(by_alias=True)
    assert {name: shown[name] for name in good} == good
    url = str(served.apigw_endpoint_uri)
    assert ask(url, {"instances": ROWS}, platform.credentials["caFile"]).status_code == 200
    metrics = ask_text(url.replace("/inference", "/metrics"), platform.credentials["caFile"])
    assert 'batches_total{model="options"} 1' in metrics
    stage_id = endpoint.endpoint_stage_list[0].id
    settings = client.stages.gateway_settings
    eventually(lambda: len(settings(stage_id).upstream_list[0].address_list) == 2, "both processes get requests")
    assert client.stages.get(stage_id).running_pod_count == 1
    client.endpoints.delete("options")
