"""Changes of routes on a real Envoy: under load, many at once, refused, behind our back."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from collections.abc import Callable

import httpx
import orjson
import pytest

from modelyard.gateway.backends.envoy.gateway import EnvoyGateway
from modelyard.gateway.backends.envoy.settings import EnvoySettings
from modelyard.gateway.port import GatewayRefused, ObservedRoute, Route, Rule, Target, Upstream, route_digest

pytestmark = pytest.mark.slow

MakeRoute = Callable[..., Route]


class Load:
    """Clients that ask one path again and again, each on its own connection, and note every answer that is not 200."""

    def __init__(self, url: str, count: int = 8) -> None:
        self.url = url
        self.answers_count = 0
        self.failures: list[str] = []
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, number: int) -> None:
        async with httpx.AsyncClient(timeout=10) as client:
            while True:
                try:
                    if number % 2:
                        answer = await client.get(self.url)
                    else:
                        answer = await client.post(self.url, content=b"x" * 2000)
                    if answer.status_code != 200:
                        self.failures.append(f"{answer.status_code} {answer.text}")
                except httpx.HTTPError as failure:
                    self.failures.append(repr(failure))
                self.answers_count += 1


async def test_two_hundred_changes_under_load_fail_no_request(
    gateway, settings: EnvoySettings, client, start_origin, make_route: MakeRoute
) -> None:
    origins = [await start_origin(f"o{number}", tcp=number % 2 == 0) for number in range(6)]
    await gateway.put_route(make_route("r", "/r", origins[0].target))
    async with Load(f"http://127.0.0.1:{settings.http[0].port}/r", count=6) as load:
        for number in range(200):
            chosen = random.Random(number).sample(origins, 1 + number % 3)
            await gateway.put_route(make_route("r", "/r", *(origin.target for origin in chosen)))
            # The moment that the change is told as done, every connection takes the new way.
            answers = await asyncio.gather(*(client.get("/r") for _ in range(3)))
            assert {answer.json()["name"] for answer in answers} <= {origin.name for origin in chosen}
    assert load.failures == []
    assert load.answers_count > 500


async def test_a_new_route_is_there_at_once_on_every_connection(
    gateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    for number in range(50):
        await gateway.put_route(make_route("r", f"/r{number}", origin.target))
        answers = await asyncio.gather(*(client.get(f"/r{number}") for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        if number:
            assert (await client.get(f"/r{number - 1}")).status_code == 404
    await gateway.remove_route("r")
    answers = await asyncio.gather(*(client.get("/r49") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {404}
    await gateway.remove_route("r")
    assert await gateway.list_routes() == []


async def test_a_canary_moves_step_by_step(gateway, client, start_origin) -> None:
    blue, green = await start_origin("blue"), await start_origin("green")

    async def share(weight: int) -> None:
        upstreams = (Upstream("blue", (blue.target,), 100 - weight), Upstream("green", (green.target,), weight))
        await gateway.put_route(Route("r", "/r", (Rule("/", ("blue", "green"), is_prefix=True),), upstreams))

    await share(0)
    async with Load(str(client.base_url.join("/r")), count=4) as load:
        for weight in (25, 50, 75, 100):
            await share(weight)
        blue.requests.clear()
        await asyncio.gather(*(client.get("/r") for _ in range(50)))
        assert (await client.get("/r")).json()["name"] == "green"
    assert load.failures == []


async def test_many_changes_at_once_become_few_updates(
    gateway: EnvoyGateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    routes = [make_route(f"r{number:03}", f"/r/{number}", origin.target) for number in range(300)]
    async with asyncio.timeout(10):
        await asyncio.gather(*(gateway.put_route(route) for route in routes))
    assert list(await gateway.list_routes()) == [ObservedRoute(route.id, route_digest(route)) for route in routes]
    assert (await client.get("/r/299/x")).json()["path"] == "/r/299/x"
    await asyncio.gather(*(gateway.remove_route(route.id) for route in routes[1:]))
    assert [route.id for route in await gateway.list_routes()] == ["r000"]


async def test_a_refused_route_is_told_envoys_reason_and_harms_no_other(
    gateway: EnvoyGateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("old", "/old", origin.target))
    bad = make_route("bad", "/bad", Target("/" + "x" * 200))
    good = [make_route(f"good-{number}", f"/good/{number}", origin.target) for number in range(5)]
    results = await asyncio.gather(
        *(gateway.put_route(route) for route in (*good[:3], bad, *good[3:])), return_exceptions=True
    )
    assert [type(result) for result in results if result is not None] == [GatewayRefused]
    assert "108" in str(results[3])  # the limit of a Unix socket's path, in Envoy's words
    assert {route.id for route in await gateway.list_routes()} == {"old", *(route.id for route in good)}
    for path in ("/old", "/good/0", "/good/4"):
        assert (await client.get(path)).status_code == 200
    assert (await client.get("/bad")).status_code == 404
    await gateway.put_route(make_route("bad", "/bad", origin.target))
    assert (await client.get("/bad")).status_code == 200


async def test_a_refused_route_configuration_leaves_the_one_before(
    gateway: EnvoyGateway, settings: EnvoySettings, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("good", "/good", origin.target))
    # Two pattern hosts of which Envoy takes either alone but the first in no form: only Envoy itself knows.
    with pytest.raises(GatewayRefused, match=r"(?i)domain"):
        await gateway.put_route(make_route("bad", "", origin.target, host="version.modelyard.internal"))
    assert [route.id for route in await gateway.list_routes()] == ["good"]
    assert b"bad" not in settings.files.routes.read_bytes()
    assert b'"bad"' not in settings.files.wanted.read_bytes()
    assert (await client.get("/good")).status_code == 200


async def test_a_place_that_is_taken_is_refused(gateway: EnvoyGateway, start_origin, make_route: MakeRoute) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("one", "/p", origin.target))
    with pytest.raises(GatewayRefused, match="belongs to route 'one' already"):
        await gateway.put_route(make_route("two", "/p/", origin.target))
    moved = make_route("one", "/q", origin.target)
    await gateway.put_route(moved)
    await gateway.put_route(make_route("two", "/p", origin.target))
    assert {route.id for route in await gateway.list_routes()} == {"one", "two"}


async def test_what_others_do_to_the_files_is_seen_and_mended(
    gateway: EnvoyGateway, settings: EnvoySettings, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    routes = [make_route(name, f"/{name}", origin.target) for name in ("one", "two")]
    for route in routes:
        await gateway.put_route(route)
    assert len(await gateway.list_routes()) == 2
    content = orjson.loads(settings.files.routes.read_bytes())
    content["version_info"] = "somebody else's"
    content["resources"][0]["virtual_hosts"] = [
        {"name": "x", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 418}}]}
    ]
    new = settings.files.directory / "edited.json"
    new.write_bytes(orjson.dumps(content))
    new.replace(settings.files.routes)
    async with asyncio.timeout(10):
        while await gateway.list_routes():
            await asyncio.sleep(0.02)
    assert (await client.get("/one")).status_code == 418
    await gateway.put_route(routes[0])
    assert {route.id for route in await gateway.list_routes()} == {"one", "two"}
    assert (await client.get("/one")).status_code == 200


async def test_lost_upstreams_are_mended_by_the_next_put(
    gateway: EnvoyGateway, settings: EnvoySettings, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    route = make_route("one", "/one", origin.target)
    await gateway.put_route(route)
    new = settings.files.directory / "edited.json"
    new.write_bytes(b'{"version_info": "none", "resources": []}')
    new.replace(settings.files.clusters)
    async with asyncio.timeout(10):
        while (answer := await client.get("/one")).status_code == 200:
            await asyncio.sleep(0.02)
    assert answer.json()["header"]["resultCode"] == 503901
    await gateway.put_route(route)
    assert (await client.get("/one")).status_code == 200


async def test_putting_the_same_again_touches_nothing(
    gateway: EnvoyGateway, settings: EnvoySettings, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    route = make_route("one", "/one", origin.target)
    await gateway.put_route(route)
    before = settings.files.routes.stat().st_ino
    for _ in range(10):
        await gateway.put_route(dataclasses.replace(route))
    assert settings.files.routes.stat().st_ino == before


async def test_a_request_outlives_the_upstream_it_went_to(
    gateway: EnvoyGateway, settings: EnvoySettings, client, start_origin, make_route: MakeRoute
) -> None:
    old, new = await start_origin("old"), await start_origin("new")
    await gateway.put_route(make_route("r", "/r", old.target, timeout_seconds=0))
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.http[0].port)
    writer.write(b"GET /r HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    await gateway.put_route(make_route("r", "/r", new.target, timeout_seconds=0))
    assert (await client.get("/r")).json()["name"] == "new"
    async with asyncio.timeout(20):
        while old.address in settings.files.clusters.read_text():
            await asyncio.sleep(0.05)
        assert new.address in settings.files.clusters.read_text()
        await asyncio.sleep(0.2)
        for number in range(20):
            writer.write(b"%03d" % number)
            assert await reader.readexactly(3) == b"%03d" % number
    writer.close()


async def test_a_body_on_its_way_outlives_a_change(
    gateway: EnvoyGateway, settings: EnvoySettings, start_origin, make_route: MakeRoute
) -> None:
    old, new = await start_origin("old"), await start_origin("new")
    await gateway.put_route(make_route("r", "/r", old.target))
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.http[0].port)
    writer.write(b"POST /r HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 10\r\n\r\n12345")
    async with asyncio.timeout(10):
        while not old.requests:
            await asyncio.sleep(0.01)
        await gateway.put_route(make_route("r", "/r", new.target))
        await gateway.remove_route("r")
        writer.write(b"67890")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0]
    assert json.loads(body)["body_bytes"] == 10
    writer.close()
