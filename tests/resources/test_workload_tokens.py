"""What a workload is given to act with: good as long as the workload lives, at every door, and not a moment that matters longer."""

from __future__ import annotations

from datetime import timedelta

import pytest
from api_platform import ApiPlatform

from modelyard.control.work import enqueue
from modelyard.kit.clock import utc_now
from modelyard.kit.ids import new_id
from modelyard.resources.projects import service
from modelyard.resources.projects.tokens import TokenSigner
from modelyard.resources.workloads.model import Desired
from modelyard.resources.workloads.service import KIND
from modelyard.testing.clock import ShiftedClock
from modelyard.testing.workloads import workload_spec


async def statuses(api: ApiPlatform, token: str) -> tuple[int, int, int]:
    """How the API, the object store and the way to a token for the store answer."""
    headers = {"x-easymaker-token": token}
    path = f"/token/v1.0/appkeys/{api.keys.app_key}/groups/x/iaas-token"
    return (
        (await api.http.get(f"/v1.0/appkeys/{api.keys.app_key}/flavors", headers=headers)).status_code,
        (await api.http.get(f"/v1/AUTH_{api.keys.tenant_id}/work/note", headers={"X-Auth-Token": token})).status_code,
        (await api.http.get(path, headers=headers)).status_code,
    )


async def test_a_token_opens_every_door_while_its_workload_lives(
    api: ApiPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_MEMORY_SECONDS", 0.0)
    projects, workloads = api.services.projects, api.services.workloads
    project = await projects.ensure("default", api.keys)
    await api.put("work/note", b"x")
    workload_id = new_id()
    token = projects.sign_workload(project, workload_id)
    assert await statuses(api, token) == (401, 401, 401), "there is no such workload"

    async with api.database.write() as session:
        await workloads.ensure(session, workload_id, project.id, workload_spec(), actor="test")
    assert await statuses(api, token) == (200, 200, 200)
    neighbour = await api.neighbour()
    assert (await statuses(neighbour, token))[0] == 403
    limited = projects.sign_workload(project, workload_id, utc_now() - timedelta(seconds=2))
    assert await statuses(api, limited) == (401, 401, 401), "where it has an end of its own, that counts too"

    async with api.database.write() as session:
        await workloads.ask(session, workload_id, Desired.STOP)
    assert await statuses(api, token) == (200, 200, 200), "what it does on the way out is its own"
    await api.reconcile(KIND)
    answer = await api.http.get(
        f"/v1.0/appkeys/{api.keys.app_key}/flavors", headers={"x-nhn-authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 401
    assert "has ended" in answer.json()["header"]["resultMessage"]
    assert await statuses(api, token) == (401, 401, 401)

    async with api.database.write() as session:
        await workloads.ask(session, workload_id, Desired.DELETE)
        await enqueue(session, KIND, workload_id)
    await api.reconcile(KIND)
    assert await statuses(api, token) == (401, 401, 401)


def test_no_length_of_life_is_too_long() -> None:
    clock = ShiftedClock()
    signer = TokenSigner(b"k" * 32, clock)
    token = signer.sign("workload", project_id="p", tenant_id="t", subject="w")
    clock.advance(10 * 365 * 86400)
    grant = signer.read(token)
    assert grant is not None
    assert (grant.subject, grant.expires_at) == ("w", None)
    limited = signer.sign("object", project_id="p", tenant_id="t", subject="u", expires_at=clock() + timedelta(hours=1))
    assert signer.read(limited) is not None
    clock.advance(3601)
    assert signer.read(limited) is None
    assert TokenSigner(b"x" * 32).read(token) is None
