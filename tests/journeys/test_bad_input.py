"""What users do wrong, through the REST API: refused before anything is stored, in the envelope, with the field and a sentence; or, where
only the run can tell, an end that says why."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from journey_platform import RunningPlatform, eventually
from journey_rest import Rest, faults, refused
from journey_scripts import SMALL_FLAVOR, start_script, upload_script

from modelyard.resources.endpoints.schemas import EndpointStageOut
from modelyard.resources.trainings.schemas import TrainingOut
from modelyard.sdk.errors import Conflict

pytestmark = pytest.mark.slow

END_SECONDS = 150.0
ENDED = {"COMPLETE", "FAIL_TRAIN", "CREATE_FAILED", "STOPPED"}


@pytest.fixture(scope="module")
def rest(platform: RunningPlatform) -> Iterator[Rest]:
    """The API; no test of this module may have made the server fail."""
    with Rest(platform) as rest:
        yield rest
    log = (platform.home / "logs/server.log").read_text()
    assert " failed\nTraceback" not in log, log[-5000:]


@pytest.fixture(scope="module")
def good(platform: RunningPlatform, rest: Rest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The body of a training that would work."""
    source = upload_script(platform, tmp_path_factory.mktemp("good"), "bad/source", "print('hello')")
    uri = platform.client.storage.uri
    images = rest.call("GET", "/images").json()["imageList"]
    flavors = rest.call("GET", "/flavors").json()["flavorList"]
    return {
        "trainingName": "never stored",
        "experimentName": "never stored",
        "imageId": next(item["imageId"] for item in images if item["name"].endswith("CPU Python 3.11 Training")),
        "flavorId": next(item["id"] for item in flavors if item["name"] == SMALL_FLAVOR),
        "sourceDirUri": uri(source),
        "entryPoint": "train.py",
        "modelUploadUri": uri("bad/output"),
    }


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"imageId": "no-such-image"}, "imageId", "no-such-image"),
        ({"flavorId": "no-such-flavor"}, "flavorId", "no-such-flavor"),
        ({"experimentId": "no-such-experiment", "experimentName": None}, "experimentId", "not found"),
        ({"entryPoint": "missing.py"}, "entryPoint|sourceDirUri", "missing.py"),
        ({"entryPoint": "../train.py"}, "entryPoint", ""),
        ({"entryPoint": "/etc/passwd"}, "entryPoint", ""),
        ({"entryPoint": ""}, "entryPoint", ""),
        ({"sourceDirUri": "obs://elsewhere.example.com/v1/AUTH_x/c/p"}, "sourceDirUri", "elsewhere.example.com"),
        ({"sourceDirUri": "file:///etc"}, "sourceDirUri", ""),
        ({"sourceDirUri": "nas://no-such-volume:/x"}, "sourceDirUri", "no-such-volume"),
        ({"sourceDirUri": ""}, "sourceDirUri", ""),
        ({"sourceDirUri": None}, "sourceDirUri", ""),
        ({"modelUploadUri": ""}, "modelUploadUri", ""),
        ({"modelUploadUri": "obs://127.0.0.1"}, "modelUploadUri", ""),
        ({"trainingName": "x" * 51}, "trainingName", "50"),
        ({"trainingName": " padded "}, "trainingName", "white space"),
        ({"trainingName": "two\nlines"}, "trainingName", "control"),
        ({"trainingName": ""}, "trainingName", "empty"),
        ({"trainingName": None}, "trainingName", ""),
        ({"trainingName": 7}, "trainingName", ""),
        ({"description": "x" * 256}, "description", "255"),
        ({"instanceCount": 0}, "instanceCount", "1"),
        ({"instanceCount": 11}, "instanceCount", "10"),
        ({"instanceCount": "many"}, "instanceCount", ""),
        ({"instanceCount": 10**30}, "instanceCount", "10"),
        ({"timeoutMinutes": 0}, "timeoutMinutes", "1"),
        ({"timeoutMinutes": 43201}, "timeoutMinutes", "43200"),
        ({"hyperparameterList": [{"parameterName": f"p{n}", "parameterValue": "1"} for n in range(101)]}, "hyperparameterList", "100"),
        ({"hyperparameterList": [{"parameterName": "p", "parameterValue": "1"}] * 2}, "hyperparameterList", "more than once"),
        ({"hyperparameterList": [{"parameterName": "", "parameterValue": "1"}]}, "hyperparameterList[0].parameterName", ""),
        ({"hyperparameterList": [{"parameterName": "x" * 256, "parameterValue": "1"}]}, "hyperparameterList[0].parameterName", "255"),
        ({"hyperparameterList": [{"parameterName": "p", "parameterValue": "x" * 1001}]}, "hyperparameterList[0].parameterValue", "1000"),
        ({"hyperparameterList": [{"parameterName": "p", "parameterValue": "a\0b"}]}, "hyperparameterList[0].parameterValue", "NUL"),
        ({"hyperparameterList": "none"}, "hyperparameterList", ""),
        ({"datasetList": [{"datasetName": f"d{n}", "dataUri": "obs://h/c"} for n in range(11)]}, "datasetList", "10"),
        ({"datasetList": [{"datasetName": name, "dataUri": "obs://h/c"} for name in ("train", "Train")]}, "datasetList", "EM_DATASET_TRAIN"),
        ({"datasetList": [{"datasetName": "x" * 37, "dataUri": "obs://h/c"}]}, "datasetList[0].datasetName", "36"),
        ({"tagList": [{"tagKey": f"t{n}", "tagValue": "v"} for n in range(11)]}, "tagList", "10"),
        ({"tagList": [{"tagKey": "same", "tagValue": "v"}] * 2}, "tagList", "once"),
        ({"useTorchrun": True}, "useTorchrun", "PyTorch"),
        ({"algorithmId": "built-in"}, "algorithmId", ""),
    ],
    ids=lambda value: next(iter(cast("dict[str, Any]", value))) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_wrong_field_of_a_training_is_named(
    rest: Rest, good: dict[str, Any], changes: dict[str, Any], field: str, words: str
) -> None:
    told = faults(rest.call("POST", "/trainings", good | changes))
    [named] = [name for name in told if name in field.split("|")] or [None]
    assert named is not None, told
    assert words in told[named]
    assert "obs://h/c" in str(changes) or set(told) == {named}, told
    names = [item["trainingName"] for item in rest.call("GET", "/trainings").json()["trainingList"]]
    assert "never stored" not in names


