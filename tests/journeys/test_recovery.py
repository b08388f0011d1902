"""Whatever part of the platform is killed, at whatever step: the job goes on, ends well, and nothing is started twice."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from journey_iris import ask
from journey_platform import MakePlatform, RunningPlatform, clean_environment, eventually
from journey_scripts import SMALL_FLAVOR, finish, output_of, start_script, upload_script

from modelyard.resources.endpoints.schemas import EndpointOut
from modelyard.resources.trainings.schemas import TrainingOut
from modelyard.runner.manifest import MANIFEST

pytestmark = pytest.mark.slow

SMALL_IMAGE = "Python with a package"
LARGE_REQUIREMENT = "numpy==2.2.6\n"
SERVE_SECONDS = 180.0
PAYLOAD_BYTES = 192 * 2**20
"""So much is fetched and uploaded that a kill meets the transfer."""

DOUBLER = """
import sys, torch
class Doubler(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2
torch.jit.script(Doubler()).save(sys.argv[1])
"""

# Says each start of the script; leaves the model that it was given, and ballast that makes the upload last.
LONG_JOB = """
    import os, shutil, time
    from pathlib import Path
    print("script started", flush=True)
    data, model = Path(os.environ["EM_DATASET_MODEL"]), Path(os.environ["EM_MODEL_DIR"])
    time.sleep(6)
    shutil.copy(data / "model.pt", model / "model.pt")
    shutil.copy(data / "ballast", Path(os.environ["EM_CHECKPOINT_DIR"]) / "ballast")
    print("script ended", flush=True)
"""

# Leaves a checkpoint and then waits; where it finds its checkpoint it goes on to the end at once.
RESUMABLE = """
    import os, sys, time
    from pathlib import Path
    place = Path(os.environ["EM_CHECKPOINT_DIR"]) / "reached"
    if place.exists():
        print("went on", flush=True)
    else:
        place.write_text("half")
        print("began", flush=True)
        time.sleep(float(sys.argv[2]))
    Path(os.environ["EM_MODEL_DIR"], "result").write_text("whole")
    print("ended", flush=True)
"""


@pytest.fixture(scope="session")
def doubler(framework_python: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a TorchScript model that doubles its input."""
    place = tmp_path_factory.mktemp("doubler")
    script = tmp_path_factory.mktemp("script") / "script.py"
    script.write_text(DOUBLER)
    python = framework_python("PYTORCH", "2.13")
    subprocess.run([python, script, place / "model.pt"], check=True, timeout=120, env=clean_environment())
    return place


def test_the_server_is_killed_at_every_step_of_a_training(
    make_platform: MakePlatform, images: Path, doubler: Path, tmp_path: Path
) -> None:
    platform = make_platform(is_up=False)
    own_environments(platform, images)
    platform.home.joinpath("images.yaml").write_text(
        f"images:\n  - name: {SMALL_IMAGE}\n    same_as: Ubuntu 22.04 CPU Python 3.11 Training\n"
        "    requirements: [tabulate==0.9.0]\n"
    )
    assert platform.up().returncode == 0
    source, data = tmp_path / "source", tmp_path / "data"
    data.mkdir()
    data.joinpath("model.pt").write_bytes(doubler.joinpath("model.pt").read_bytes())
    data.joinpath("ballast").write_bytes(os.urandom(2**20) * (PAYLOAD_BYTES // 2**20))
    upload_script(platform, source, "job/source", LONG_JOB, requirements_txt=LARGE_REQUIREMENT)

    platform.client.storage.upload(data, "job/data")
    crash(platform)  # after the upload
    training = start_script(
        platform,
        "crashes",
        "job/source",
        image=SMALL_IMAGE,
        datasets={"model": "job/data"},
        checkpoint_upload="job/checkpoints",
        use_log=True,
    )
    crash(platform)  # CREATE_REQUESTED
    for step in ("IMAGE_BUILD", "FETCHING", "INSTALLING", "RUNNING", "UPLOADING"):
        reach(platform, training, step)
        crash(platform)
    finish(platform, training)

    assert output_of(platform, training).count("script started") == 1
    assert platform.instances(training.id) == [f"{training.id}.0.0"]
    stored = {item.name: item.bytes for item in platform.client.storage.list("job")}
    assert stored["checkpoints/ballast"] == PAYLOAD_BYTES
    assert stored["output/crashes/model.pt"] == doubler.joinpath("model.pt").stat().st_size
    states = list(dict.fromkeys(event.new_status_code for event in platform.client.trainings.events(training.id)))
    assert states == ["CREATE_REQUESTED", "CREATE_IN_PROGRESS", "RUNNING", "COMPLETE_IN_PROGRESS", "COMPLETE"]
    lines = platform.client.logs.search(f'trainingId:"{training.id}" AND body:"script started"')
    assert lines.total_count == 1


def test_the_server_is_killed_at_every_step_of_an_endpoint(make_platform: MakePlatform, doubler: Path) -> None:
    platform = make_platform()
    client = platform.client
    client.storage.upload(doubler, "job/model")
    client.models.create("doubler", artifact="job/model", format="PYTORCH")
    crash(platform)
    assert client.models.get("doubler").model_status_code == "ACTIVE"
    started = client.endpoints.create("doubler", models={"doubler": "/inference"}, flavor=SMALL_FLAVOR)
    crash(platform)  # CREATE_REQUESTED
    stage_id = started.endpoint_stage_list[0].id
    workload_id = started.endpoint_stage_list[0].endpoint_model_list[0].endpoint_model_id
    eventually(lambda: platform.instances(workload_id), "the model server starts")
    crash(platform)  # starting
    eventually(lambda: "model" in "".join(client.stages.logs(stage_id)).lower(), "the model server loads")
    crash(platform)  # loading
    eventually(
        lambda: client.stages.get(stage_id).endpoint_stage_status_code in ("DEPLOY_IN_PROGRESS", "ACTIVE"),
        "the gateway takes the route",
        SERVE_SECONDS,
        pause_seconds=0.0,
    )
    crash(platform)  # deploying, or a moment later: that step takes a twentieth of a second
    endpoint = client.endpoints.wait(started.id, timeout_seconds=SERVE_SECONDS)
    url = endpoint.endpoint_stage_list[0].endpoint_model_list[0].apigw_endpoint_uri
    assert doubles(platform, url)
    crash(platform)  # ACTIVE
    assert doubles(platform, url)
    assert platform.instances(workload_id) == [f"{workload_id}.0.0"]
    client.endpoints.delete(started.id)
    crash(platform)  # deleting
    eventually(lambda: not client.endpoints.list(), "the endpoint is gone")
    assert platform.instances() == []
    assert ask(url, {"instances": [[1.0]]}, platform.credentials["caFile"]).status_code == 404


@pytest.fixture(scope="module")
def served(platform: RunningPlatform, doubler: Path) -> Iterator[EndpointOut]:
    """An ACTIVE endpoint of the session's platform."""
    client = platform.client
    client.storage.upload(doubler, "served/model")
    client.models.create("served", artifact="served/model", format="PYTORCH")
    client.endpoints.create("served", models={"served": "/inference"}, flavor=SMALL_FLAVOR)
    yield client.endpoints.wait("served", timeout_seconds=SERVE_SECONDS)
    client.endpoints.delete("served", wait=True, timeout_seconds=120.0)
    client.models.delete("served")


def test_no_request_fails_while_the_server_is_killed(platform: RunningPlatform, served: EndpointOut) -> None:
    with requests_going_on(platform, inference_url(served)) as counts:
        for _ in range(3):
            before = counts["answered"]
            crash(platform)
            eventually(lambda seen=before: counts["answered"] > seen + 20, "requests go on")
    assert counts["failed"] == 0, counts
    assert counts["answered"] > 60


def test_a_killed_gateway_comes_back_with_its_routes(platform: RunningPlatform, served: EndpointOut) -> None:
    old = platform.pid_of("gateway")
    os.kill(old, signal.SIGKILL)
    eventually(lambda: doubles(platform, inference_url(served)), "the route is back")
    assert platform.pid_of("gateway") != old
    platform.wait_until_serving()


def test_server_and_gateway_killed_together_come_back(platform: RunningPlatform, served: EndpointOut) -> None:
    os.kill(platform.pid_of("gateway"), signal.SIGKILL)
    platform.kill_server()
    eventually(lambda: doubles(platform, inference_url(served)), "the route is back")
    platform.wait_until_serving()


def test_a_killed_model_server_is_started_again(platform: RunningPlatform, served: EndpointOut) -> None:
    workload_id = served.endpoint_stage_list[0].endpoint_model_list[0].endpoint_model_id
    [first] = platform.instances(workload_id)
    os.kill(platform.supervisor_pid(first), signal.SIGKILL)
    eventually(lambda: platform.instances(workload_id) not in ([first], []), "another replica is started")
    eventually(lambda: doubles(platform, inference_url(served)), "the endpoint answers again", SERVE_SECONDS)
    eventually(
        lambda: platform.instances(workload_id) != [] and first not in platform.instances(workload_id),
        "the old one goes",
    )


def test_a_training_whose_supervisor_is_killed_is_started_again(platform: RunningPlatform, tmp_path: Path) -> None:
    training = start_resumable(platform, tmp_path, "supervisor", wait_seconds=600)
    [first] = platform.instances(training.id)
    places = platform.client.storage
    eventually(lambda: MANIFEST in str(places.list("supervisor/checkpoints")), "a checkpoint is in the store", 60)
    os.kill(platform.supervisor_pid(first), signal.SIGKILL)
    finish(platform, training)
    assert platform.instances(training.id) == [f"{training.id}.0.1"]
    assert_went_on(platform, training)
    # Not by the state RUNNING: the second attempt has nearly nothing left to do, and may be over before anybody looks.
    reasons = [event.status_reason for event in platform.client.trainings.events(training.id)]
    assert reasons.count("LOST") == 1
    assert reasons.count("STARTING") == 2


def test_a_killed_keeper_is_replaced_by_up(make_platform: MakePlatform, doubler: Path, tmp_path: Path) -> None:
    platform = make_platform()
    client = platform.client
    client.storage.upload(doubler, "keeper/model")
    client.models.create("kept", artifact="keeper/model", format="PYTORCH")
    client.endpoints.create("kept", models={"kept": "/inference"}, flavor=SMALL_FLAVOR)
    url = inference_url(client.endpoints.wait("kept", timeout_seconds=SERVE_SECONDS))
    training = start_resumable(platform, tmp_path, "keeper", wait_seconds=20)
    gateway = platform.pid_of("gateway")
    with requests_going_on(platform, url) as counts:
        os.kill(platform.pid_of("keeper"), signal.SIGKILL)
        done = platform.up()
        assert done.returncode == 0, done.stdout + done.stderr
        finish(platform, training)
    assert counts["failed"] == 0, counts
    assert platform.pid_of("gateway") == gateway
    assert output_of(platform, training).count("began") == 1
    assert platform.instances(training.id) == [f"{training.id}.0.0"]
    assert platform.down().returncode == 0
    assert platform.left_over() == []


def test_down_in_the_midst_of_a_training_and_up_again(
    make_platform: MakePlatform, doubler: Path, tmp_path: Path
) -> None:
    platform = make_platform()
    client = platform.client
    client.storage.upload(doubler, "down/model")
    client.models.create("downed", artifact="down/model", format="PYTORCH")
    client.endpoints.create("downed", models={"downed": "/inference"}, flavor=SMALL_FLAVOR)
    url = inference_url(client.endpoints.wait("downed", timeout_seconds=SERVE_SECONDS))
    training = start_resumable(platform, tmp_path, "down", wait_seconds=600)
    # A file of the last second before an end by force may be half a checkpoint, and is not taken.
    eventually(lambda: MANIFEST in str(client.storage.list("down/checkpoints")), "the checkpoint is complete", 60)
    done = platform.down()
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(platform.seen) >= 6, platform.seen  # keeper, server, Envoy, two supervisors and what they watch
    assert platform.left_over() == []

    assert platform.up().returncode == 0
    finish(platform, training)
    assert_went_on(platform, training)
    eventually(lambda: doubles(platform, url), "the endpoint answers again", SERVE_SECONDS)
    assert client.endpoints.get("downed").endpoint_status_code == "ACTIVE"


def test_everything_is_killed_at_once(make_platform: MakePlatform, doubler: Path, tmp_path: Path) -> None:
    """As when the machine loses its power, but for the disk."""
    platform = make_platform()
    client = platform.client
    client.storage.upload(doubler, "power/model")
    client.models.create("powered", artifact="power/model", format="PYTORCH")
    client.endpoints.create("powered", models={"powered": "/inference"}, flavor=SMALL_FLAVOR)
    url = inference_url(client.endpoints.wait("powered", timeout_seconds=SERVE_SECONDS))
    training = start_resumable(platform, tmp_path, "power", wait_seconds=5)
    platform.remember()
    for each in platform.seen.values():
        with suppress(ProcessLookupError):
            os.kill(each.pid, signal.SIGKILL)
    assert platform.left_over() == []
    done = platform.up()
    assert done.returncode == 0, done.stdout + done.stderr
    finish(platform, training)
    assert platform.instances(training.id) == [f"{training.id}.0.1"]
    assert client.storage.read("power/output/power/result") == b"whole"
    eventually(lambda: doubles(platform, url), "the endpoint answers again", SERVE_SECONDS)


def own_environments(platform: RunningPlatform, images: Path) -> None:
    """A store of environments of the platform's own that begins with the shared ones, so that what it builds stays its own."""
    place = platform.home / "environments"
    place.unlink()
    place.mkdir()
    for each in images.iterdir():
        if not each.name.startswith("."):
            place.joinpath(each.name).symlink_to(each)


def reach(platform: RunningPlatform, training: TrainingOut, step: str) -> None:
    """Wait for a step; `step` is a state or its reason. Fails when the training is beyond it."""

    def is_there() -> bool:
        seen = platform.client.trainings.get(training.id)
        assert seen.training_status_code not in ("COMPLETE", "FAIL_TRAIN", "CREATE_FAILED"), (
            f"{seen.training_status_code} before {step} was seen: {seen.status_message} {seen.last_log_lines}"
        )
        return step in (seen.training_status_code, seen.status_reason)

    eventually(is_there, f"the step {step}", 90.0, pause_seconds=0.02)


def crash(platform: RunningPlatform) -> None:
    """kill -9 of the server; returns when another one, started by the keeper, answers."""
    old = platform.kill_server()
    platform.wait_until_serving()
    assert platform.server_pid() != old


def inference_url(endpoint: EndpointOut) -> str:
    """Where the only model of an endpoint answers."""
    return endpoint.endpoint_stage_list[0].endpoint_model_list[0].apigw_endpoint_uri


def doubles(platform: RunningPlatform, url: str) -> bool:
    """Whether the endpoint answers, and right."""
    with suppress(httpx.HTTPError):
        answer = ask(url, {"instances": [[1.5, 2.0]]}, platform.credentials["caFile"])
        return answer.status_code == 200 and answer.json()["predictions"] == [[3.0, 4.0]]
    return False


@contextmanager
def requests_going_on(platform: RunningPlatform, url: str) -> Iterator[dict[str, int]]:
    """Requests, one after the other, until the block ends; how many were answered rightly and how many were not."""
    counts = {"answered": 0, "failed": 0}
    is_over = threading.Event()

    def run() -> None:
        while not is_over.is_set():
            counts["answered" if doubles(platform, url) else "failed"] += 1
            time.sleep(0.02)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield counts
    finally:
        is_over.set()
        thread.join(60.0)


def start_resumable(platform: RunningPlatform, directory: Path, name: str, wait_seconds: int) -> TrainingOut:
    """A training that leaves a checkpoint and waits; returned when it does."""
    upload_script(platform, directory / name, f"{name}/source", RESUMABLE)
    training = start_script(
        platform,
        name,
        f"{name}/source",
        checkpoint_upload=f"{name}/checkpoints",
        hyperparameters={"wait_seconds": wait_seconds},
    )
    eventually(lambda: "began" in output_of(platform, training), "the script runs")
    return training


def assert_went_on(platform: RunningPlatform, training: TrainingOut) -> None:
    """The last attempt found the checkpoint, and came to the end."""
    lines = output_of(platform, training).splitlines()
    assert "went on" in lines and "began" not in lines and "ended" in lines, lines
    assert platform.client.storage.read(f"{training.name}/output/{training.name}/result") == b"whole"
