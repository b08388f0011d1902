"""The whole API in the test's own process: real services, database and object store behind the real application; no gateway, and a control
loop that runs only where a test steps it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from modelyard.control.reconciler import Reconciler
from modelyard.control.work import Lease, WorkQueue
from modelyard.db.engine import Database
from modelyard.db.migrate import upgrade
from modelyard.resources.projects.service import ProjectKeys, new_project_keys
from modelyard.server import schema
from modelyard.server.app import create_app
from modelyard.server.backends import make_backends
from modelyard.server.home import Home
from modelyard.server.services import Services, make_reconcilers, make_services
from modelyard.server.settings import Settings

DOOR = "http://127.0.0.1:10090"


@dataclass
class ApiPlatform:
    """One application and one project of it."""

    http: httpx.AsyncClient
    database: Database
    services: Services
    reconcilers: list[Reconciler]
    home: Home
    keys: ProjectKeys

    def of(self, keys: ProjectKeys) -> ApiPlatform:
        """The same platform as another project sees it."""
        return replace(self, keys=keys)

    async def neighbour(self) -> ApiPlatform:
        """The same platform as a new project sees it."""
        keys = new_project_keys()
        await self.services.projects.ensure("neighbour", keys)
        return self.of(keys)

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """A request to a path below the project's app key, with its access token."""
        headers = {"x-nhn-authorization": f"Bearer {self.keys.access_token}", **options.pop("headers", {})}
        if body is not None:
            options["content"] = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        return await self.http.request(method, f"/v1.0/appkeys/{self.keys.app_key}{path}", headers=headers, **options)

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> dict[str, Any]:
        """The content of an answer that must be good."""
        answer = await self.call(method, path, body, **options)
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        assert content["header"]["isSuccessful"] is True
        return content

    def uri(self, place: str) -> str:
        """`container/path` as an `obs://` path."""
        return f"obs://{DOOR.removeprefix('http://')}/v1/AUTH_{self.keys.tenant_id}/{place}"

    async def put(self, place: str, content: bytes = b"x") -> None:
        """Store an object, in a container that is made where it is missing."""
        account = f"/v1/AUTH_{self.keys.tenant_id}"
        headers = {"X-Auth-Token": self.keys.access_token}
        for path, data in ((place.partition("/")[0], b""), (place, content)):
            answer = await self.http.put(f"{account}/{path}", headers=headers, content=data)
            assert answer.status_code in (201, 202), answer.text

    async def reconcile(self, *kinds: str) -> int:
        """Do all that is due of these kinds once, and again until nothing is; how many times something was done."""
        queue = WorkQueue(self.database, "test")
        by_kind = {each.kind: each for each in self.reconcilers if each.kind in kinds}
        done = 0
        while items := await queue.claim(list(by_kind), 100):
            for item in items:
                await by_kind[item.kind].reconcile(item.key, Lease(item))
                await queue.finish(item)
                done += 1
            assert done < 1000, "the loop does not settle"
        return done


@asynccontextmanager
async def api_platform(
    database_url: str, directory: Path, fakes: Mapping[str, Any] | None = None, **settings: Any
) -> AsyncIterator[ApiPlatform]:
    """Make one; `settings` are groups of the settings tree, `fakes` stand in for backends by their names."""
    home = Home(directory)
    home.root.mkdir(mode=0o700, exist_ok=True)
    home.prepare()
    chosen = Settings(database_url=database_url, **settings)
    schema.all_metadata()
    database = Database(database_url)
    await upgrade(database)
    real = make_backends(home, chosen, database)
    backends = replace(real, **(fakes or {}))
    services = make_services(home, chosen, database, backends, has_gpu=False)
    keys = new_project_keys()
    await services.projects.ensure("default", keys)
    app = create_app(chosen, services, backends)
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url=DOOR) as http:
            reconcilers = make_reconcilers(home, chosen, database, backends, services)
            yield ApiPlatform(http, database, services, reconcilers, home, keys)
    finally:
        real.compute.close()
        await database.close()


async def good_training(api: ApiPlatform, **changes: Any) -> dict[str, Any]:
    """The body of a training that is fine, whose source is stored; with these fields changed."""
    await api.put("work/source/train.py", b"print('hello')")
    images = (await api.ask("GET", "/images"))["imageList"]
    flavors = (await api.ask("GET", "/flavors"))["flavorList"]
    image = next(item for item in images if item["frameworkCode"] == "PYTHON" and item["coreTypeCode"] == "CPU")
    flavor = min((item for item in flavors if not item["gpuFlavor"]), key=lambda item: item["ram"])
    return {
        "trainingName": "good",
        "imageId": image["imageId"],
        "flavorId": flavor["id"],
        "sourceDirUri": api.uri("work/source"),
        "entryPoint": "train.py",
        "modelUploadUri": api.uri("work/output"),
    } | changes


def faults_of(answer: httpx.Response) -> dict[str, str]:
    """The fields that a refusal names, with the sentence for each."""
    assert answer.status_code == 400, answer.text
    content = answer.json()
    assert content["header"]["isSuccessful"] is False
    assert content["header"]["resultCode"] // 1000 == 400
    return {fault["field"]: fault["message"] for fault in content["faults"]}