def test_all_wrong_fields_are_told_at_once(rest: Rest, good: dict[str, Any]) -> None:
    wrong = {"imageId": "a", "flavorId": "b", "experimentId": "c", "entryPoint": "missing.py"}
    told = faults(rest.call("POST", "/trainings", good | wrong))
    assert {"imageId", "flavorId", "experimentId"} < set(told), told
    assert any("missing.py" in message for message in told.values())


def test_missing_containers_and_paths_are_named(platform: RunningPlatform, rest: Rest, good: dict[str, Any]) -> None:
    uri = platform.client.storage.uri
    for field, place in (
        ("sourceDirUri", "no-such-container/source"),
        ("sourceDirUri", "bad/no-such-path"),
        ("modelUploadUri", "no-such-container/output"),
        ("checkPointUploadUri", "no-such-container/checkpoints"),
        ("checkPointInputUri", "bad/no-such-path"),
    ):
        told = faults(rest.call("POST", "/trainings", good | {field: uri(place)}))
        assert set(told) == {field}, told
        assert place.partition("/")[0] in told[field]
    dataset = [{"datasetName": "train", "dataUri": uri("bad/no-such-path")}]
    told = faults(rest.call("POST", "/trainings", good | {"datasetList": dataset}))
    assert list(told) == ["datasetList[0].dataUri"]


@pytest.mark.parametrize("tricky", ["..", "a/../../b", "%2e%2e", "a\0b", "//", "."])
def test_tricky_paths_are_refused_or_empty(
    platform: RunningPlatform, rest: Rest, good: dict[str, Any], tricky: str
) -> None:
    account = platform.client.storage.uri("bad/x").removesuffix("bad/x")
    told = faults(rest.call("POST", "/trainings", good | {"sourceDirUri": f"{account}bad/{tricky}"}))
    assert set(told) & {"sourceDirUri", "entryPoint"}, told


