"""What notebooks take and refuse over the API, on both databases; nothing is built or run."""

from __future__ import annotations

from typing import Any

import pytest
from api_platform import ApiPlatform, faults_of

from modelyard.resources.notebooks.schemas import NotebookCreate

IMAGE = "Ubuntu 22.04 CPU Python Notebook"


def body(**changes: Any) -> dict[str, Any]:
    return {
        "notebookName": "first",
        "imageId": IMAGE,
        "flavorId": "m2.c1m2",
        "bootStorageSize": 10,
        "dataStorageSize": 2040,
    } | changes


async def made(api: ApiPlatform, **changes: Any) -> dict[str, Any]:
    return (await api.ask("POST", "/notebooks", body(**changes)))["notebook"]


async def test_a_notebook_shows_all_that_was_asked_for(api: ApiPlatform) -> None:
    volume = (await api.ask("POST", "/nas-volumes", {"nasVolumeName": "shared"}))["nasVolume"]["nasVolumeId"]
    mounts = [{"mountDirectoryName": "data", "nasUri": f"nas://{volume}:/pictures"}]
    tags = [{"tagKey": "team", "tagValue": "vision"}]
    notebook = await made(api, description="try", tagList=tags, nasMountList=mounts, idleStopMinutes=30)
    assert notebook["notebookStatusCode"] == "CREATE_REQUESTED"
    assert notebook["image"]["frameworkCode"] == "PYTHON"
    assert notebook["image"]["pythonVersion"] == "3.11"
    assert (notebook["bootStorageSize"], notebook["dataStorageSize"]) == (10, 2040)
    assert notebook["nasMountList"] == mounts
    assert notebook["tagList"] == tags
    assert notebook["idleStopMinutes"] == 30
    assert "url" not in notebook, "nothing can be opened yet"
    listed = await api.ask("GET", "/notebooks?notebookNameList=first&page=1&limit=10")
    assert [each["notebookId"] for each in listed["notebookList"]] == [notebook["notebookId"]]
    assert listed["paging"]["totalCount"] == 1


async def test_all_that_is_wrong_is_told_at_once(small_api: ApiPlatform) -> None:
    api = small_api
    neighbour = await api.neighbour()
    foreign = (await neighbour.ask("POST", "/nas-volumes", {"nasVolumeName": "theirs"}))["nasVolume"]["nasVolumeId"]
    mounts = [
        {"mountDirectoryName": "a", "nasUri": f"nas://{foreign}:/"},
        {"mountDirectoryName": "b", "nasUri": "obs://127.0.0.1/v1/AUTH_x/y"},
    ]
    wrong = body(imageId="Ubuntu 22.04 CPU Python Training", flavorId="none", nasMountList=mounts)
    faults = faults_of(await api.call("POST", "/notebooks", wrong))
    assert set(faults) == {"imageId", "flavorId", "nasMountList[0].nasUri", "nasMountList[1].nasUri"}
    assert "is not for notebooks" in faults["imageId"]
    assert IMAGE in faults["imageId"]
    assert foreign in faults["nasMountList[0].nasUri"]
    assert "in this project" in faults["nasMountList[0].nasUri"]
    assert (await api.ask("GET", "/notebooks"))["notebookList"] == []


WRONG: list[tuple[str, Any]] = [
    ("bootStorageSize", 15),
    ("dataStorageSize", 2050),
    ("dataStorageSize", 0),
    ("bootStorageSize", "much"),
    ("notebookName", ""),
    ("tagList", [{"tagKey": str(number)} for number in range(11)]),
    ("idleStopMinutes", 0),
    ("nasMountList", [{"mountDirectoryName": "../up", "nasUri": "nas://x:/"}]),
    ("nasMountList", [{"mountDirectoryName": "x", "nasUri": "nas://x:/"}] * 2),
]


async def test_each_limit_is_named_by_its_field(small_api: ApiPlatform) -> None:
    for field, value in WRONG:
        faults = faults_of(await small_api.call("POST", "/notebooks", body(**{field: value})))
        assert any(name.startswith(field) for name in faults), (field, value, faults)


