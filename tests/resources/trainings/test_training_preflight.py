"""Creating a training: everything that is wrong is told at once, by its field, and nothing is stored then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_platform import ApiPlatform, api_platform, faults_of, good_training

from modelyard.resources.metrics.model import EventFiles

WRONG_IN_FORM_AND_PLACE: dict[str, Any] = {
    "trainingName": "x" * 51,
    "description": "x" * 256,
    "imageId": "no-such-image",
    "flavorId": "no-such-flavor",
    "experimentId": "no-such-experiment",
    "entryPoint": "missing.py",
    "hyperparameterList": [{"parameterName": "p", "parameterValue": "x" * 1001}],
    "checkPointInputUri": "nas://no-such-volume:/x",
    "timeoutMinutes": 0,
}


async def test_faults_of_form_and_of_place_are_told_together(small_api: ApiPlatform) -> None:
    body = await good_training(small_api, **WRONG_IN_FORM_AND_PLACE)
    body["datasetList"] = [
        {"datasetName": "x" * 37, "dataUri": small_api.uri("work/source")},
        {"datasetName": "train", "dataUri": small_api.uri("work/nothing-here")},
        {"datasetName": "test", "dataUri": small_api.uri("no-such-container/x")},
    ]
    told = faults_of(await small_api.call("POST", "/trainings", body))
    assert set(told) == {
        "trainingName",
        "description",
        "imageId",
        "flavorId",
        "experimentId",
        "entryPoint",
        "hyperparameterList[0].parameterValue",
        "checkPointInputUri",
        "timeoutMinutes",
        "datasetList[0].datasetName",
        "datasetList[1].dataUri",
        "datasetList[2].dataUri",
    }
    assert "no-such-volume" in told["checkPointInputUri"]
    assert "work/nothing-here" in told["datasetList[1].dataUri"]
    assert "no-such-container" in told["datasetList[2].dataUri"]
    assert (await small_api.ask("GET", "/trainings"))["trainingList"] == []


async def test_a_list_is_told_all_that_is_wrong_with_it(small_api: ApiPlatform) -> None:
    body = await good_training(small_api)
    place = body["sourceDirUri"]
    names = ["train", "Train", *"abcdefgh", "a-b", "a.b", ""]
    body["datasetList"] = [{"datasetName": name, "dataUri": place} for name in names]
    body["hyperparameterList"] = [{"hyperparameterKey": "same", "hyperparameterValue": 1} for _ in range(101)]
    answer = await small_api.call("POST", "/trainings", body)
    told = [(fault["field"], fault["message"]) for fault in answer.json()["faults"]]
    assert sorted(told) == [
        ("datasetList", "must have at most 10 items (it has 13)"),
        ("datasetList", "the names 'a-b' and 'a.b' would share the variable EM_DATASET_A_B"),
        ("datasetList", "the names 'train' and 'Train' would share the variable EM_DATASET_TRAIN"),
        ("datasetList[12].datasetName", "must have at least 1 characters"),
        ("hyperparameterList", "must have at most 100 items (it has 101)"),
        ("hyperparameterList", "the key 'same' is given more than once"),
    ]


async def test_scripts_that_keep_checkpoints_beside_the_model_go_on_working(small_api: ApiPlatform) -> None:
    body = await good_training(small_api)
    body["checkPointUploadUri"] = body["modelUploadUri"]
    assert (await small_api.call("POST", "/trainings", body)).status_code == 200


async def test_an_empty_request_names_all_that_must_be_given(small_api: ApiPlatform) -> None:
    told = faults_of(await small_api.call("POST", "/trainings", {}))
    assert set(told) == {"trainingName", "imageId", "flavorId", "modelUploadUri", "sourceDirUri", "entryPoint"}


@pytest.mark.parametrize("name", ["Ubuntu 22.04 CPU ONNX Serving", "Ubuntu 22.04 CPU Python Notebook"])
async def test_an_image_for_something_else_is_refused_with_those_that_do(small_api: ApiPlatform, name: str) -> None:
    body = await good_training(small_api, imageId=name, timeoutMinutes=0)
    told = faults_of(await small_api.call("POST", "/trainings", body))
    assert set(told) == {"imageId", "timeoutMinutes"}
    assert told["imageId"].startswith(f"the image '{name}' is not for trainings; choose one of: ")
    assert "Ubuntu 22.04 CPU Python 3.11 Training" in told["imageId"]
    assert "Notebook" not in told["imageId"].partition(";")[2]


async def test_an_unknown_image_is_refused_with_those_for_trainings(small_api: ApiPlatform) -> None:
    body = await good_training(small_api, imageId="nothing")
    told = faults_of(await small_api.call("POST", "/trainings", body))
    assert "Ubuntu 22.04 CPU Python 3.11 Training" in told["imageId"]
    assert "Notebook" not in told["imageId"] and "Serving" not in told["imageId"]


async def test_a_source_that_is_not_there_is_the_sources_fault(small_api: ApiPlatform) -> None:
    body = await good_training(small_api)
    nothing = body | {"sourceDirUri": small_api.uri("work/nothing")}
    assert set(faults_of(await small_api.call("POST", "/trainings", nothing))) == {"sourceDirUri"}
    missing = body | {"entryPoint": "other.py"}
    assert set(faults_of(await small_api.call("POST", "/trainings", missing))) == {"entryPoint"}


async def test_a_store_that_does_not_answer_is_told_after_the_deadline(
    small_api: ApiPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All looks run side by side: three that hang cost one deadline."""

    async def hang(*_: object, **__: object) -> None:
        await asyncio.sleep(3600)

    body = await good_training(small_api, checkPointUploadUri=small_api.uri("work/checkpoints"))
    preflight = small_api.services.trainings._preflight  # pyright: ignore[reportPrivateUsage]  # its deadline has no setting
    monkeypatch.setattr(preflight, "_deadline_seconds", 0.2)
    monkeypatch.setattr(small_api.services.storages, "check_readable", hang)
    monkeypatch.setattr(small_api.services.storages, "check_writable", hang)
    async with asyncio.timeout(20):
        told = faults_of(await small_api.call("POST", "/trainings", body))
    assert set(told) == {"sourceDirUri", "checkPointUploadUri", "modelUploadUri"}
    assert all("within 0.2 s" in sentence for sentence in told.values())


