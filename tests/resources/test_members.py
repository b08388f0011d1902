"""Members of a project: only its owners and admins, by tokens of their own, see and change who they are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
from api_platform import ApiPlatform, faults_of

from modelyard.resources.projects.model import Role
from modelyard.testing.workloads import workload_spec

PASSWORD = "correct horse battery"


async def project_id(api: ApiPlatform) -> str:
    return (await api.services.projects.ensure("default", api.keys)).id


async def person(api: ApiPlatform, name: str, role: Role | None, *, is_admin: bool = False) -> dict[str, str]:
    """The headers of a user's own token."""
    user = await api.services.users.ensure(name, PASSWORD, is_admin=is_admin)
    if role is not None:
        await api.services.projects.add_member(await project_id(api), user.id, role)
    token, _ = await api.services.projects.issue_user_token(user.id, timedelta(hours=1))
    return {"x-nhn-authorization": f"Bearer {token}"}


async def ask(api: ApiPlatform, method: str, path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
    return await api.http.request(method, f"/v1.0/appkeys/{api.keys.app_key}{path}", json=body, headers=headers)


def names_of(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    return {item["userName"]: item["roleCode"] for item in answer.json()["memberList"]}


async def test_an_admin_adds_users_and_an_owner_looks_after_members(api: ApiPlatform) -> None:
    admin = await person(api, "admin", Role.OWNER, is_admin=True)
    new = {"userName": "mina", "roleCode": "OWNER", "password": PASSWORD}
    made = await ask(api, "POST", "/members", new, admin)
    assert made.status_code == 200, made.text
    assert (made.json()["member"]["userName"], made.json()["member"]["roleCode"]) == ("mina", "OWNER")
    assert PASSWORD not in made.text
    assert await api.services.users.verify("mina", PASSWORD) is not None

    mina = await person(api, "mina", None)
    joon = await person(api, "joon", None)
    assert (await ask(api, "GET", "/trainings", None, joon)).status_code == 403
    assert (await ask(api, "POST", "/members", {"userName": "joon"}, mina)).status_code == 200
    assert (await ask(api, "GET", "/trainings", None, joon)).status_code == 200
    assert names_of(await ask(api, "GET", "/members", None, mina)) == {
        "admin": "OWNER",
        "mina": "OWNER",
        "joon": "MEMBER",
    }
    page = await ask(api, "GET", "/members?limit=2&page=2", None, mina)
    assert len(names_of(page)) == 1
    assert page.json()["paging"]["totalCount"] == 3

    listed = (await ask(api, "GET", "/members", None, mina)).json()["memberList"]
    ids = {item["userName"]: item["userId"] for item in listed}
    assert (await ask(api, "DELETE", f"/members/{ids['joon']}", None, mina)).status_code == 200
    assert (await ask(api, "DELETE", f"/members/{ids['joon']}", None, mina)).status_code == 404
    assert set(names_of(await ask(api, "GET", "/members", None, admin))) == {"admin", "mina"}

    # One owner stays, whichever way the last one would go.
    assert (await ask(api, "DELETE", f"/members/{ids['admin']}", None, mina)).status_code == 200
    alone = await ask(api, "DELETE", f"/members/{ids['mina']}", None, mina)
    assert alone.status_code == 409
    assert "only owner" in alone.json()["header"]["resultMessage"]
    less = await ask(api, "POST", "/members", {"userName": "mina", "roleCode": "MEMBER"}, mina)
    assert less.status_code == 409


async def test_everybody_else_is_refused(small_api: ApiPlatform) -> None:
    api = small_api
    member = await person(api, "member", Role.MEMBER)
    stranger = await person(api, "stranger", None)
    own = {"x-nhn-authorization": f"Bearer {api.keys.access_token}"}
    secret = {"x-secret-key": api.keys.secret_key}
    project = await api.services.projects.ensure("default", api.keys)
    async with api.database.write() as session:
        await api.services.workloads.ensure(session, "some-workload", project.id, workload_spec(), actor="test")
    token = api.services.projects.sign_workload(project, "some-workload")
    workload = {"x-easymaker-token": token}
    neighbour = await api.neighbour()
    other = {"x-nhn-authorization": f"Bearer {neighbour.keys.access_token}"}
    for method, path, body in (
        ("GET", "/members", None),
        ("POST", "/members", {"userName": "stranger"}),
        ("DELETE", "/members/x", None),
    ):
        assert (await ask(api, method, path, body, {})).status_code == 401
        for headers in (member, stranger, own, secret, workload, other):
            refused = await ask(api, method, path, body, headers)
            assert refused.status_code == 403, (method, headers, refused.text)
        refused = await ask(api, method, path, body, own)
        assert "access token of such a person's own" in refused.json()["header"]["resultMessage"]


async def test_wrong_requests_are_told_by_their_fields(small_api: ApiPlatform) -> None:
    api = small_api
    admin = await person(api, "admin", Role.OWNER, is_admin=True)
    owner = await person(api, "owner", Role.OWNER)
    wrong = {"userName": " x", "roleCode": "KING", "password": "short"}
    assert set(faults_of(await ask(api, "POST", "/members", wrong, admin))) == {"userName", "roleCode", "password"}
    unknown = {"userName": "nobody"}
    assert "giving a password" in faults_of(await ask(api, "POST", "/members", unknown, admin))["userName"]
    as_owner = await ask(api, "POST", "/members", unknown | {"password": PASSWORD}, owner)
    assert "ask an admin" in faults_of(as_owner)["userName"]
    taken = {"userName": "owner", "password": PASSWORD}
    assert "has a password" in faults_of(await ask(api, "POST", "/members", taken, admin))["password"]


async def test_a_request_with_a_key_adds_once(small_api: ApiPlatform) -> None:
    api = small_api
    admin = await person(api, "admin", Role.OWNER, is_admin=True)
    keyed = admin | {"Idempotency-Key": "welcome"}
    new = {"userName": "mina", "password": PASSWORD}
    first = await ask(api, "POST", "/members", new, keyed)
    again = await ask(api, "POST", "/members", new, keyed)
    assert first.json()["member"] == again.json()["member"]
    other = await ask(api, "POST", "/members", {"userName": "joon", "password": PASSWORD}, keyed)
    assert other.status_code == 409
    assert "'welcome' was used for another request" in other.json()["header"]["resultMessage"]
    assert await api.services.users.find("joon") is None
