"""What can't be deleted says what stands in the way: by kind, id and name, and no more of it than fits."""

from __future__ import annotations

from typing import Any

from api_platform import ApiPlatform, good_training

from modelyard.kit.errors import MAX_BLOCKERS, Blocked, Blocker
from modelyard.resources.trainings.lifecycle import TrainingState
from modelyard.resources.trainings.table import TrainingRow


async def created(api: ApiPlatform, **changes: Any) -> dict[str, Any]:
    return (await api.ask("POST", "/trainings", await good_training(api, **changes)))["training"]


async def complete(api: ApiPlatform, training_id: str) -> None:
    async with api.database.write() as session:
        row = await session.get_one(TrainingRow, training_id)
        row.state = TrainingState.COMPLETE.value


async def test_an_experiment_names_its_trainings(api: ApiPlatform) -> None:
    made = [await created(api, trainingName=f"t{number}", experimentName="e") for number in range(3)]
    experiment_id = made[0]["experiment"]["experimentId"]
    await api.reconcile("experiment")
    answer = await api.call("DELETE", f"/experiments/{experiment_id}")
    assert answer.status_code == 409
    content = answer.json()
    assert content["blockerList"] == [
        {"resourceType": "training", "id": item["trainingId"], "name": item["trainingName"]} for item in made
    ]
    assert content["hasMoreBlockers"] is False
    assert "'t0', 't1' and 't2'" in content["header"]["resultMessage"]


async def test_a_training_names_its_models(api: ApiPlatform) -> None:
    training = await created(api)
    await complete(api, training["trainingId"])
    await api.put("work/output/saved_model.pb")
    body = {"modelName": "m", "trainingId": training["trainingId"], "modelFormatCode": "TENSORFLOW"}
    model = (await api.ask("POST", "/models", body))["model"]
    answer = await api.call("DELETE", f"/trainings/{training['trainingId']}")
    assert answer.status_code == 409
    assert answer.json()["blockerList"] == [{"resourceType": "model", "id": model["modelId"], "name": "m"}]
    assert answer.json()["header"]["resultCode"] == 409052
    await api.ask("DELETE", f"/models/{model['modelId']}")
    await api.ask("DELETE", f"/trainings/{training['trainingId']}")
    await api.reconcile("training")
    assert (await api.call("GET", f"/trainings/{training['trainingId']}")).status_code == 404


async def test_a_volume_names_the_trainings_that_use_it(api: ApiPlatform) -> None:
    volume = (await api.ask("POST", "/nas-volumes", {"nasVolumeName": "v"}))["nasVolume"]["nasVolumeId"]
    training = await created(api, modelUploadUri=f"nas://{volume}:/out")
    refused = await api.call("DELETE", f"/nas-volumes/{volume}")
    assert refused.status_code == 409
    assert [item["id"] for item in refused.json()["blockerList"]] == [training["trainingId"]]
    await api.ask("PUT", f"/trainings/{training['trainingId']}/stop")
    await api.reconcile("training")
    await api.ask("DELETE", f"/nas-volumes/{volume}")


def test_many_are_cut_short() -> None:
    blockers = [Blocker("training", str(number), f"t{number}") for number in range(MAX_BLOCKERS + 1)]
    blocked = Blocked("still used by {blockers}; delete them", blockers)
    assert len(blocked.blockers) == MAX_BLOCKERS
    assert blocked.has_more_blockers
    assert blocked.message == "still used by 't0', 't1', 't2', 't3', 't4' and more; delete them"
