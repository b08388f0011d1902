"""Model servers follow the load, and rest when nobody asks: with a real gateway, real servers and kills in between."""

from __future__ import annotations

import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from journey_models import MAKE, TOOLS
from journey_platform import RunningPlatform, clean_environment, eventually
from journey_scripts import SMALL_FLAVOR

from modelyard.resources.endpoints.model import Metric
from modelyard.resources.endpoints.schemas import AutoScaler, EndpointStageOut

pytestmark = pytest.mark.slow

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
WAIT_SECONDS = 120.0


@pytest.fixture(scope="module")
def artifacts(tools_python: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("artifacts")
    command = [str(tools_python(*TOOLS)), "-c", MAKE, str(place)]
    subprocess.run(command, check=True, timeout=120, env=clean_environment())
    return place


@pytest.fixture(scope="module")
def iris(platform: RunningPlatform, artifacts: Path) -> Iterator[str]:
    """The name of a model, and of an endpoint that serves it on one stage."""
    client, name = platform.client, "scaled"
    client.storage.upload(artifacts / "onnx", name)
    client.models.create(name, artifact=name, format="ONNX")
    client.endpoints.create(name, models={name: "/inference"}, flavor=SMALL_FLAVOR)
    client.endpoints.wait(name, timeout_seconds=WAIT_SECONDS)
    yield name
    client.endpoints.delete(name, wait=True, timeout_seconds=WAIT_SECONDS)


def stage_of(platform: RunningPlatform, name: str) -> EndpointStageOut:
    return platform.client.stages.find(f"{name}/default")


def addresses(platform: RunningPlatform, name: str) -> list[str]:
    """Of the endpoint and of its stage, which are routes of their own."""
    stage = stage_of(platform, name)
    return [
        f"https://{platform.client.endpoints.get(name).endpoint_url}/inference",
        stage.endpoint_model_list[0].apigw_endpoint_uri,
    ]


def trust(platform: RunningPlatform) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=platform.credentials["caFile"])


def ask(platform: RunningPlatform, url: str) -> httpx.Response:
    return httpx.post(url, json={"instances": ROWS}, verify=trust(platform), timeout=90.0)


def is_right(answer: httpx.Response) -> bool:
    return answer.status_code == 200 and [row["label"] for row in answer.json()["predictions"]] == [0, 2]


def rest(platform: RunningPlatform, name: str) -> None:
    platform.client.stages.scale(
        f"{name}/default", AutoScaler(enable=True, min_node_count=0, max_node_count=2, idle_seconds=1)
    )
    eventually(lambda: is_resting(platform, name), "the model rests", WAIT_SECONDS)


def is_resting(platform: RunningPlatform, name: str) -> bool:
    stage = stage_of(platform, name)
    model_id = stage.endpoint_model_list[0].endpoint_model_id
    return (stage.running_pod_count, stage.status_reason, platform.instances(model_id)) == (0, "AT_REST", [])


def reasons(platform: RunningPlatform, name: str) -> Counter[str | None]:
    return Counter(event.status_reason for event in platform.client.stages.events(stage_of(platform, name).id))


def test_a_model_that_rests_answers_after_its_start(platform: RunningPlatform, iris: str) -> None:
    rest(platform, iris)
    stage = stage_of(platform, iris)
    assert stage.endpoint_stage_status_code == "ACTIVE"
    assert stage.status_message == "No model server runs; the next request starts one and waits for it."
    waiting = platform.client.stages.gateway_settings(stage.id)
    assert waiting.timeout_seconds >= 120  # the wait comes on top of what an answer may take
    assert (stage.node_count, stage.pod_count, stage.deploy_status) == (0, 0, "ACTIVE")
    urls = addresses(platform, iris)
    keep = AutoScaler(enable=True, min_node_count=0, max_node_count=2, idle_seconds=60)
    platform.client.stages.scale(stage.id, keep)
    begun = time.monotonic()
    answer = ask(platform, urls[0])
    print(f"from rest to an answer: {time.monotonic() - begun:.2f} s")
    assert is_right(answer), answer.text
    eventually(lambda: stage_of(platform, iris).status_reason is None, "the model is up again")
    server = platform.client.stages.gateway_settings(stage.id).upstream_list[0].address_list[0]
    assert "/wait/" not in server  # no request passes the waiting room any more
    seen = reasons(platform, iris)
    assert seen["AT_REST"] and seen["WAKING"]
    rest(platform, iris)
    with ThreadPoolExecutor(24) as pool:  # all at once, while nothing runs
        platform.client.stages.scale(stage.id, keep)
        answers = list(pool.map(lambda number: ask(platform, urls[number % 2]), range(24)))
    assert all(is_right(answer) for answer in answers), Counter(answer.text[:200] for answer in answers)
    assert platform.client.endpoints.get(iris).endpoint_status_code == "ACTIVE"


