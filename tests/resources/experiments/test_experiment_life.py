"""Experiments: their states, what can fail, trying again, deleting, and their list (mission rows E1 to E6)."""

from __future__ import annotations

from typing import Any

import pytest
from api_platform import ApiPlatform, faults_of, good_training

from modelyard.resources.experiments.lifecycle import ExperimentState
from modelyard.resources.metrics.model import EventFiles


async def created(api: ApiPlatform, name: str = "e", **fields: Any) -> str:
    return (await api.ask("POST", "/experiments", {"experimentName": name, **fields}))["experiment"]["experimentId"]


async def shown(api: ApiPlatform, experiment_id: str) -> dict[str, Any]:
    return (await api.ask("GET", f"/experiments/{experiment_id}"))["experiment"]


def test_the_states_are_those_of_the_guide() -> None:
    guide = """CREATE IN PROGRESS, CREATE RESOURCE IN PROGRESS, CREATE EXPERIMENT IN PROGRESS, ACTIVE, FAILED TO CREATE RESOURCE,
        FAILED TO CREATE EXPERIMENT"""
    assert {word.strip().replace(" ", "_") for word in guide.split(",")} == set(ExperimentState)


async def test_a_creation_goes_through_its_steps(api: ApiPlatform) -> None:
    experiment_id = await created(api, description="d")
    assert (await shown(api, experiment_id))["experimentStatusCode"] == "CREATE_IN_PROGRESS"
    refused = await api.call("DELETE", f"/experiments/{experiment_id}")
    assert refused.status_code == 409
    assert "being created" in refused.json()["header"]["resultMessage"]
    await api.reconcile("experiment")
    experiment = await shown(api, experiment_id)
    assert experiment["experimentStatusCode"] == "ACTIVE"
    assert "statusReason" not in experiment
    place = EventFiles(api.home.tensorboard).of_experiment(experiment_id)
    assert list(place.iterdir()) == []
    assert (await api.call("PUT", f"/experiments/{experiment_id}/retry")).status_code == 409


@pytest.mark.parametrize("step", ["RESOURCE", "EXPERIMENT"])
async def test_a_failed_step_says_why_and_is_tried_again(api: ApiPlatform, step: str) -> None:
    experiment_id = await created(api)
    place = EventFiles(api.home.tensorboard).of_experiment(experiment_id)
    place.parent.mkdir(parents=True, exist_ok=True)
    if step == "RESOURCE":
        place.write_text("a file where the directory should be")
    else:
        (place / ".writable").mkdir(parents=True)
    await api.reconcile("experiment")
    failed = await shown(api, experiment_id)
    assert failed["experimentStatusCode"] == f"FAILED_TO_CREATE_{step}"
    assert failed["statusReason"]
    assert "TensorBoard logs" in failed["statusMessage"]
    await api.ask("PUT", f"/experiments/{experiment_id}/retry")
    await api.reconcile("experiment")
    assert (await shown(api, experiment_id))["experimentStatusCode"] == failed["experimentStatusCode"]
    if step == "RESOURCE":
        place.unlink()
    else:
        (place / ".writable").rmdir()
    retried = (await api.ask("PUT", f"/experiments/{experiment_id}/retry"))["experiment"]
    assert retried["experimentStatusCode"] == "CREATE_IN_PROGRESS"
    assert "statusMessage" not in retried
    await api.reconcile("experiment")
    assert (await shown(api, experiment_id))["experimentStatusCode"] == "ACTIVE"


async def test_a_deletion_takes_the_logs_along_and_frees_the_name(api: ApiPlatform) -> None:
    experiment_id = await created(api)
    await api.reconcile("experiment")
    place = EventFiles(api.home.tensorboard).of_experiment(experiment_id)
    (place / "left").write_text("x")
    await api.ask("DELETE", f"/experiments/{experiment_id}")
    assert (await api.call("GET", f"/experiments/{experiment_id}")).status_code == 404
    again = await created(api)  # before the loop has done its part
    assert [item["experimentId"] for item in (await api.ask("GET", "/experiments"))["experimentList"]] == [again]
    await api.reconcile("experiment")
    assert not place.exists()
    assert (await shown(api, again))["experimentStatusCode"] == "ACTIVE"