async def test_outputs_on_nas_are_checked(small_api: ApiPlatform) -> None:
    volume = (await small_api.ask("POST", "/nas-volumes", {"nasVolumeName": "v"}))["nasVolume"]["nasVolumeId"]
    root = small_api.home.volumes / volume
    (root / "file").write_text("x")
    (root / "away").symlink_to("/tmp")
    body = await good_training(small_api)
    for path, is_good in (("new/deep", True), ("", True), ("file", False), ("file/below", False), ("away/x", False)):
        answer = await small_api.call("POST", "/trainings", body | {"modelUploadUri": f"nas://{volume}:/{path}"})
        if is_good:
            assert answer.status_code == 200, answer.text
        else:
            assert set(faults_of(answer)) == {"modelUploadUri"}


async def test_an_experiment_is_added_in_place_or_not_at_all(api: ApiPlatform) -> None:
    body = await good_training(api, experimentName="in place", experimentDescription="made with it")
    bad = await api.call("POST", "/trainings", body | {"imageId": "none"})
    assert set(faults_of(bad)) == {"imageId"}
    assert (await api.ask("GET", "/experiments"))["experimentList"] == []
    first = (await api.ask("POST", "/trainings", body))["training"]
    again = (await api.ask("POST", "/trainings", body))["training"]
    assert first["experiment"]["experimentId"] == again["experiment"]["experimentId"]
    [experiment] = (await api.ask("GET", "/experiments"))["experimentList"]
    assert (experiment["experimentName"], experiment["description"]) == ("in place", "made with it")
    both = body | {"experimentId": experiment["experimentId"]}
    assert set(faults_of(await api.call("POST", "/trainings", both))) == {"experimentName"}


async def test_two_that_add_one_experiment_at_once_share_it(api: ApiPlatform) -> None:
    body = await good_training(api, experimentName="shared")
    answers = await asyncio.gather(*(api.call("POST", "/trainings", body) for _ in range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8, [answer.text for answer in answers]
    assert len({answer.json()["training"]["experiment"]["experimentId"] for answer in answers}) == 1


async def test_a_failed_experiment_takes_no_trainings(small_api: ApiPlatform) -> None:
    made = (await small_api.ask("POST", "/experiments", {"experimentName": "broken"}))["experiment"]
    place = EventFiles(small_api.home.tensorboard).of_experiment(made["experimentId"])
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("a file where the directory should be")
    await small_api.reconcile("experiment")
    for chosen in ({"experimentId": made["experimentId"]}, {"experimentName": "broken"}):
        told = faults_of(await small_api.call("POST", "/trainings", await good_training(small_api, **chosen)))
        assert list(told) == list(chosen)
        assert "retry" in next(iter(told.values()))


@pytest.fixture
async def narrow(database_url: str, tmp_path: Path) -> AsyncIterator[ApiPlatform]:
    """A platform with quotas."""
    quotas = {"active_trainings": 2, "experiments": 1}
    async with api_platform(database_url, tmp_path / "home", quotas=quotas) as platform:
        yield platform


async def test_quotas_are_kept(narrow: ApiPlatform) -> None:
    body = await good_training(narrow, experimentName="only")
    first = (await narrow.ask("POST", "/trainings", body))["training"]
    refused = await narrow.call("POST", "/experiments", {"experimentName": "second"})
    assert refused.status_code == 409
    assert "at most 1 experiments" in refused.json()["header"]["resultMessage"]
    told = faults_of(await narrow.call("POST", "/trainings", body | {"experimentName": "second"}))
    assert set(told) == {"experimentName"}
    await narrow.ask("POST", "/trainings", body)
    refused = await narrow.call("POST", "/trainings", body)
    assert refused.status_code == 409
    assert refused.json()["faults"] == [{"field": "project", "message": refused.json()["header"]["resultMessage"]}]
    told = faults_of(await narrow.call("POST", "/trainings", body | {"imageId": "none", "timeoutMinutes": 0}))
    assert set(told) == {"project", "imageId", "timeoutMinutes"}
    await narrow.ask("PUT", f"/trainings/{first['trainingId']}/stop")
    await narrow.reconcile("training")
    await narrow.ask("POST", "/trainings", body)
    assert (await (await narrow.neighbour()).call("GET", "/trainings")).json()["trainingList"] == []


async def test_eight_at_once_keep_the_quota(narrow: ApiPlatform) -> None:
    body = await good_training(narrow)
    answers = await asyncio.gather(*(narrow.call("POST", "/trainings", body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers)[:2] == [200, 200]
    assert (await narrow.ask("GET", "/trainings"))["paging"]["totalCount"] == 2