async def test_others_do_not_see_it(small_api: ApiPlatform) -> None:
    notebook_id = (await made(small_api))["notebookId"]
    neighbour = await small_api.neighbour()
    for method, tail in (
        ("GET", ""), ("PUT", "/stop"), ("PUT", "/start"), ("DELETE", ""), ("GET", "/usage"), ("GET", "/logs"),
        ("GET", "/events"),
    ):  # fmt: skip
        assert (await neighbour.call(method, f"/notebooks/{notebook_id}{tail}")).status_code == 404
    assert (await neighbour.ask("GET", "/notebooks"))["notebookList"] == []


async def test_wishes_follow_each_other(api: ApiPlatform) -> None:
    notebook_id = (await made(api))["notebookId"]
    await api.reconcile("notebook")

    async def state() -> tuple[str, str | None]:
        notebook = (await api.ask("GET", f"/notebooks/{notebook_id}"))["notebook"]
        return notebook["notebookStatusCode"], notebook.get("statusReason")

    assert await state() == ("CREATE_IN_PROGRESS", "IMAGE_BUILD")
    resize = await api.call("PUT", f"/notebooks/{notebook_id}/resize", {"flavorId": "m2.c2m4"})
    assert resize.status_code == 409
    assert "stop it first" in resize.json()["header"]["resultMessage"]
    for _ in range(2):
        await api.ask("PUT", f"/notebooks/{notebook_id}/stop")
    assert (await state())[0] == "STOP_IN_PROGRESS"
    early = await api.call("PUT", f"/notebooks/{notebook_id}/start")
    assert early.status_code == 409
    assert "wait until it is STOPPED" in early.json()["header"]["resultMessage"]
    await api.reconcile("notebook")
    assert (await state())[0] == "STOPPED"
    await api.ask("PUT", f"/notebooks/{notebook_id}/stop")
    assert (await state())[0] == "STOPPED"
    await api.ask("PUT", f"/notebooks/{notebook_id}/resize", {"flavorId": "m2.c2m4"})
    resized = (await api.ask("GET", f"/notebooks/{notebook_id}"))["notebook"]
    assert resized["flavor"]["name"] == "m2.c2m4"
    for _ in range(2):
        await api.ask("PUT", f"/notebooks/{notebook_id}/start")
    await api.reconcile("notebook")
    assert await state() == ("START_IN_PROGRESS", "IMAGE_BUILD")
    assert (await api.call("GET", f"/notebooks/{notebook_id}/usage")).status_code == 409
    for _ in range(2):
        await api.ask("DELETE", f"/notebooks/{notebook_id}")
    assert (await state())[0] == "DELETE_IN_PROGRESS"
    for verb in ("start", "stop"):
        assert (await api.call("PUT", f"/notebooks/{notebook_id}/{verb}")).status_code == 409
    history = [
        each["newStatusCode"] for each in (await api.ask("GET", f"/notebooks/{notebook_id}/events"))["eventList"]
    ]
    assert history[0] == "CREATE_REQUESTED"
    assert history[-1] == "DELETE_IN_PROGRESS"
    await api.reconcile("notebook")
    assert (await api.call("GET", f"/notebooks/{notebook_id}")).status_code == 404


async def test_the_core_type_stays(small_api: ApiPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook_id = (await made(small_api))["notebookId"]
    await small_api.ask("PUT", f"/notebooks/{notebook_id}/stop")
    await small_api.reconcile("notebook")
    small_api.home.flavors_file.write_text("- {name: g1.big, vcpus: 4, ram: 8192, gpus: 1}\n")
    monkeypatch.setattr(small_api.services.flavors, "_has_gpu", True)
    answer = await small_api.call("PUT", f"/notebooks/{notebook_id}/resize", {"flavorId": "g1.big"})
    assert answer.status_code == 400, answer.text


async def test_name_description_and_tags_can_change(small_api: ApiPlatform) -> None:
    notebook_id = (await made(small_api, idleStopMinutes=5))["notebookId"]
    change = {"notebookName": "second", "description": "new", "tagList": [], "idleStopMinutes": 0}
    changed = (await small_api.ask("PUT", f"/notebooks/{notebook_id}", change))["notebook"]
    assert (changed["notebookName"], changed["description"]) == ("second", "new")
    assert "idleStopMinutes" not in changed
    faults = faults_of(await small_api.call("PUT", f"/notebooks/{notebook_id}", {"notebookName": ""}))
    assert "notebookName" in faults


def test_sizes_on_both_ends() -> None:
    for size in (10, 2040):
        assert NotebookCreate.model_validate(body(bootStorageSize=size)).boot_storage_size == size
