"""The main job on each framework, as a user does it: upload, train, model, endpoint, prediction; then all of it away again.

The tests of a framework share one run of the job and stand in the order in which a user would look; the last one deletes everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from journey_iris import Flowers, ask, split_flowers, write_source
from journey_platform import RunningPlatform, eventually
from journey_processes import process

from modelyard.resources.endpoints.schemas import EndpointOut
from modelyard.resources.trainings.schemas import TrainingOut
from modelyard.sdk.errors import Conflict

pytestmark = pytest.mark.slow

IMAGES = {
    ("TENSORFLOW", "2.15"): "Ubuntu 22.04 CPU TensorFlow 2.15 Training",
    ("TENSORFLOW", "2.21"): "Ubuntu 22.04 CPU TensorFlow 2.21 Training",
    ("PYTORCH", "2.13"): "Ubuntu 22.04 CPU PyTorch 2.13 Training",
}
FLAVOR = "m2.c1m2"
TRAIN_SECONDS = 240.0
SERVE_SECONDS = 180.0


@dataclass(frozen=True)
class Job:
    """A framework's run of the main job."""

    platform: RunningPlatform
    flowers: Flowers
    framework: str
    name: str
    training: TrainingOut
    endpoint: EndpointOut

    @property
    def base_url(self) -> str:
        """The stage's URL over HTTPS."""
        return f"https://{self.endpoint.endpoint_stage_list[0].apigw_stage_url}"

    @property
    def plain_base_url(self) -> str:
        """The same over HTTP."""
        stage = self.endpoint.endpoint_stage_list[0].apigw_stage_url
        return f"http://127.0.0.1:{self.platform.http_port}/{stage.partition('/')[2]}"

    def log(self) -> str:
        """All that the training has printed."""
        return "".join(self.platform.client.trainings.logs(self.training.id))


@pytest.fixture(scope="session")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Flowers:
    return split_flowers(tmp_path_factory.mktemp("flowers"))


@pytest.fixture(scope="module", params=IMAGES, ids=lambda key: "-".join(key))
def job(
    request: pytest.FixtureRequest,
    platform: RunningPlatform,
    flowers: Flowers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Job]:
    framework, version = request.param
    client = platform.client
    name = f"iris-{framework.lower()}-{version}"
    source = write_source(framework, version, tmp_path_factory.mktemp(name))
    client.storage.upload(source, f"main/{name}/source")
    client.storage.upload(flowers.directory, f"main/{name}/data")
    training = train(platform, name, IMAGES[request.param])
    client.models.create(name, training=training.id)
    client.endpoints.create(name, models={name: "/inference"}, flavor=FLAVOR)
    endpoint = client.endpoints.wait(name, timeout_seconds=SERVE_SECONDS)
    yield Job(platform, flowers, framework, name, training, endpoint)


def test_the_training_is_complete(job: Job) -> None:
    training = job.training
    assert training.training_status_code == "COMPLETE"
    assert training.exit_code == 0
    assert training.started_datetime is not None and training.finished_datetime is not None
    assert 0 < training.elapsed_time_seconds <= TRAIN_SECONDS
    assert job.endpoint.endpoint_status_code == "ACTIVE"
    assert job.endpoint.endpoint_stage_list[0].deploy_status == "ACTIVE"


def test_predictions_are_right_over_https_and_http(job: Job) -> None:
    model = job.endpoint.endpoint_stage_list[0].endpoint_model_list[0]
    assert model.apigw_endpoint_uri == f"{job.base_url}/inference"
    ca_file = job.platform.credentials["caFile"]
    for url in (model.apigw_endpoint_uri, f"{job.plain_base_url}/inference"):
        answer = ask(url, {"instances": job.flowers.measures}, ca_file)
        assert answer.status_code == 200, answer.text
        assert job.flowers.accuracy(answer.json()["predictions"]) >= 0.9


def test_the_protocols_own_paths_work(job: Job) -> None:
    ca_file = job.platform.credentials["caFile"]
    first = ask(f"{job.base_url}/v1/models/{job.name}:predict", {"instances": job.flowers.measures}, ca_file)
    assert first.status_code == 200, first.text
    values = [value for row in job.flowers.measures for value in row]
    tensor = {"name": "measures", "shape": [len(job.flowers.measures), 4], "datatype": "FP32", "data": values}
    if job.framework == "PYTORCH":
        tensor["name"] = "instances"
    second = ask(f"{job.base_url}/v2/models/{job.name}/infer", {"inputs": [tensor]}, ca_file)
    assert second.status_code == 200, second.text
    output = second.json()["outputs"][0]
    rows = [output["data"][begin : begin + 3] for begin in range(0, len(output["data"]), 3)]
    assert output["shape"] == [len(rows), 3]
    assert job.flowers.accuracy(rows) >= 0.9


def test_bad_questions_are_answered_in_words(job: Job) -> None:
    ca_file = job.platform.credentials["caFile"]
    for body in ({"nothing": 1}, {"instances": [["a", "b", "c", "d"]]}, {"instances": [[1.0, 2.0]]}):
        answer = ask(f"{job.base_url}/inference", body, ca_file)
        # An archive has a handler of the user's own: what it does not understand, it fails at.
        expected = 500 if job.framework == "PYTORCH" else 400
        assert answer.status_code == expected, f"{body}: {answer.status_code} {answer.text}"
        assert answer.json()["error"]


def test_tensorboard_files_are_on_the_host(job: Job) -> None:
    directory = job.platform.home / "tensorboard" / str(job.training.experiment.experiment_id) / job.training.id
    assert list(directory.rglob("events.out.tfevents.*")), sorted(directory.rglob("*"))


