"""The default stage of an endpoint changes hands under load: no request fails, and every answer is one stage's."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from journey_platform import MakePlatform, RunningPlatform, clean_environment, eventually
from journey_scripts import SMALL_FLAVOR

from modelyard.resources.endpoints.schemas import EndpointOut
from modelyard.sdk.errors import ApiError

pytestmark = pytest.mark.slow

SERVE_SECONDS = 180.0
FACTORS = {"default": 2.0, "blue": 3.0, "green": 5.0}
MULTIPLIER = """
import sys, torch
class Multiplier(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor
for path, factor in zip(sys.argv[1::2], sys.argv[2::2]):
    torch.jit.script(Multiplier(float(factor))).save(path)
"""


@pytest.fixture(scope="module")
def endpoint(
    platform: RunningPlatform, framework_python: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EndpointOut]:
    """An endpoint with the stages of `FACTORS`; each multiplies its input by another factor, and its model has another name."""
    place = tmp_path_factory.mktemp("multipliers")
    arguments: list[str] = []
    for name, factor in FACTORS.items():
        (place / name).mkdir()
        arguments += [str(place / name / "model.pt"), str(factor)]
    script = place / "script.py"
    script.write_text(MULTIPLIER)
    python = framework_python("PYTORCH", "2.13")
    subprocess.run([python, script, *arguments], check=True, timeout=120, env=clean_environment())
    client = platform.client
    for name in FACTORS:
        client.storage.upload(place / name, f"multipliers/{name}")
        client.models.create(f"times-{name}", artifact=f"multipliers/{name}", format="PYTORCH")
    client.endpoints.create("multiplier", models={"times-default": "/inference"}, flavor=SMALL_FLAVOR)
    client.endpoints.wait("multiplier", timeout_seconds=SERVE_SECONDS)
    for name in ("blue", "green"):
        client.stages.create(name, endpoint="multiplier", models={f"times-{name}": "/inference"}, flavor=SMALL_FLAVOR)
        client.stages.wait(f"multiplier/{name}", timeout_seconds=SERVE_SECONDS)
    yield client.endpoints.get("multiplier")
    for stage in client.stages.list(endpoint="multiplier"):
        if not stage.is_default_stage:
            client.stages.delete(stage.id, wait=True, timeout_seconds=60)
    client.endpoints.delete("multiplier", wait=True, timeout_seconds=60)


def ask(http: httpx.Client, url: str) -> float:
    answer = http.post(f"https://{url}/inference", json={"instances": [[1.0, 10.0]]}, timeout=20.0)
    assert answer.status_code == 200, (answer.status_code, answer.text)
    [[one, ten]] = answer.json()["predictions"]
    assert ten == 10 * one
    return one


def trust(platform: RunningPlatform) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=platform.credentials["caFile"])


def now(platform: RunningPlatform, url: str) -> float:
    with httpx.Client(verify=trust(platform)) as http:
        return ask(http, url)


@contextmanager
def load(platform: RunningPlatform, *urls: str) -> Iterator[tuple[Counter[float], list[str]]]:
    """Ask each address again and again; the answers counted, and what went wrong."""
    answers: Counter[float] = Counter()
    faults: list[str] = []
    is_over = threading.Event()

    def run(url: str) -> None:
        with httpx.Client(verify=trust(platform)) as http:
            while not is_over.wait(0.005):
                try:
                    answers[ask(http, url)] += 1
                except Exception as fault:
                    faults.append(repr(fault))

    threads = [threading.Thread(target=run, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    try:
        yield answers, faults
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def test_the_default_stage_changes_hands_without_a_failed_request(
    platform: RunningPlatform, endpoint: EndpointOut
) -> None:
    client = platform.client
    addresses = (endpoint.endpoint_url, f"{endpoint.endpoint_url}/default")
    with load(platform, *addresses) as (answers, faults):
        eventually(lambda: answers[2.0] > 20, "requests go on")
        client.endpoints.change_default_stage("multiplier", "blue", keep_minutes=60)
        for turn in range(10):
            factor = FACTORS["blue" if turn % 2 == 0 else "default"]
            eventually(lambda f=factor: now(platform, addresses[0]) == f, "the new one answers")
            before = Counter(answers)
            eventually(lambda f=factor, b=before: answers[f] > b[f] + 10, "requests go on")
            if turn < 9:
                client.endpoints.revert_default_stage("multiplier")
        # The record follows the gateway by a moment.
        newest = [["default"]]
        eventually(
            lambda: [[s.name for s in e.stage_list] for e in client.endpoints.traffic("multiplier")[:1]] == newest,
            "the record says so",
        )
        at = datetime.now(UTC)
        assert set(answers) == {2.0, 3.0}
        # Without keeping: the stage that was the default one goes, and the address that bore its name stays.
        client.endpoints.change_default_stage("multiplier", "green")
        eventually(lambda: now(platform, addresses[1]) == 5.0, "the third one answers at the first one's address")
        eventually(lambda: [s.name for s in client.stages.list(endpoint="multiplier")] == ["green"], "others go", 60)
        time.sleep(0.5)
    assert faults == []
    shown = client.endpoints.get("multiplier")
    assert shown.endpoint_status_code == "ACTIVE"
    assert shown.former_default_stage_id is None
    history = client.endpoints.traffic("multiplier")
    names = [[stage.name for stage in entry.stage_list] for entry in reversed(history)]
    assert names[:3] == [["default"], ["blue"], ["default"]]
    assert names[-1] == ["green"]
    [then] = client.endpoints.traffic("multiplier", at=at)
    assert [(s.name, s.model_list[0].model_name) for s in then.stage_list] == [("default", "times-default")]
    with pytest.raises(ApiError, match="keeps no former default stage"):
        client.endpoints.revert_default_stage("multiplier")


def test_requests_are_shared_by_weight(platform: RunningPlatform, endpoint: EndpointOut) -> None:
    client = platform.client
    client.stages.create("canary", endpoint="multiplier", models={"times-blue": "/inference"}, flavor=SMALL_FLAVOR)
    with pytest.raises(ApiError, match="can't take requests"):
        client.endpoints.split_traffic("multiplier", {"green": 1, "canary": 1})
    client.stages.wait("multiplier/canary", timeout_seconds=SERVE_SECONDS)
    client.endpoints.split_traffic("multiplier", {"green": 50, "canary": 50})
    with load(platform, endpoint.endpoint_url) as (answers, faults):
        eventually(lambda: answers[3.0] > 20 and answers[5.0] > 20, "both answer")
        client.endpoints.split_traffic("multiplier", {})
        eventually(lambda: len({now(platform, endpoint.endpoint_url) for _ in range(10)}) == 1, "one answers again")
    assert faults == []
    assert set(answers) == {3.0, 5.0}
    newest = client.endpoints.traffic("multiplier")
    assert [[(s.name, s.weight) for s in entry.stage_list] for entry in newest[:2]] == [
        [("green", 1)],
        [("green", 50), ("canary", 50)],
    ]


def test_calls_are_counted_by_stage_and_model(platform: RunningPlatform, endpoint: EndpointOut) -> None:
    client = platform.client
    seen = client.endpoints.statistics("multiplier", resolution_seconds=10).endpoint.total.calls_count
    for _ in range(25):
        now(platform, endpoint.endpoint_url)

    def total() -> int:
        return client.endpoints.statistics("multiplier", resolution_seconds=10).endpoint.total.calls_count

    eventually(lambda: total() >= seen + 25, "the calls are counted", 60)
    statistics = client.endpoints.statistics("multiplier", resolution_seconds=3600)
    assert sum(stage.total.calls_count for stage in statistics.stage_list) == statistics.endpoint.total.calls_count
    assert len(statistics.model_list) >= 2  # those of stages that are gone, too
    assert statistics.endpoint.total.latency_p50_milliseconds is not None
    assert statistics.endpoint.total.server_error_count == 0


def test_what_was_taken_from_the_gateway_comes_back(platform: RunningPlatform, endpoint: EndpointOut) -> None:
    client = platform.client
    stage = client.stages.find("multiplier/green")
    settings = client.stages.gateway_settings(stage.id)
    assert settings.deploy_status_code == "ACTIVE"
    assert f"{settings.prefix}/inference" in [rule.path for rule in settings.rule_list]
    assert settings.configuration is not None
    assert len(settings.configuration["clusters"]) == 1
    routes = platform.home / "gateway" / "routes.json"
    content = json.loads(routes.read_bytes().replace(endpoint.id.encode(), b"x").replace(stage.id.encode(), b"y"))
    content["version_info"] = "somebody else's"
    new = routes.with_name("new")
    new.write_text(json.dumps(content))
    new.replace(routes)
    eventually(lambda: client.stages.gateway_settings(stage.id).configuration is None, "it is gone", pause_seconds=0.01)
    eventually(lambda: client.stages.gateway_settings(stage.id).configuration is not None, "it is back")
    eventually(lambda: client.endpoints.get("multiplier").apigw_status_code == "ACTIVE", "it is shown")
    client.stages.deploy(stage.id)
    eventually(lambda: client.endpoints.get("multiplier").endpoint_status_code == "ACTIVE", "deployed again")
    assert now(platform, endpoint.endpoint_url) == 5.0


def test_a_stage_asks_for_keys_sizes_rates_and_origins_without_a_failed_request(
    platform: RunningPlatform, endpoint: EndpointOut
) -> None:
    client, url = platform.client, f"https://{endpoint.endpoint_url}/inference"
    body = {"instances": [[1.0, 10.0]]}
    with pytest.raises(ApiError, match="make one first"):
        client.stages.change_settings("multiplier/green", is_api_key_required=True)
    with pytest.raises(ApiError) as refused:
        client.stages.change_settings("multiplier/green", max_body_bytes=2**40, mirror={"endpoint_stage_id": "nobody"})
    assert [fault.field for fault in refused.value.faults] == ["maxBodyBytes", "mirror.endpointStageId"]
    first = client.endpoints.create_api_key("multiplier", "first")
    made = platform.command("endpoint", "key", "create", "multiplier", "second", "--rate", "2/3600", "--output", "json")
    second = json.loads(made.stdout)["apiKey"]
    assert first.api_key and first.api_key not in str(client.endpoints.api_keys("multiplier"))
    with pytest.raises(ApiError, match="already has an API key named 'first'"):
        client.endpoints.create_api_key("multiplier", "first")
    with httpx.Client(verify=trust(platform)) as http:

        def status(key: str | None, origin: str | None = None, padding: int = 0) -> httpx.Response:
            headers = {"x-api-key": key} if key else {}
            headers |= {"origin": origin} if origin else {}
            return http.post(url, json={**body, "padding": "x" * padding}, headers=headers)

        with load(platform, endpoint.endpoint_url) as (answers, faults):
            eventually(lambda: answers[5.0] > 10, "requests go on")
            asked = (
                "--max-body",
                "4000",
                "--timeout",
                "30",
                "--cors-origin",
                "https://app.example.com",
                "--rate",
                "100000",
            )
            done = platform.command("stage", "set", "multiplier/green", *asked, "--allow", "127.0.0.0/8")
            assert "allow origin list https://app.example.com" in done.stdout, done
            before = answers[5.0]
            eventually(lambda: answers[5.0] > before + 10, "requests go on")
        assert faults == []
        answer = status(None, "https://app.example.com")
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://app.example.com")
        assert status(None, padding=5000).status_code == 413

        client.stages.change_settings("multiplier/green", is_api_key_required=True)
        refusal = status(None)
        assert (refusal.status_code, refusal.json()["header"]["resultCode"]) == (401, 401900)
        assert client.endpoints.predict("multiplier", body, api_key=first.api_key) == {"predictions": [[5.0, 50.0]]}
        with pytest.raises(ApiError, match="asks for an API key"):
            client.endpoints.predict("multiplier", body)
        assert [status(second).status_code for _ in range(3)] == [200, 200, 429]
        assert platform.command("endpoint", "key", "revoke", "multiplier", "first").returncode == 0
        eventually(lambda: status(first.api_key).status_code == 401, "the revoked key is refused")

        shown = client.stages.gateway_settings("multiplier/green")
        words = " ".join(shown.word_list)
        assert (
            "may take 30 s" in words
            and "4,000 bytes" in words
            and "API key in the header x-api-key (1 exists)" in words
        )
        assert "https://app.example.com" in words and "127.0.0.0/8" in words and "100,000 requests a second" in words
        assert "[redacted]" in json.dumps(shown.configuration)
        with pytest.raises(ApiError, match="asks for an API key"):  # it was made before, and asks for nothing
            client.endpoints.change_default_stage("multiplier", "canary")

        def total(field: str) -> int:
            statistics = client.endpoints.statistics("multiplier", resolution_seconds=3600)
            [stage] = [item for item in statistics.stage_list if item.endpoint_stage_id == shown.endpoint_stage_id]
            return getattr(stage.total, field)

        eventually(lambda: total("key_refused_count") >= 3, "what was refused is counted", 60)
        assert (total("rate_refused_count"), total("size_refused_count"), total("address_refused_count")) == (1, 1, 0)
        [key] = client.endpoints.api_keys("multiplier")
        assert (key.name, key.calls_count, key.last_used_datetime is not None) == ("second", 3, True)

        names = ("--clear", "cors-origin", "--clear", "allow", "--clear", "max-body")
        done = platform.command("stage", "set", "multiplier/green", "--no-api-key", *names, "--output", "json")
        cleared = json.loads(done.stdout)
        assert cleared["rateLimit"] is not None and cleared["cors"] is None
        assert status(None, padding=5000).status_code == 200


def test_a_mirror_gets_copies_until_it_goes(platform: RunningPlatform, endpoint: EndpointOut) -> None:
    client = platform.client
    mirror = client.stages.find("multiplier/canary")
    client.stages.change_settings("multiplier/green", mirror={"endpoint_stage_id": mirror.id})

    def copies() -> int:
        statistics = client.endpoints.statistics("multiplier", resolution_seconds=3600)
        return sum(s.total.mirrored_count for s in statistics.stage_list if s.endpoint_stage_id == mirror.id)

    with load(platform, endpoint.endpoint_url) as (answers, faults):
        eventually(lambda: copies() > 20, "copies are counted", 60)
        client.stages.delete("multiplier/canary", wait=True, timeout_seconds=60)
        before = answers[5.0]
        eventually(lambda: answers[5.0] > before + 20, "requests go on")
    assert faults == []
    assert set(answers) == {5.0}
    assert client.stages.settings("multiplier/green").settings.mirror is None


def test_what_was_taken_from_the_gateway_stays_away_until_it_is_deployed(
    make_platform: MakePlatform, framework_python: Callable[[str, str], Path], tmp_path: Path
) -> None:
    platform = make_platform(is_up=False)
    (platform.home / "config.toml").write_text("[gateway]\nrepairs_routes = false\n")
    done = platform.up()
    assert done.returncode == 0, done.stderr
    script = tmp_path / "script.py"
    script.write_text(MULTIPLIER)
    python = framework_python("PYTORCH", "2.13")
    subprocess.run([python, script, tmp_path / "model.pt", "2.0"], check=True, timeout=120, env=clean_environment())
    client = platform.client
    client.storage.upload(tmp_path / "model.pt", "multipliers/model.pt")
    client.models.create("twice", artifact="multipliers", format="PYTORCH")
    client.endpoints.create("twice", models={"twice": "/inference"}, flavor=SMALL_FLAVOR)
    endpoint = client.endpoints.wait("twice", timeout_seconds=SERVE_SECONDS)
    assert now(platform, endpoint.endpoint_url) == 2.0
    stage = endpoint.endpoint_stage_list[0]
    routes = platform.home / "gateway" / "routes.json"
    content = json.loads(routes.read_bytes().replace(endpoint.id.encode(), b"x").replace(stage.id.encode(), b"y"))
    content["version_info"] = "somebody else's"
    new = routes.with_name("new")
    new.write_text(json.dumps(content))
    new.replace(routes)
    started = time.monotonic()

    def state() -> tuple[str, str]:
        seen = client.endpoints.get("twice")
        return seen.apigw_status_code, seen.endpoint_stage_list[0].deploy_status

    eventually(lambda: state() == ("NOT_FOUND_STAGE", "NOT_FOUND_STAGE"), "it is shown as gone", pause_seconds=0.1)
    shown_after = time.monotonic() - started
    assert shown_after < 5.0 * (1 + os.getloadavg()[0]), shown_after  # 3 s or so where nothing else runs
    time.sleep(4.0)  # longer than the look at the gateway that would repair it
    assert state() == ("NOT_FOUND_STAGE", "NOT_FOUND_STAGE")
    client.stages.deploy(stage.id)
    eventually(lambda: state() == ("ACTIVE", "ACTIVE"), "it is deployed again")
    assert now(platform, endpoint.endpoint_url) == 2.0
