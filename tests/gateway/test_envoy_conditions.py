"""Which requests of a route pass, on a real Envoy."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from modelyard.gateway.backends.envoy.gateway import EnvoyGateway
from modelyard.gateway.port import ApiKey, Conditions, Cors, Decisions, Mirror, Rate, Route, Rule, Upstream

pytestmark = pytest.mark.slow

MakeRoute = Callable[..., Route]


def api_key(id: str, secret: str, rate: Rate | None = None) -> ApiKey:
    return ApiKey(id, base64.b64encode(hashlib.sha1(secret.encode()).digest()).decode(), rate)


def shown(id: str, secret: str) -> dict[str, str]:
    return {"x-api-key": base64.b64encode(f"{id}:{secret}".encode()).decode()}


def code(answer: httpx.Response) -> tuple[int, int]:
    return answer.status_code, answer.json()["header"]["resultCode"]


async def decided(gateway: EnvoyGateway, route_id: str) -> Decisions:
    found = [item for item in await gateway.read_decisions() if item.route_id == route_id]
    return found[0] if found else Decisions(route_id)


async def test_only_who_shows_a_key_passes_and_the_target_sees_its_id_not_the_key(
    gateway: EnvoyGateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    keys = Conditions("stage-1", keys=(api_key("mk1", "one"), api_key("mk2", "two")))
    await gateway.put_route(make_route("r", "/r", origin.target, conditions=keys))
    await gateway.put_route(make_route("open", "/open", origin.target))
    refused = [
        await client.get("/r/x"),
        await client.get("/r/x", headers={"x-modelyard-api-key": "mk1"}),
        await client.get("/r/x", headers={"x-api-key": "nonsense"}),
        await client.get("/r/x", headers=shown("mk1", "two")),
        await client.get("/r/x", headers=shown("mk3", "one")),
    ]
    assert [code(answer) for answer in refused] == [(401, 401900)] * 5
    assert "x-api-key" in refused[0].json()["header"]["resultMessage"]
    assert refused[0].headers["www-authenticate"] == "ApiKey"  # "Basic" would make browsers ask for a password
    assert not origin.requests
    passed = await client.post("/r/x", headers=shown("mk2", "two"), json={})
    seen = passed.json()["headers"]
    assert (passed.status_code, seen["x-modelyard-api-key"]) == (200, "mk2")
    assert not seen.keys() & {"x-api-key", "x-modelyard-credential", "authorization"}
    told = await client.get("/open", headers={"x-modelyard-api-key": "mk9"})
    assert "x-modelyard-api-key" not in told.json()["headers"]

    # Rotation: another is added, the first one revoked. Nothing of that is told by the configuration.
    rotated = dataclasses.replace(keys, keys=(api_key("mk2", "two"), api_key("mk3", "three")))
    await gateway.put_route(make_route("r", "/r", origin.target, conditions=rotated))
    assert (await client.get("/r", headers=shown("mk1", "one"))).status_code == 401
    assert (await client.get("/r", headers=shown("mk3", "three"))).status_code == 200
    configuration = await gateway.read_route("r") or ""
    assert "[redacted]" in configuration and keys.keys is not None and keys.keys[1].digest not in configuration
    assert await decided(gateway, "r") == Decisions("r", key_count=6, calls_by_key={"mk2": 1, "mk3": 1})

    await gateway.put_route(make_route("r", "/r", origin.target, conditions=dataclasses.replace(keys, keys=())))
    assert (await client.get("/r", headers=shown("nobody", ""))).status_code == 401


async def test_rates_hold_for_a_name_and_for_each_key_whatever_the_path_and_are_told(
    gateway: EnvoyGateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    conditions = Conditions(
        "stage-1",
        keys=(api_key("mk1", "one"), api_key("mk2", "two", Rate(1, 600))),
        rate=Rate(6, 600),
        key_rate=Rate(4, 600),
    )
    await gateway.put_route(make_route("own", "/own", origin.target, conditions=conditions))
    await gateway.put_route(make_route("shared", "/shared", origin.target, conditions=conditions))
    await gateway.put_route(make_route("free", "/free", origin.target))

    async def ask(*paths: str, **headers: str) -> list[int]:
        return [(await client.get(path, headers=headers)).status_code for path in paths]

    assert await ask("/own", "/own/", "/shared/a", "/own/b", **shown("mk1", "one")) == [200] * 4
    answer = await client.get("/shared", headers=shown("mk1", "one"))
    assert code(answer) == (429, 429900)
    assert 1 <= int(answer.headers["retry-after"]) <= 600
    assert answer.headers["x-ratelimit-limit"] == "4"
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert await ask("/own", "/own", **shown("mk2", "two")) == [200, 429]
    some = dataclasses.replace(conditions, name="stage-2", rate=None, key_rate=None)
    await gateway.put_route(make_route("some", "/some", origin.target, conditions=some))
    limited, unlimited = [await client.get("/some", headers=shown(*key)) for key in (("mk2", "two"), ("mk1", "one"))]
    assert limited.headers["x-ratelimit-limit"] == "1" and limited.headers["x-ratelimit-remaining"] == "0"
    assert unlimited.status_code == 200 and not any(name.startswith("x-ratelimit") for name in unlimited.headers)
    free = await client.get("/free")
    assert free.status_code == 200 and not any(name.startswith("x-ratelimit") for name in free.headers)
    assert await decided(gateway, "shared") == Decisions("shared", rate_count=1, calls_by_key={"mk1": 2})
    assert (await decided(gateway, "own")).rate_count == 1


async def test_who_has_no_rate_is_told_none(gateway: EnvoyGateway, client, start_origin, make_route: MakeRoute) -> None:
    origin = await start_origin()
    conditions = Conditions("s", keys=(api_key("mk1", "one"), api_key("mk2", "two", Rate(2, 600))))
    await gateway.put_route(make_route("r", "/r", origin.target, conditions=conditions))
    told = [await client.get("/r", headers=shown(*key)) for key in (("mk1", "one"), ("mk2", "two"), ("mk1", "one"))]
    assert [answer.status_code for answer in told] == [200] * 3
    assert [answer.headers.get("x-ratelimit-limit") for answer in told] == [None, "2", None]
    assert [answer.headers.get("x-ratelimit-remaining") for answer in told] == [None, "1", None]
    assert "x-ratelimit-reset" not in told[0].headers


async def test_a_rate_of_all_requests_needs_no_keys(
    gateway: EnvoyGateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("r", "/r", origin.target, conditions=Conditions("s", rate=Rate(2, 600))))
    answers = await asyncio.gather(*(client.get("/r") for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429]


async def test_only_listed_addresses_pass(gateway: EnvoyGateway, client, start_origin, make_route: MakeRoute) -> None:
    origin = await start_origin()
    elsewhere = Conditions("s", addresses=("192.0.2.0/24", "2001:db8::/32"))
    await gateway.put_route(make_route("r", "/r", origin.target, conditions=elsewhere))
    answers = [await client.get("/r"), await client.get("/r", headers={"x-forwarded-for": "192.0.2.7"})]
    assert [code(answer) for answer in answers] == [(403, 403900)] * 2  # what a client says of itself counts nothing
    assert (await decided(gateway, "r")).address_count == 2
    here = dataclasses.replace(elsewhere, addresses=("127.0.0.0/8",))
    await gateway.put_route(make_route("r", "/r", origin.target, conditions=here))
    assert (await client.get("/r")).status_code == 200


async def test_preflights_are_answered_without_key_or_target_and_refusals_can_be_read(
    gateway: EnvoyGateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    cors = Cors(
        ("https://a.example", "https://*.b.example"), ("POST",), ("x-api-key", "content-type"), max_age_seconds=60
    )
    route = make_route("r", "/r", origin.target, conditions=Conditions("s", keys=(api_key("k", "s"),), cors=cors))
    await gateway.put_route(route)

    async def preflight(source: str) -> httpx.Response:
        asked = {"origin": source, "access-control-request-method": "POST"}
        return await client.options("/r/predict", headers=asked)

    for source in ("https://a.example", "https://x.y.b.example"):
        answer = await preflight(source)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == source
        assert answer.headers["access-control-allow-headers"] == "x-api-key, content-type"
        assert answer.headers["access-control-max-age"] == "60"
        assert "access-control-allow-credentials" not in answer.headers
    for source in ("https://evil.example", "https://a.example.evil.example", "https://b.example", "http://a.example"):
        assert "access-control-allow-origin" not in (await preflight(source)).headers
    assert not origin.requests
    refused = await client.post("/r/predict", headers={"origin": "https://a.example"})
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "https://a.example"


async def test_bodies_are_counted_as_they_stream(
    gateway: EnvoyGateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("r", "/r", origin.target, max_body_bytes=1000))

    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 100
            await asyncio.sleep(0)

    assert (await client.post("/r", content=b"x" * 1000)).json()["body_bytes"] == 1000
    assert (await client.post("/r", content=chunks(10))).json()["body_bytes"] == 1000
    answers = [await client.post("/r", content=b"x" * 1001), await client.post("/r", content=chunks(11))]
    assert [code(answer) for answer in answers] == [(413, 413900)] * 2
    assert (await decided(gateway, "r")).size_count == 2


async def test_a_mirror_gets_copies_and_neither_delays_nor_fails_an_answer(
    gateway: EnvoyGateway, client, start_origin
) -> None:
    main, copy = await start_origin("main"), await start_origin("copy")

    def route(percent: float) -> Route:
        rule = Rule("/", ("main",), is_prefix=True, rewrite="/", mirrors=(Mirror("copies", percent),))
        upstreams = (Upstream("main", (main.target,)), Upstream("copies", (copy.target,), max_requests=3))
        return Route("r", "/r", (rule,), upstreams)

    await gateway.put_route(route(100))
    answers = [await client.post(f"/r/{number}", content=b"body") for number in range(20)]
    assert {answer.json()["name"] for answer in answers} == {"main"}
    async with asyncio.timeout(20):
        while len(copy.requests) < 20:
            await asyncio.sleep(0.01)
    assert set(copy.requests) == {f"POST /{number}" for number in range(20)}
    counts = {item.name: item for item in await gateway.read_statistics()}
    assert (counts["main"].calls_count, counts["copies"].calls_count) == (20, 20)

    # A mirror that never answers holds three requests and no more; the answers come all the same, also when it is gone.
    taken: list[asyncio.StreamWriter] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        await reader.read(-1)

    await copy.close()
    async with await asyncio.start_unix_server(swallow, copy.address):
        answers = await asyncio.wait_for(asyncio.gather(*(client.post("/r/x") for _ in range(20))), 20)
        assert [answer.status_code for answer in answers] == [200] * 20
        assert 1 <= len(taken) < 10  # the limit holds over all threads, but not to the last one
        for writer in taken:
            writer.close()
    answers = [await client.get("/r/x") for _ in range(20)]
    assert [answer.status_code for answer in answers] == [200] * 20

    await copy.open()
    copy.requests.clear()
    await gateway.put_route(route(25))
    for _ in range(200):
        await client.get("/r/x")
    await asyncio.sleep(0.2)
    assert 15 < len(copy.requests) < 95


async def test_a_silent_target_is_given_up_after_the_idle_limit(
    gateway: EnvoyGateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("r", "/r", origin.target, idle_seconds=0.5, timeout_seconds=60))
    answer = await client.get("/r/hang", timeout=20)
    assert answer.status_code in (408, 504) and "header" in answer.json()
