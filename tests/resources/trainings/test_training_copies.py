"""Copying a training, deleting several at once, changing what people read of one; each asked for twice under one key."""

from __future__ import annotations

from typing import Any

from api_platform import ApiPlatform, faults_of, good_training
from sqlalchemy import select

from modelyard.kit.ids import new_id
from modelyard.resources.trainings.lifecycle import TrainingState
from modelyard.resources.trainings.table import TermRow, TrainingRow

LIFE = {"trainingId", "id", "createdDatetime", "updatedDatetime", "tensorboardAccessUri"}
"""What differs between a training and its copy (the address of its TensorBoard holds its id)."""


async def rich_training(api: ApiPlatform) -> dict[str, Any]:
    """A body in which everything is given."""
    return await good_training(
        api,
        trainingName="rich",
        description="with all fields",
        experimentName="e",
        tagList=[{"tagKey": "team", "tagValue": "a"}],
        hyperparameterList=[{"parameterName": "learning rate", "parameterValue": "'0.1\"\n$(x)"}],
        datasetList=[{"datasetName": "train", "dataUri": api.uri("work/source")}],
        checkPointInputUri=api.uri("work/source"),
        checkPointUploadUri=api.uri("work/checkpoints"),
        dataStorageSize=5,
        timeoutMinutes=77,
        useLog=True,
    )


async def create(api: ApiPlatform, body: dict[str, Any]) -> dict[str, Any]:
    return (await api.ask("POST", "/trainings", body))["training"]


async def end(api: ApiPlatform, training_id: str, state: TrainingState = TrainingState.COMPLETE) -> None:
    async with api.database.write() as session:
        row = await session.get_one(TrainingRow, training_id)
        row.state = state.value


async def test_a_copy_is_a_request_that_makes_the_same_training(api: ApiPlatform) -> None:
    original = await create(api, await rich_training(api))
    request = (await api.ask("GET", f"/trainings/{original['trainingId']}/copy"))["trainingRequest"]
    headers = {"Idempotency-Key": "copy-1"}
    copied = (await api.ask("POST", "/trainings", request, headers=headers))["training"]
    assert copied["trainingId"] != original["trainingId"]
    assert {k: v for k, v in copied.items() if k not in LIFE} == {k: v for k, v in original.items() if k not in LIFE}
    again = (await api.ask("GET", f"/trainings/{copied['trainingId']}/copy"))["trainingRequest"]
    assert again == request
    assert (await api.ask("POST", "/trainings", request, headers=headers))["training"]["trainingId"] == copied[
        "trainingId"
    ]
    other = await api.call("POST", "/trainings", request | {"trainingName": "other"}, headers=headers)
    assert other.status_code == 409


async def test_a_copy_shows_nothing_to_neighbours(small_api: ApiPlatform) -> None:
    original = await create(small_api, await good_training(small_api))
    neighbour = await small_api.neighbour()
    path = f"/trainings/{original['trainingId']}/copy"
    assert (await neighbour.call("GET", path)).status_code == 404
    assert (await small_api.call("GET", f"/trainings/{new_id()}/copy")).status_code == 404


async def test_several_are_deleted_each_by_its_own_rules(api: ApiPlatform) -> None:
    body = await rich_training(api)
    ended, running, used, foreign = [(await create(api, body))["trainingId"] for _ in range(4)]
    for training_id in (ended, used):
        await end(api, training_id)
    await api.put("work/output/saved_model.pb")
    model = {"modelName": "m", "trainingId": used, "modelFormatCode": "TENSORFLOW"}
    model_id = (await api.ask("POST", "/models", model))["model"]["modelId"]
    neighbour = await api.neighbour()
    asked = {"trainingIdList": [used, ended, running, "unknown", ended]}
    headers = {"Idempotency-Key": "delete-1"}
    first = await api.ask("POST", "/trainings/bulk-delete", asked, headers=headers)
    assert first["header"] == {"isSuccessful": True, "resultCode": 1, "resultMessage": "3 of 4 could not be deleted"}
    results = {item["id"]: item for item in first["resultList"]}
    assert list(results) == [used, ended, running, "unknown"]
    assert {id: item["resultCode"] for id, item in results.items()} == {
        used: 409052,
        ended: 0,
        running: 409050,
        "unknown": 404001,
    }
    assert results[used]["blockerList"] == [{"resourceType": "model", "id": model_id, "name": "m"}]
    await api.reconcile("training")
    async with api.database.read() as session:
        assert await session.get(TrainingRow, ended) is None
        left = await session.scalars(select(TermRow.training_id).distinct())
        assert set(left) == {used, running, foreign}
    assert await api.ask("POST", "/trainings/bulk-delete", asked, headers=headers) == first
    assert (
        await api.call("POST", "/trainings/bulk-delete", {"trainingIdList": [foreign]}, headers=headers)
    ).status_code == 409
    fresh = await api.ask("POST", "/trainings/bulk-delete", {"trainingIdList": [ended]})
    assert fresh["resultList"][0]["resultCode"] == 404001
    theirs = await neighbour.ask("POST", "/trainings/bulk-delete", {"trainingIdList": [foreign]})
    assert theirs["resultList"][0]["resultCode"] == 404001
    assert (await api.call("GET", f"/trainings/{foreign}")).status_code == 200
    for wrong in (
        {},
        {"trainingIdList": []},
        {"trainingIdList": [f"{n}" for n in range(101)]},
        {"trainingIdList": ["\0"]},
    ):
        assert faults_of(await api.call("POST", "/trainings/bulk-delete", wrong))


async def test_changes_are_found_by_search_at_once(api: ApiPlatform) -> None:
    training = await create(api, await rich_training(api))
    path = f"/trainings/{training['trainingId']}"
    change = {
        "trainingName": "renamed",
        "description": "now about zebras",
        "tagList": [{"tagKey": "k", "tagValue": "v"}],
    }
    changed = (await api.ask("PUT", path, change))["training"]
    assert (changed["trainingName"], changed["description"]) == ("renamed", "now about zebras")

    async def found(**params: str) -> int:
        return (await api.ask("GET", "/trainings", params=params))["paging"]["totalCount"]

    assert [await found(search="zeb"), await found(search="rich"), await found(tag="k=v"), await found(tag="team")] == [
        1,
        0,
        1,
        0,
    ]
    kept = (await api.ask("PUT", path, {}))["training"]
    assert (kept["trainingName"], kept["description"], kept["tagList"]) == (
        "renamed",
        "now about zebras",
        change["tagList"],
    )
    cleared = (await api.ask("PUT", path, {"description": None, "tagList": []}))["training"]
    assert "description" not in cleared
    assert cleared["tagList"] == []
    for wrong in (
        {"trainingName": ""},
        {"trainingName": "x" * 51},
        {"description": "x" * 256},
        {"tagList": [{"tagKey": ""}]},
    ):
        assert len(faults_of(await api.call("PUT", path, wrong))) == 1