def test_other_creations_name_the_wrong_field(platform: RunningPlatform, rest: Rest, good: dict[str, Any]) -> None:
    uri = platform.client.storage.uri("bad/source")
    model = {"modelName": "m", "modelFormatCode": "TENSORFLOW", "modelUploadUri": uri}
    stage = {"flavorId": good["flavorId"], "endpointModelResourceList": [{"modelId": "none"}]}
    for path, body, field in (
        ("/experiments", {}, "experimentName"),
        ("/experiments", {"experimentName": "x" * 51}, "experimentName"),
        ("/experiments", {"experimentName": "e", "tagList": [{"tagKey": "k" * 65}]}, "tagList"),
        ("/models", model | {"modelName": ""}, "modelName"),
        ("/models", model | {"modelFormatCode": "WORD"}, "modelFormatCode"),
        ("/models", model | {"modelUploadUri": None}, "modelUploadUri"),
        ("/models", model | {"modelUploadUri": "obs://nowhere"}, "modelUploadUri"),
        ("/models", {"modelName": "m", "trainingId": "none"}, "trainingId"),
        ("/endpoints", stage | {"endpointName": "e"}, "endpointModelResourceList[0].modelId"),
        ("/endpoints", stage | {"endpointName": "e", "flavorId": "none"}, "flavorId"),
        ("/endpoints", stage | {"endpointName": "e", "nodeCount": 11}, "nodeCount"),
        ("/endpoints", stage | {"endpointName": "e", "endpointModelResourceList": []}, "endpointModelResourceList"),
        ("/endpoint-stages", stage | {"endpointId": "none", "apigwStageName": "Not Good"}, "apigwStageName"),
        ("/nas-volumes", {}, "nasVolumeName"),
    ):
        told = faults(rest.call("POST", path, body))
        assert field in told, f"{path} {body}: {told}"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        (b"\xff\xfe", 400),
        (b"[1, 2]", 400),
        (b"null", 400),
        (b'"text"', 400),
        (b'{"trainingName": NaN}', 400),
        (b'{"trainingName": 1e999}', 400),
        (b'{"trainingName": "\\ud800"}', 400),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
        (b"[" * 1_000_000, 400),
        (b'{"description": "' + b"x" * (49 * 2**20) + b'"}', 413),
    ],
    ids=["empty", "text", "bytes", "list", "null", "string", "nan", "infinity", "surrogate", "deep", "deeper", "huge"],
)
def test_strange_bodies_are_refused(rest: Rest, body: bytes, status: int) -> None:
    for path in ("/trainings", "/experiments"):
        refused(rest.call("POST", path, body), status)


def test_a_streamed_body_without_a_length_is_limited_too(platform: RunningPlatform, rest: Rest) -> None:
    pieces = (b"x" * 2**20 for _ in range(60))
    answer = rest.call("POST", "/experiments", headers=platform.headers, content=pieces)
    refused(answer, 413)


def test_strange_queries_are_refused(rest: Rest) -> None:
    for path in (
        "/trainings?page=0",
        "/trainings?page=x",
        "/trainings?limit=0",
        "/trainings?limit=100000",
        "/logs?query=body:(",
        "/logs?limit=0",
        "/logs?order=up",
        "/logs?from=yesterday",
        "/logs?cursor=nonsense",
    ):
        refused(rest.call("GET", path), 400)


def test_a_script_that_fails_tells_code_and_last_lines(platform: RunningPlatform, tmp_path: Path) -> None:
    script = "import sys\nfor n in range(50): print('line', n)\nprint('gave up', file=sys.stderr)\nsys.exit(3)"
    upload_script(platform, tmp_path, "fails/source", script)
    ended = end_of(platform, start_script(platform, "exits-3", "fails/source"))
    assert ended.training_status_code == "FAIL_TRAIN"
    assert ended.exit_code == 3
    assert "exit code 3" in (ended.status_message or "")
    assert any("gave up" in line for line in ended.last_log_lines), ended.last_log_lines
    assert any("line 49" in line for line in ended.last_log_lines)


def test_a_script_killed_for_memory_is_told_so(platform: RunningPlatform, tmp_path: Path) -> None:
    script = "blocks = []\nwhile True: blocks.append(bytearray(64 * 2**20))"
    upload_script(platform, tmp_path, "memory/source", script)
    ended = end_of(platform, start_script(platform, "eats-memory", "memory/source"))
    assert ended.training_status_code == "FAIL_TRAIN"
    assert ended.status_reason == "OUT_OF_MEMORY"
    assert "1 GiB" in (ended.status_message or "")


def test_requirements_that_can_not_be_installed_end_it(platform: RunningPlatform, tmp_path: Path) -> None:
    requirements = "./no-such-directory-to-install\n"
    upload_script(platform, tmp_path, "pip/source", "print('never')", requirements_txt=requirements)
    ended = end_of(platform, start_script(platform, "pip-fails", "pip/source"))
    assert ended.training_status_code in ("FAIL_TRAIN", "CREATE_FAILED")
    assert "requirements" in (ended.status_message or ""), ended.status_message
    assert any("no-such-directory-to-install" in line for line in ended.last_log_lines), ended.last_log_lines
    assert not any(line == "never" for line in ended.last_log_lines)