def test_checkpoints_and_model_are_in_the_store(job: Job) -> None:
    listed = [item.name or "" for item in job.platform.client.storage.list(f"main/{job.name}/checkpoints")]
    assert any("cp-0050" in name or "cp-0060" in name for name in listed), listed
    model = [item.name or "" for item in job.platform.client.storage.list(f"main/{job.name}/model")]
    wanted = "config/config.properties" if job.framework == "PYTORCH" else "saved_model.pb"
    assert any(name.endswith(f"model/{wanted}") for name in model), model


def test_events_tell_the_whole_history_in_order(job: Job) -> None:
    events = job.platform.client.trainings.events(job.training.id)
    assert events[0].old_status_code is None
    for earlier, later in pairwise(events):
        assert later.old_status_code == earlier.new_status_code
        assert later.time >= earlier.time
    states = list(dict.fromkeys(event.new_status_code for event in events))
    assert states == ["CREATE_REQUESTED", "CREATE_IN_PROGRESS", "RUNNING", "COMPLETE_IN_PROGRESS", "COMPLETE"]
    reasons = [event.status_reason for event in events if event.new_status_code == "CREATE_IN_PROGRESS"]
    # A step that takes no time may pass between two looks.
    assert reasons[:1] == ["STARTING"] or "IMAGE_BUILD" in reasons, reasons
    assert {"FETCHING", "INSTALLING"} & set(reasons), reasons
    stage = job.endpoint.endpoint_stage_list[0]
    states = list(dict.fromkeys(event.new_status_code for event in job.platform.client.stages.events(stage.id)))
    assert states == ["CREATE_REQUESTED", "CREATE_IN_PROGRESS", "DEPLOY_IN_PROGRESS", "ACTIVE"]


def test_logs_are_kept_and_searchable(job: Job) -> None:
    text = job.log()
    assert "requirements" in text
    assert re.search(r"(?i)accuracy", text)
    found = job.platform.client.logs.search
    mine = f'category:"easymaker.training" AND logType:"NHNCloud\\-AIEasyMaker" AND trainingId:"{job.training.id}"'

    def is_all_there() -> bool:
        return found(f"{mine} AND body:accuracy").total_count > 0 and found(mine).total_count >= _line_count(text)

    eventually(is_all_there, f"the lines are in the log store ({found(mine).total_count} of {_line_count(text)})")
    line = found(f"{mine} AND body:accuracy").log_list[0]
    assert line["easymakerAppKey"] == job.platform.credentials["appKey"]
    assert line["logLevel"] == "INFO"
    assert found(f"{mine} AND NOT logLevel:INFO AND body:accuracy").total_count == 0
    assert found(f'{mine} AND category:"easymaker.inference"').total_count == 0


def test_requirements_are_installed_once(job: Job) -> None:
    again = train(job.platform, job.name, job.training.image.image_id, run="again", epochs=1)
    text = "".join(job.platform.client.trainings.logs(again.id))
    assert "layer ready (cached)" in text, text
    job.platform.client.trainings.delete(again.id, wait=True, timeout_seconds=60.0)


def test_deletes_in_the_right_order_leave_nothing(job: Job) -> None:
    client, platform = job.platform.client, job.platform
    for delete, key in (
        (client.experiments.delete, job.name),
        (client.trainings.delete, job.training.id),
        (client.models.delete, job.name),
    ):
        with pytest.raises(Conflict):
            delete(key)
    model_id = job.endpoint.endpoint_stage_list[0].endpoint_model_list[0].endpoint_model_id
    [replica] = platform.instances(model_id)
    supervisor = process(platform.supervisor_pid(replica))
    assert supervisor is not None
    before = _sockets(platform.home)
    client.endpoints.delete(job.endpoint.id, wait=True, timeout_seconds=120.0)
    client.models.delete(job.name)
    client.trainings.delete(job.training.id, wait=True, timeout_seconds=60.0)
    client.experiments.delete(job.name)

    assert platform.instances(model_id) == []
    eventually(lambda: not platform.instances(job.training.id), "the training's instance is removed")
    assert process(supervisor.pid) != supervisor
    ids = (model_id, job.training.id, job.endpoint.endpoint_stage_list[0].id)
    rows = platform.status()
    assert not [row for row in rows if row["name"].startswith(ids)], rows
    for file in ("routes.json", "wanted.json"):  # upstreams stay a while, for requests that are on their way
        text = (platform.home / "gateway" / file).read_text()
        assert not [each for each in ids if each in text], file
    assert ask(f"{job.plain_base_url}/inference", {"instances": []}, "").status_code == 404
    assert _sockets(platform.home) < before, "its sockets are gone; those of others stay"


def train(platform: RunningPlatform, name: str, image: str, run: str = "", epochs: int = 60) -> TrainingOut:
    """A training of the job's script, run to its end. It makes its experiment in place."""
    client = platform.client
    training = client.trainings.create(
        f"{name}-{run}" if run else name,
        new_experiment=name,
        image=image,
        flavor=FLAVOR,
        source=f"main/{name}/source",
        entry_point="train.py",
        datasets={"train": f"main/{name}/data"},
        hyperparameters={"epochs": epochs, "batch_size": 16, "learning_rate": 0.01, "model_name": name},
        model_upload=f"main/{name}/model{run}",
        checkpoint_upload=f"main/{name}/checkpoints{run}",
        timeout_minutes=10,
        use_log=True,
    )
    return client.trainings.wait(training.id, timeout_seconds=TRAIN_SECONDS)


def _line_count(text: str) -> int:
    return len([line for line in text.splitlines() if line.rpartition("\r")[2].strip()])


def _sockets(home: Path) -> set[str]:
    """Sockets that instances serve on, by the directory that holds them."""
    return {path.parent.name for path in (home / "compute/run").rglob("*.sock")}