def test_no_request_fails_between_rest_and_work(platform: RunningPlatform, iris: str) -> None:
    """Requests that come just when the model lies down: each is answered, by whoever is there."""
    platform.client.stages.scale(
        f"{iris}/default", AutoScaler(enable=True, min_node_count=0, max_node_count=1, idle_seconds=1)
    )
    url = addresses(platform, iris)[0]
    wrong: list[str] = []
    for pause in (2.0, 3.0, 3.6, 4.2):
        time.sleep(pause)
        answer = ask(platform, url)
        if not is_right(answer):
            wrong.append(f"{answer.status_code} {answer.text}")
    assert wrong == []


def test_more_servers_come_with_the_load_and_go_after_it(platform: RunningPlatform, iris: str) -> None:
    client = platform.client
    scaler = AutoScaler(
        enable=True, min_node_count=1, max_node_count=2, metric_code=Metric.REQUESTS_PER_SECOND, metric_target=10,
        scale_down_unneeded_minute=0, scale_down_delay_after_add_minute=0,
    )  # fmt: skip
    client.stages.scale(f"{iris}/default", scaler)
    eventually(lambda: stage_of(platform, iris).running_pod_count == 1, "one server", WAIT_SECONDS)
    url, is_over, wrong = addresses(platform, iris)[0], threading.Event(), list[str]()

    def load() -> None:
        with httpx.Client(verify=trust(platform), timeout=60.0) as http:
            while not is_over.wait(0.02):
                try:
                    answer = http.post(url, json={"instances": ROWS})
                    if not is_right(answer):
                        wrong.append(f"{answer.status_code} {answer.text}")
                except httpx.HTTPError as error:
                    wrong.append(repr(error))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        eventually(lambda: stage_of(platform, iris).running_pod_count == 2, "a second server", WAIT_SECONDS)
        shown = stage_of(platform, iris)
        assert (shown.node_count, shown.auto_scaler.metric_code, shown.auto_scaler.metric_target) == (
            2,
            "REQUESTS_PER_SECOND",
            10,
        )
        # Fewer while requests go on: none of them meets a server that ends.
        client.stages.scale(shown.id, scaler.model_copy(update={"max_node_count": 1}))
        model_id = shown.endpoint_model_list[0].endpoint_model_id
        eventually(lambda: len(platform.instances(model_id)) == 1, "the second server is gone", WAIT_SECONDS)
    finally:
        is_over.set()
        thread.join()
    assert wrong == []
    told = [
        event.status_message
        for event in client.stages.events(stage_of(platform, iris).id)
        if event.status_reason == "SCALING_UP"
    ]
    assert "requests per second in the last 6 s, and one server is to have 10." in str(told[-1])
    assert client.stages.scale(f"{iris}/default", AutoScaler(enable=False)).node_count == 1


def test_kills_leave_those_who_wait_waiting(platform: RunningPlatform, iris: str) -> None:
    rest(platform, iris)
    url = addresses(platform, iris)[0]
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, platform, url) for _ in range(4)]
        time.sleep(0.3)
        platform.kill_server()
        assert all(is_right(each.result()) for each in answers)
    platform.wait_until_serving()
    eventually(lambda: is_resting(platform, iris), "the model rests again", WAIT_SECONDS)
    platform.kill_server()
    assert is_right(ask(platform, url))  # the server is not even there when it comes
    platform.wait_until_serving()
