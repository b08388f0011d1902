"""The main job through both clients: upload, train, model, endpoint, prediction."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from small_platform import IMAGE_NAME, OUTPUT, SmallPlatform

from modelyard.sdk import facade
from modelyard.sdk.blocking import Blocking
from modelyard.sdk.client import AsyncClient, Client
from modelyard.sdk.connection import Connection
from modelyard.sdk.errors import WaitFailed


def test_the_main_job(client: Client, platform: SmallPlatform, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('hello')")
    place = client.storage.upload(tmp_path, "demo/source")
    assert place.startswith("obs://127.0.0.1:")
    experiment = client.experiments.create("first", tags={"team": "a"})
    training = client.trainings.create(
        "first run",
        experiment="first",
        image=IMAGE_NAME,
        flavor="m2.c4m8",
        source=place,
        entry_point="train.py",
        hyperparameters={"epochs": 3, "rate": 0.5, "shuffle": True},
        datasets={"train": "demo/data/train.csv"},
        model_upload="demo/output",
    )
    assert training.experiment is not None
    assert training.experiment.id == experiment.id
    assert [item.parameter_value for item in training.hyperparameter_list] == ["3", "0.5", "true"]
    assert training.dataset_list[0].data_uri.endswith("/v1/AUTH_tenant/demo/data/train.csv")
    states: list[str] = []
    done = client.trainings.wait("first run", progress=lambda seen: states.append(seen.training_status_code))
    assert states == ["CREATE_IN_PROGRESS", "RUNNING", "COMPLETE"]
    assert done.exit_code == 0
    assert "".join(client.trainings.logs(training.id, follow=True)) == OUTPUT
    assert client.trainings.events("first run")[0].new_status_code == "CREATE_REQUESTED"

    client.models.create("iris", training="first run")
    client.endpoints.create("iris", models={"iris": "/inference"}, flavor="m2.c2m4")
    endpoint = client.endpoints.wait("iris", timeout_seconds=20)
    assert endpoint.endpoint_stage_list[0].endpoint_stage_status_code == "ACTIVE"
    assert client.endpoints.predict("iris", {"instances": [[1, 2], [3, 4]]}) == {"predictions": [3, 7]}
    assert "x-nhn-authorization" not in platform.headers[-1]

    stage = client.stages.create("blue", endpoint="iris", models="iris", flavor="m2.c2m4")
    assert client.stages.wait("iris/blue").id == stage.id
    assert len(client.stages.models(stage="iris/blue")) == 1
    client.stages.delete("iris/blue")
    client.endpoints.delete("iris", wait=True)
    assert list(client.endpoints.list()) == []


async def test_the_asynchronous_client_does_the_same(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('hello')")
    async with AsyncClient(connection) as client:
        place = await client.storage.upload(tmp_path, "demo/source")
        training = await client.trainings.create(
            "first run",
            new_experiment="first",
            image=IMAGE_NAME,
            flavor="m2.c2m4",
            source=place,
            entry_point="train.py",
            model_upload="demo/output",
        )
        assert (await client.trainings.wait(training.id)).training_status_code == "COMPLETE"
        assert "".join([text async for text in client.trainings.logs(training.id)]) == OUTPUT
        files = await client.storage.download("demo/source", tmp_path / "back")
        assert [file.read_text() for file in files] == ["print('hello')"]
        assert [item.name async for item in client.trainings.iterate()] == ["first run"]


def test_a_failed_wait_tells_why(client: Client) -> None:
    client.trainings.create(
        "broken", image=IMAGE_NAME, flavor="m2.c2m4", source="a/b", entry_point="broken.py", model_upload="a/out"
    )
    with pytest.raises(WaitFailed, match="'broken' ended in FAIL_TRAIN: the script ended with exit code 1") as failure:
        client.trainings.wait("broken")
    assert failure.value.reason == "ScriptFailed"
    assert failure.value.last_log_lines[-1] == "ValueError: no"
    assert client.trainings.get("broken").last_log_lines[-1] == "ValueError: no"


def test_both_clients_have_the_same_methods() -> None:
    plain_groups: list[type[Blocking[object]]] = [
        item for item in vars(facade).values() if inspect.isclass(item) and issubclass(item, Blocking)
    ]
    compared = 0
    for group in plain_groups:
        if group is Blocking:
            continue
        other = getattr(facade, f"Async{group.__name__}")
        wanted = {name for name, _ in inspect.getmembers(other, callable) if not name.startswith("_")}
        have = {name for name in dir(group) if not name.startswith("_")} - {"group_of"}
        assert have == wanted, group.__name__
        compared += 1
    assert compared == 14
