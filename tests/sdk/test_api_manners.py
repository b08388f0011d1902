"""Errors, retries, names and connections."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest
from small_platform import APP_KEY, IMAGE_NAME, QUICK, TOKEN, SmallPlatform

from modelyard.sdk import facade
from modelyard.sdk.blocking import Blocking
from modelyard.sdk.client import Client
from modelyard.sdk.connection import Connection, Credentials
from modelyard.sdk.errors import (
    AmbiguousName,
    BadRequest,
    ClientClosed,
    Conflict,
    ConnectionFailed,
    NotConfigured,
    NotFound,
    ServerFailed,
    Unauthenticated,
    UnexpectedAnswer,
    UnknownName,
    WaitTimedOut,
)

CREDENTIALS = {
    "consoleUrl": "http://127.0.0.1:1",
    "apiUrl": "http://127.0.0.1:1",
    "httpsUrl": "https://127.0.0.1:2",
    "appKey": "home-key",
    "accessToken": "home-token",
    "secretKey": "s",
    "region": "kr1",
    "tenantId": "t",
    "apiUserId": "u",
    "objectStoreUrl": "http://127.0.0.1:1/v1/AUTH_t",
    "objectStoreUser": "u",
    "objectStorePassword": "p",
    "caFile": "",
    "adminUser": "admin",
    "adminPassword": "p",
}


class Flaky(httpx.BaseTransport):
    """The real network, except that the next calls fail as told; `after` means that the platform has done the work by then."""

    def __init__(self, *failures: str) -> None:
        self.failures = list(failures)
        self._network = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "refused":
            raise httpx.ConnectError("connection refused", request=request)
        response = self._network.handle_request(request)
        if failure == "after":
            response.read()
            raise httpx.ReadError("connection reset", request=request)
        return response


def flaky_client(connection: Connection, *failures: str) -> tuple[Client, Flaky]:
    transport = Flaky(*failures)
    return Client(connection, patience=QUICK, transport=transport), transport


def test_reads_are_repeated(connection: Connection, platform: SmallPlatform) -> None:
    client, transport = flaky_client(connection, "refused", "after", "refused")
    platform.refusals = [503, 502]
    assert len(client.flavors.list()) == 2
    assert not transport.failures
    assert not platform.refusals


def test_a_create_whose_answer_got_lost_is_not_done_twice(connection: Connection, platform: SmallPlatform) -> None:
    client, _ = flaky_client(connection, "after")
    created = client.experiments.create("once")
    assert [item.id for item in client.experiments.list()] == [created.id]
    posts = [headers for (method, _), headers in zip(platform.calls, platform.headers, strict=True) if method == "POST"]
    assert len(posts) == 2
    assert posts[0]["idempotency-key"] == posts[1]["idempotency-key"]


def test_a_create_with_a_key_of_the_callers_own_makes_one_thing(client: Client, platform: SmallPlatform) -> None:
    first = client.experiments.create("kept", idempotency_key="order-7")
    assert client.experiments.create("kept", idempotency_key="order-7").id == first.id
    assert len(client.experiments.list()) == 1
    with pytest.raises(Conflict, match="'order-7' was used for another request"):
        client.experiments.create("other", idempotency_key="order-7")
    assert {headers.get("idempotency-key") for headers in platform.headers} == {"order-7", None}


@pytest.mark.parametrize("key", ["", "x" * 256, "käse", "two\nlines", " padded"])
def test_a_key_that_no_header_can_carry_is_refused_before_anything_is_sent(
    client: Client, platform: SmallPlatform, key: str
) -> None:
    with pytest.raises(BadRequest, match="printable ASCII") as refused:
        client.experiments.create("e", idempotency_key=key)
    assert refused.value.faults[0].field == "idempotency_key"
    assert not platform.calls


def test_every_create_takes_a_key() -> None:
    groups = [group for _, group in inspect.getmembers(facade, inspect.isclass) if issubclass(group, Blocking)]
    creates = [
        method
        for group in groups
        for name in ("create", "copy", "submit")
        if (method := getattr(group, name, None)) is not None
    ]
    assert len(creates) >= 9
    assert [each for each in creates if "idempotency_key" not in inspect.signature(each).parameters] == []


def test_a_prediction_is_not_repeated_once_it_was_sent(connection: Connection, platform: SmallPlatform) -> None:
    client, transport = flaky_client(connection, "refused", "after", "after")
    with pytest.raises(ConnectionFailed, match="connection reset"):
        client.endpoints.call(f"{platform.url}/serve/inference", {"instances": [[1]]})
    assert transport.failures == ["after"]


def test_patience_ends(client: Client, platform: SmallPlatform) -> None:
    platform.refusals = [503] * 1000
    with pytest.raises(ServerFailed) as failure:
        client.flavors.list()
    assert failure.value.code == 503001


def test_a_platform_that_is_down_is_told_soon() -> None:
    client = Client(Connection("http://127.0.0.1:9", APP_KEY, TOKEN), patience=QUICK)
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:9.*is the platform up"):
        client.flavors.list()


def test_errors_carry_code_faults_and_request_id(
    client: Client, connection: Connection, platform: SmallPlatform
) -> None:
    with pytest.raises(BadRequest) as refused:
        client.trainings.create(
            "t", image=IMAGE_NAME, flavor="m2.c2m4", source="a/b", entry_point="missing.py", model_upload="a/out"
        )
    assert (refused.value.status, refused.value.code, refused.value.request_id) == (400, 400001, "request-1")
    assert refused.value.faults[0].field == "entryPoint"
    client.experiments.create("taken")
    with pytest.raises(Conflict, match="taken"):
        client.experiments.create("taken")
    with pytest.raises(NotFound, match="not found"):
        client.trainings.get("01890000-0000-7000-8000-000000000000")
    stranger = Client(Connection(connection.api_url, APP_KEY, "wrong"), patience=QUICK)
    with pytest.raises(Unauthenticated, match="token"):
        stranger.flavors.list()


def test_wrong_values_are_found_before_they_are_sent(client: Client, platform: SmallPlatform) -> None:
    with pytest.raises(BadRequest) as refused:
        client.trainings.create(
            " t",
            image=IMAGE_NAME,
            flavor="m2.c2m4",
            source="a/b",
            entry_point="x.py",
            model_upload="a/out",
            instance_count=11,
            datasets={"n" * 37: "a/b"},
        )
    fields = {fault.field for fault in refused.value.faults}
    assert fields == {"trainingName", "instanceCount", "datasetList[0].datasetName"}
    assert not [call for call in platform.calls if call[0] == "POST"]
    with pytest.raises(BadRequest, match=r"'\.\.'"):
        client.storage.list("a/../b")


def test_another_server_is_recognised(connection: Connection) -> None:
    foreign = httpx.MockTransport(lambda _: httpx.Response(200, json={"hello": "world"}))
    client = Client(connection, transport=foreign)
    with pytest.raises(UnexpectedAnswer, match="flavorList"):
        client.flavors.list()
    page = httpx.MockTransport(lambda _: httpx.Response(404, text="<html>nothing here</html>"))
    with pytest.raises(NotFound, match="answered 404: <html>nothing here"):
        Client(connection, transport=page).flavors.list()


def test_names_are_resolved(client: Client) -> None:
    assert client.flavors.get("m2.c2m4").vcpus == 2
    with pytest.raises(UnknownName, match=r"there is no flavor 'm2\.c2m8'; did you mean 'm2\.c"):
        client.flavors.get("m2.c2m8")
    client.experiments.create("alpha")
    with pytest.raises(UnknownName, match="did you mean 'alpha'"):
        client.experiments.get("alpa")
    client.experiments.create("one, two")
    assert client.experiments.get("one, two").name == "one, two"
    client.models.create("iris", artifact="a/iris")
    client.endpoints.create("one", models="iris", flavor="m2.c2m4")
    for _ in range(2):
        client.stages.create("blue", endpoint="one", models="iris", flavor="m2.c2m4")
    with pytest.raises(AmbiguousName, match="2 stages are named 'one/blue'"):
        client.stages.get("one/blue")
    with pytest.raises(UnknownName, match="stage of endpoint 'one' called 'green'"):
        client.endpoints.predict("one", {}, stage="green")


def test_a_wait_has_an_end(client: Client, platform: SmallPlatform) -> None:
    experiment = client.experiments.create("slow")
    platform.items["experiments"][experiment.id]["experimentStatusCode"] = "CREATE_IN_PROGRESS"
    with pytest.raises(WaitTimedOut, match=r"'slow' is still CREATE_IN_PROGRESS after 0\.5 s"):
        client.experiments.wait("slow", timeout_seconds=0.5)


def test_closing_ends_a_wait_in_another_thread(client: Client, platform: SmallPlatform) -> None:
    experiment = client.experiments.create("slow")
    platform.items["experiments"][experiment.id]["experimentStatusCode"] = "CREATE_IN_PROGRESS"
    is_waiting = Event()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.experiments.wait, "slow", progress=lambda _: is_waiting.set())
        assert is_waiting.wait(10)
        client.close()
        with pytest.raises(ClientClosed):
            waiting.result(10)
    with pytest.raises(ClientClosed):
        client.flavors.list()


def test_lists_come_in_pages(client: Client, platform: SmallPlatform) -> None:
    for number in range(250):
        client.experiments.create(f"e{number:03d}")
    platform.calls.clear()
    assert [item.name for item in client.experiments.iterate()] == [f"e{number:03d}" for number in range(250)]
    assert len(platform.calls) == 3
    assert [item.name for item in client.experiments.list(page=2, limit=3)] == ["e003", "e004", "e005"]


def test_log_search(client: Client) -> None:
    page = client.logs.search('category:"easymaker.training"', limit=3)
    assert (page.total_count, page.cursor) == (7, "3")
    assert [line["body"] for line in client.logs.iterate()] == [str(number) for number in range(7)]
    with pytest.raises(BadRequest, match="position 2"):
        client.logs.search("(")


def sealed(_: Path) -> Credentials:
    return Credentials.model_validate(CREDENTIALS)


def test_where_a_connection_comes_from(tmp_path: Path) -> None:
    environment = {
        "MODELYARD_API_URL": "http://there:1/",
        "MODELYARD_APP_KEY": "key",
        "MODELYARD_ACCESS_TOKEN": "token",
        "MODELYARD_HOME": str(tmp_path),
    }
    assert Connection.find(environment=environment, read=sealed) == Connection("http://there:1", "key", "token")
    assert Connection.find(environment=environment, app_key="other", read=sealed).app_key == "other"
    assert Connection.find(environment=environment, home=tmp_path, read=sealed).app_key == "home-key"
    local = Connection.find(environment={"MODELYARD_HOME": str(tmp_path)}, read=sealed)
    assert (local.app_key, local.access_token, local.https_url) == ("home-key", "home-token", "https://127.0.0.1:2")


def test_a_missing_connection_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match=r"modelyard up.*MODELYARD_API_URL, MODELYARD_APP_KEY"):
        Connection.find(environment={"MODELYARD_HOME": str(tmp_path / "nothing")})
    with pytest.raises(NotConfigured, match="does not exist"):
        Connection.find(environment={}, api_url="http://a", app_key="k", access_token="t", ca_file=tmp_path / "ca")
    with pytest.raises(NotConfigured, match="give an access token for http://elsewhere"):
        Connection.find(environment={}, home=tmp_path, api_url="http://elsewhere", read=sealed)


def test_a_home_without_a_platform_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="no credentials in"):
        Connection.find(environment={}, home=tmp_path)