async def test_several_are_deleted_and_those_with_trainings_stay(api: ApiPlatform) -> None:
    empty, used = await created(api, "empty"), await created(api, "used")
    training = (await api.ask("POST", "/trainings", await good_training(api, experimentId=used)))["training"]
    await api.reconcile("experiment")
    tab = await api.ask("GET", "/trainings", params={"experimentId": used})
    assert [item["trainingId"] for item in tab["trainingList"]] == [training["trainingId"]]
    content = await api.ask("POST", "/experiments/bulk-delete", {"experimentIdList": [used, empty]})
    assert [item["resultCode"] for item in content["resultList"]] == [409041, 0]
    assert content["resultList"][0]["blockerList"][0]["id"] == training["trainingId"]
    assert [item["name"] for item in (await api.ask("GET", "/experiments"))["experimentList"]] == ["used"]


async def test_the_list_is_filtered_sorted_and_paged(api: ApiPlatform) -> None:
    ids = [await created(api, name) for name in ("b one", "a two", "C Three", "d_four")]
    await api.reconcile("experiment")
    await created(api, "e pending")

    async def names(**params: Any) -> list[str]:
        return [item["name"] for item in (await api.ask("GET", "/experiments", params=params))["experimentList"]]

    assert await names() == ["e pending", "d_four", "C Three", "a two", "b one"]
    assert await names(experimentStatusCodeList="CREATE_IN_PROGRESS") == ["e pending"]
    assert await names(nameContains="THREE") == ["C Three"]
    assert await names(nameContains="_") == ["d_four"]
    assert await names(experimentNameList=["a two", "b one"], sort="experimentName") == ["a two", "b one"]
    assert await names(experimentIdList=ids[0]) == ["b one"]
    assert await names(createdFrom="2020-01-01T00:00:00Z", createdTo="2020-01-02T00:00:00Z") == []
    first = await api.ask("GET", "/experiments", params={"limit": 3})
    assert first["paging"]["totalCount"] == 5
    assert await names(cursor=first["paging"]["nextCursor"]) == ["a two", "b one"]
    assert set(faults_of(await api.call("GET", "/experiments", params={"sort": "x"}))) == {"sort"}
    told = faults_of(await api.call("GET", "/experiments", params={"experimentStatusCodeList": "X"}))
    assert set(told) == {"experimentStatusCodeList"}


async def test_names_and_texts_have_limits(api: ApiPlatform) -> None:
    experiment_id = await created(api, "taken")
    assert (await api.call("POST", "/experiments", {"experimentName": "taken"})).status_code == 409
    for body, field in (
        ({}, "experimentName"),
        ({"experimentName": "x" * 51}, "experimentName"),
        ({"experimentName": "x", "description": "x" * 256}, "description"),
        ({"experimentName": "x", "tagList": [{"tagKey": str(n)} for n in range(11)]}, "tagList"),
    ):
        assert set(faults_of(await api.call("POST", "/experiments", body))) == {field}
    other = await created(api, "other")
    assert (await api.call("PUT", f"/experiments/{other}", {"experimentName": "taken"})).status_code == 409
    changed = await api.ask("PUT", f"/experiments/{experiment_id}", {"experimentName": "n", "description": "new"})
    assert (changed["experiment"]["name"], changed["experiment"]["description"]) == ("n", "new")


async def test_asked_twice_under_one_key_it_is_one(api: ApiPlatform) -> None:
    headers = {"Idempotency-Key": "k"}
    found = [await api.ask("POST", "/experiments", {"experimentName": "once"}, headers=headers) for _ in range(2)]
    assert found[0]["experiment"]["experimentId"] == found[1]["experiment"]["experimentId"]
    assert (await api.call("POST", "/experiments", {"experimentName": "twice"}, headers=headers)).status_code == 409