def test_a_broken_saved_model_is_told_when_the_model_is_made(platform: RunningPlatform, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"this is no protocol buffer")
    assert "saved_model.pb is no SavedModel" in model_failure(platform, tmp_path, "broken", "TENSORFLOW")


def test_an_archive_of_another_name_is_told_with_both_names(platform: RunningPlatform, tmp_path: Path) -> None:
    (tmp_path / "model-store").mkdir()
    (tmp_path / "config").mkdir()
    with zipfile.ZipFile(tmp_path / "model-store/iris.mar", "w") as archive:
        manifest = {"model": {"modelName": "iris", "handler": "handler.py", "modelVersion": "1.0"}}
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("handler.py", "def handle(data, context): return data")
    served = {"iris": {"1.0": {"defaultVersion": True, "marName": "iris.mar"}}}
    (tmp_path / "config/config.properties").write_text(f"model_store=model-store\nmodels={json.dumps(served)}\n")
    message = model_failure(platform, tmp_path, "tulips", "PYTORCH")
    assert "iris" in message and "tulips" in message, message


class Runs:
    """What runs code when it is unpickled, as every pickle may."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, (self.source,))


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (None, "", "holds a NoneType, which can't predict"),
        (Runs("print('about to leave') or __import__('os')._exit(7)"), "", "7"),
        (Runs("len(b'x' * (4 << 30))"), "OUT_OF_MEMORY", "1,024 MiB|1 GiB|1024 MiB"),
    ],
    ids=["no estimator", "crash", "memory"],
)
def test_a_model_that_can_not_be_loaded_says_why(
    platform: RunningPlatform, tmp_path: Path, content: object, reason: str, words: str
) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(content))
    stage = endpoint_failure(platform, tmp_path, "unloadable", "SKLEARN")
    message = stage.status_message or ""
    assert any(word in message for word in words.split("|")), (message, stage.last_log_lines)
    assert stage.status_reason == reason or not reason
    assert any("loading model" in line for line in stage.last_log_lines), stage.last_log_lines


# Takes its time to load; ends its process for a value of 1000, and answers others.
FRAGILE = """__import__('time').sleep(2) or type('Fragile', (), {
    'predict': lambda self, rows: __import__('os')._exit(9) if rows.max() > 999 else rows[:, 0], 'n_features_in_': 1
})()"""


def test_a_slow_start_and_a_crash_loop_are_shown_while_they_last(platform: RunningPlatform, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Runs(" ".join(FRAGILE.split()))))
    client, name = platform.client, "fragile"
    client.storage.upload(tmp_path, f"artifacts/{name}")
    client.models.create(name, artifact=f"artifacts/{name}", format="SKLEARN")
    endpoint = client.endpoints.create(name, models={name: "/inference"}, flavor=SMALL_FLAVOR)
    stage_id = endpoint.endpoint_stage_list[0].id
    eventually(lambda: client.stages.get(stage_id).status_reason == "LOADING", "it loads", END_SECONDS)
    client.endpoints.wait(name, timeout_seconds=END_SECONDS)
    url = f"{platform.credentials['apiUrl']}/gateway/{client.stages.get(stage_id).apigw_stage_url.partition('/gateway/')[2]}"

    def ask(value: float) -> int:
        return httpx.post(f"{url}/inference", json={"instances": [[value]]}, timeout=60.0).status_code

    def told() -> str | None:
        ask(1000.0)
        shown = client.stages.get(stage_id)
        assert shown.endpoint_stage_status_code == "ACTIVE"
        message = shown.status_message or ""
        return message if "is started again: " in message else None

    assert ask(1.0) == 200
    message = eventually(told, "the stage tells why its server is away", END_SECONDS, 0.2)
    assert "exit code 9" in str(message)
    eventually(lambda: ask(1.0) == 200, "it answers again", END_SECONDS, 0.2)
    client.endpoints.delete(name, wait=True, timeout_seconds=60.0)
    client.models.delete(name)


def test_a_deleted_artifact_stops_an_endpoint_before_it_begins(
    platform: RunningPlatform, rest: Rest, good: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(None))
    client = platform.client
    client.storage.upload(tmp_path, "artifacts/gone")
    model = client.models.create("gone", artifact="artifacts/gone", format="SKLEARN")
    client.storage.delete("artifacts/gone", recursive=True)
    body = {
        "endpointName": "gone",
        "flavorId": good["flavorId"],
        "endpointModelResourceList": [{"modelId": model.id, "apigwResourceUri": "/inference"}],
    }
    told = faults(rest.call("POST", "/endpoints", body))
    assert "artifacts/gone" in told["endpointModelResourceList[0].modelId"]
    assert not [item for item in client.endpoints.list() if item.name == "gone"]
    client.models.delete(model.id)


def test_a_missing_grant_is_named_and_once_given_it_works(
    platform: RunningPlatform, rest: Rest, good: dict[str, Any], tmp_path: Path
) -> None:
    upload_script(platform, tmp_path, "guarded/source", "print('hello')")
    known = platform.credentials
    container = f"{known['objectStoreUrl']}/guarded"
    owner = {"X-Auth-Token": known["accessToken"]}
    system_account = f"{known['tenantId']}:{known['apiUserId']}"
    body = good | {
        "trainingName": "guarded",
        "experimentName": "journeys",
        "sourceDirUri": platform.client.storage.uri("guarded/source"),
        "modelUploadUri": platform.client.storage.uri("guarded/output"),
    }

    def allow(read: str, write: str) -> None:
        lists = {"X-Container-Read": read, "X-Container-Write": write}
        assert rest.send("POST", container, headers=owner | lists).status_code == 204

    allow(f"{known['tenantId']}:somebody-else", "")
    told = faults(rest.call("POST", "/trainings", body))
    assert "read permission" in told["sourceDirUri"] and system_account in told["sourceDirUri"], told
    assert "write permission" in told["modelUploadUri"] and system_account in told["modelUploadUri"], told
    allow(system_account, "")
    told = faults(rest.call("POST", "/trainings", body))
    assert set(told) == {"modelUploadUri"} and "X-Container-Write" in told["modelUploadUri"], told
    allow(system_account, system_account)
    answer = rest.call("POST", "/trainings", body)
    assert answer.status_code == 200, answer.text
    training = platform.client.trainings.get(answer.json()["training"]["trainingId"])
    assert end_of(platform, training).training_status_code == "COMPLETE"


def end_of(platform: RunningPlatform, training: TrainingOut) -> TrainingOut:
    """The training once it has ended, however it did."""

    def ended() -> TrainingOut | None:
        seen = platform.client.trainings.get(training.id)
        return seen if seen.training_status_code in ENDED else None

    return eventually(ended, f"the training {training.name} ends", END_SECONDS, 0.2) or training


def model_failure(platform: RunningPlatform, artifact: Path, name: str, format_code: str) -> str:
    """Why no model can be made of the artifact; it is deleted again."""
    client = platform.client
    client.storage.upload(artifact, f"artifacts/{name}")
    model = client.models.create(name, artifact=f"artifacts/{name}", format=format_code)
    assert model.model_status_code == "CREATE_FAILED", model
    client.models.delete(name)
    return model.status_message or ""


def endpoint_failure(platform: RunningPlatform, artifact: Path, name: str, format_code: str) -> EndpointStageOut:
    """The stage of an endpoint of the artifact when it has failed; model and endpoint are deleted again."""
    client = platform.client
    client.storage.upload(artifact, f"artifacts/{name}")
    client.models.create(name, artifact=f"artifacts/{name}", format=format_code)
    endpoint = client.endpoints.create(name, models={name: "/inference"}, flavor=SMALL_FLAVOR)
    eventually(
        lambda: client.endpoints.get(endpoint.id).endpoint_status_code == "CREATE_FAILED",
        f"the endpoint {name} fails",
        END_SECONDS,
        0.2,
    )
    stage = client.endpoints.get(endpoint.id).endpoint_stage_list[0]
    assert stage.endpoint_stage_status_code == "CREATE_FAILED"
    workload_id = stage.endpoint_model_list[0].endpoint_model_id
    eventually(lambda: not platform.instances(workload_id), "no process and no file of it is left", END_SECONDS)
    with pytest.raises(Conflict, match="can't take requests"):  # nor a route
        client.stages.gateway_settings(stage.id)
    client.endpoints.delete(endpoint.id, wait=True, timeout_seconds=60.0)
    client.models.delete(name)
    return stage
