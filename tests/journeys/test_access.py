"""Deny by default, over everything that the OpenAPI document names: no credential, a wrong one, another project's; and what is not there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest
from journey_platform import RunningPlatform
from journey_rest import UNKNOWN_ID, Operation, Rest, refused

from modelyard.db.engine import Database, sqlite_url
from modelyard.resources.projects.service import ProjectKeys, Projects, new_project_keys
from modelyard.resources.projects.tokens import TokenSigner
from modelyard.server import schema
from modelyard.server.home import Home, secret_key

pytestmark = pytest.mark.slow

WITHOUT_PROJECT = {
    ("GET", "/nhn-api-gateway"): "the official client asks it whether the region exists; it tells nothing",
    ("POST", "/v2.0/tokens"): "checks a password itself",
    ("POST", "/oauth2/token/create"): "checks a password itself",
    ("GET", "/v1.0/sessions"): "asks for an admin's own token",
    ("DELETE", "/v1.0/sessions/{session_id}"): "asks for an admin's own token",
    ("POST", "/v2/log"): "names the project in the body",
}
WITHOUT_RESOURCE = ("group_id", "user_id")
"""Parameters that name nothing that could be missing, or nothing that who asks here may know of: only people look after members."""


@pytest.fixture(scope="module")
def rest(platform: RunningPlatform) -> Iterator[Rest]:
    """The API; no test of this module may have made the server fail."""
    with Rest(platform) as rest:
        yield rest
    log = (platform.home / "logs/server.log").read_text()
    assert " failed\nTraceback" not in log, log[-5000:]


@pytest.fixture(scope="module")
def operations(rest: Rest) -> list[Operation]:
    found = list(rest.operations())
    assert len(found) > 35
    return found


@pytest.fixture(scope="module")
def neighbour(platform: RunningPlatform) -> ProjectKeys:
    """The credentials of another project on the same platform."""
    keys = new_project_keys()

    schema.all_metadata()  # maps the tables, which refer to each other

    async def make() -> None:
        home = Home(platform.home)
        database = Database(sqlite_url(home.database_file))
        await Projects(database, TokenSigner(secret_key(home, "tokens"))).ensure("neighbour", keys)
        await database.close()

    asyncio.run(make())
    return keys


def test_only_known_doors_stand_outside_of_projects(operations: list[Operation]) -> None:
    assert {(each.method, each.path) for each in operations if not each.has_key} == set(WITHOUT_PROJECT)


def test_doors_without_a_project_check_by_themselves(platform: RunningPlatform, rest: Rest) -> None:
    tenant = platform.credentials["tenantId"]
    wrong = {"auth": {"tenantId": tenant, "passwordCredentials": {"username": "modelyard", "password": "wrong"}}}
    assert rest.send("POST", "/v2.0/tokens", json=wrong).status_code == 401
    assert rest.send("POST", "/v2.0/tokens", content=b"nonsense").status_code in (400, 401)
    assert rest.send("POST", "/oauth2/token/create", auth=("admin", "wrong")).status_code == 401
    assert rest.send("POST", "/oauth2/token/create").status_code == 401
    for body in (b"", b"[]", b"{}", b"[1]", b'[{"projectName": "nobody"}]', b"nonsense"):
        assert rest.send("POST", "/v2/log", content=body).status_code < 500


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-nhn-authorization": "Bearer wrong"},
        {"x-nhn-authorization": "Bearer None"},
        {"x-nhn-authorization": "Bearer"},
        {"x-nhn-authorization": "wrong"},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
        {"X-Secret-Key": "wrong"},
        {"X-EasyMaker-Token": "wrong"},
        {"X-EasyMaker-Token": ""},
        {"x-nhn-authorization": "Bearer " + "x" * 4000},
    ],
    ids=["none", "wrong", "client's None", "empty", "no scheme", "basic", "secret", "workload", "no workload", "long"],
)
def test_without_a_right_credential_nothing_opens(
    platform: RunningPlatform, rest: Rest, operations: list[Operation], headers: dict[str, str]
) -> None:
    for each in operations:
        if each.has_key:
            path = each.filled(platform.credentials["appKey"])
            refused(
                rest.send(each.method, path, headers=headers, json={} if each.method in ("POST", "PUT") else None), 401
            )


def test_a_credential_of_another_project_is_refused(
    platform: RunningPlatform, rest: Rest, operations: list[Operation], neighbour: ProjectKeys
) -> None:
    mine = platform.credentials
    theirs = [{"x-nhn-authorization": f"Bearer {neighbour.access_token}"}, {"X-Secret-Key": neighbour.secret_key}]
    for each in operations:
        if not each.has_key:
            continue
        body = {} if each.method in ("POST", "PUT") else None
        for headers in theirs:
            refused(rest.send(each.method, each.filled(mine["appKey"]), headers=headers, json=body), 403)
        refused(rest.send(each.method, each.filled(neighbour.app_key), headers=platform.headers, json=body), 403)
        refused(rest.send(each.method, each.filled("nobodys-key"), headers=platform.headers, json=body), 403)


def test_another_project_sees_nothing_of_ours(
    platform: RunningPlatform, rest: Rest, operations: list[Operation], neighbour: ProjectKeys
) -> None:
    experiment = platform.client.experiments.create("only-ours")
    headers = {"x-nhn-authorization": f"Bearer {neighbour.access_token}"}
    base = f"/v1.0/appkeys/{neighbour.app_key}"
    for each in operations:
        if each.id_name == "experiment_id":
            body = {"experimentName": "theirs"} if each.method == "PUT" else None
            path = each.filled(neighbour.app_key, experiment.id)
            refused(rest.send(each.method, path, headers=headers, json=body), 404)
    assert rest.send("GET", f"{base}/experiments", headers=headers).json()["experimentList"] == []
    assert rest.send("GET", f"{base}/logs", headers=headers).json()["logList"] == []
    platform.client.experiments.wait(experiment.id, timeout_seconds=60.0)
    assert platform.client.experiments.get(experiment.id).name == "only-ours"
    platform.client.experiments.delete(experiment.id)


def test_the_object_store_is_closed_to_others(platform: RunningPlatform, rest: Rest, neighbour: ProjectKeys) -> None:
    account = f"/v1/AUTH_{platform.credentials['tenantId']}"
    platform.client.storage.create_container("private")
    for headers, status in (
        ({}, 401),
        ({"X-Auth-Token": "wrong"}, 401),
        ({"X-Auth-Token": neighbour.access_token}, 403),
    ):
        for method, path in (
            ("GET", account),
            ("HEAD", account),
            ("GET", f"{account}/private"),
            ("PUT", f"{account}/private/object"),
            ("GET", f"{account}/private/object"),
            ("DELETE", f"{account}/private"),
            ("POST", f"{account}/private"),
        ):
            answer = rest.send(method, path, headers=headers, content=b"x" if method == "PUT" else None)
            assert answer.status_code == status, f"{method} {path} {headers}: {answer.status_code}"


def test_what_is_not_there_is_404_in_the_envelope(
    platform: RunningPlatform, rest: Rest, operations: list[Operation]
) -> None:
    key = platform.credentials["appKey"]
    for each in operations:
        if each.id_name is None or each.id_name in WITHOUT_RESOURCE or not each.has_key:
            continue
        for id in (UNKNOWN_ID, "1", "a%00b", "%F0%9F%90%8D", "x" * 2000, "%27%20OR%201%3D1", "-1"):
            body = {} if each.method in ("POST", "PUT") else None
            answer = rest.send(each.method, each.filled(key, id), headers=platform.headers, json=body)
            # An empty body may lack fields: that is told first.
            is_incomplete = body is not None and answer.status_code == 400 and "must be given" in answer.text
            refused(answer, *((404,) if id == UNKNOWN_ID and not is_incomplete else (400, 404)))
    for path in (f"/v1.0/appkeys/{key}/nothing", "/nothing", "/v1.0", f"/v2.0/appkeys/{key}/trainings"):
        refused(rest.send("GET", path, headers=platform.headers), 404)


def has_form(target: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), target) is not None


def test_wrong_methods_are_405_in_the_envelope(
    platform: RunningPlatform, rest: Rest, operations: list[Operation]
) -> None:
    by_path: dict[str, set[str]] = {}
    for each in operations:
        by_path.setdefault(each.path, set()).add(each.method)
    for path in by_path:
        target = Operation("GET", path).filled(platform.credentials["appKey"])
        # `…/bulk-delete` has the form of `…/{id}` too.
        methods = set[str]().union(*(known for other, known in by_path.items() if has_form(target, other)))
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - methods:
            answer = rest.send(method, target, headers=platform.headers)
            refused(answer, 405)
            assert set(answer.headers["allow"].replace(" ", "").split(",")) <= {*methods, "HEAD"}
