"""What a request meets on its way through a real Envoy."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelyard.gateway.backends.envoy.gateway import EnvoyGateway
from modelyard.gateway.backends.envoy.settings import EnvoySettings
from modelyard.gateway.port import Route, Rule, Target, Upstream

pytestmark = pytest.mark.slow

MakeRoute = Callable[..., Route]


async def raw(settings: EnvoySettings, request: str, *, until_eof: bool = True) -> bytes:
    """Send bytes as they are, for what no well-behaved client would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.http[0].port)
    writer.write(request.encode("latin-1"))
    async with asyncio.timeout(10):
        answer = await reader.read() if until_eof else await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer


async def get(settings: EnvoySettings, path: str, *headers: str) -> tuple[int, dict[str, Any]]:
    """GET with the path exactly as given."""
    lines = "".join(f"{header}\r\n" for header in headers)
    answer = await raw(settings, f"GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n{lines}\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)


def code(body: dict[str, Any]) -> int:
    assert body["header"]["isSuccessful"] is False
    assert body["header"]["resultMessage"].endswith(".")
    return body["header"]["resultCode"]


async def test_unix_sockets_and_ports_are_reached(gateway, settings, start_origin, make_route: MakeRoute) -> None:
    unix, tcp = await start_origin("unix"), await start_origin("tcp", tcp=True)
    await gateway.put_route(make_route("unix", "/unix", unix.target))
    await gateway.put_route(make_route("tcp", "/tcp", tcp.target))
    for name in ("unix", "tcp"):
        status, seen = await get(settings, f"/{name}/x?q=1")
        assert (status, seen["name"], seen["path"]) == (200, name, f"/{name}/x?q=1")


BORDERS = {
    "/": "root",
    "/a": "root",
    "/ab": "root",
    "/a/b": "ab",
    "/a/b/": "ab",
    "/a/b?x=/a/b/c": "ab",
    "/a/b/x": "ab",
    "/a/bc": "root",
    "/a/bc/x": "root",
    "/a/b%2Fc": "root",
    "/a/b/c": "abc",
    "/a/b/c?": "abc",
    "/a/b/c/d": "abc",
    "/a/b/cd": "ab",
    "//a/b": "root",
    "/A/b": "root",
}


async def test_prefixes_match_on_borders_of_segments(gateway, settings, start_origin, make_route: MakeRoute) -> None:
    origins = {name: await start_origin(name) for name in ("root", "ab", "abc")}
    prefixes = {"root": "", "ab": "/a/b", "abc": "/a/b/c/"}
    routes = [make_route(name, prefix, origins[name].target) for name, prefix in prefixes.items()]
    await asyncio.gather(*(gateway.put_route(route) for route in routes))
    assert {path: (await get(settings, path))[1]["name"] for path in BORDERS} == BORDERS


async def test_rules_rewrites_and_methods(gateway, settings, client, start_origin) -> None:
    origin = await start_origin()
    rules = (
        Rule("/inference", ("main",), rewrite="/v1/models/m:predict", methods=("POST", "PUT")),
        Rule("/inference", ("main",), rewrite="/v1/models/m", methods=("GET",)),
        Rule("/exact", ("main",)),
        Rule("/files", ("main",), is_prefix=True, rewrite="/"),
        Rule("/deep", ("main",), is_prefix=True, rewrite="/x/y/"),
        Rule("/kept", ("main",), is_prefix=True),
    )
    await gateway.put_route(Route("r", "/gw/s", rules, (Upstream("main", (origin.target,)),)))
    seen = {
        ("POST", "/gw/s/inference?a=%2F&b"): "/v1/models/m:predict?a=%2F&b",
        ("GET", "/gw/s/inference"): "/v1/models/m",
        ("GET", "/gw/s/exact"): "/gw/s/exact",
        ("GET", "/gw/s/files"): "/",
        ("GET", "/gw/s/files?x"): "/?x",
        ("GET", "/gw/s/files/"): "/",
        ("GET", "/gw/s/files/a/b%2Fc"): "/a/b%2Fc",
        ("GET", "/gw/s/deep/z"): "/x/y/z",
        ("GET", "/gw/s/kept/z"): "/gw/s/kept/z",
    }
    for (method, path), expected in seen.items():
        assert (await client.request(method, path)).json()["path"] == expected
    for method, path in (
        ("DELETE", "/gw/s/inference"),
        ("GET", "/gw/s/inference/x"),
        ("GET", "/gw/s/filesx"),
        ("GET", "/gw/s"),
    ):
        answer = await client.request(method, path)
        assert (answer.status_code, code(answer.json())) == (404, 404900), path


async def test_a_rule_may_have_an_answer_of_its_own(gateway, settings, client, start_origin) -> None:
    origin, listed = await start_origin(), '{"models":["a","b\\" %PROTOCOL%","한"]}' + 9000 * " "
    rules = (
        Rule("/v1/models", (), methods=("GET", "HEAD"), answer=listed),
        Rule("/", ("main",), is_prefix=True, rewrite="/"),
    )
    await gateway.put_route(Route("r", "/gw/s", rules, (Upstream("main", (origin.target,)),)))
    answer = await client.get("/gw/s/v1/models?x=1")
    assert (answer.status_code, answer.text) == (200, listed)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert (await client.head("/gw/s/v1/models")).headers["content-length"] == str(len(listed.encode()))
    assert not origin.requests
    for method, path in (("POST", "/v1/models"), ("GET", "/v1/models/a")):
        assert (await client.request(method, "/gw/s" + path)).json()["path"] == path
    assert [route.digest for route in await gateway.list_routes()] != ["incomplete"]


async def test_what_no_rule_matches_does_not_fall_through_to_a_shorter_prefix(
    gateway, settings, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("root", "", origin.target))
    await gateway.put_route(
        Route("stage", "/gw/s", (Rule("/inference", ("main",)),), (Upstream("main", (origin.target,)),))
    )
    for path in ("/gw/s", "/gw/s?x", "/gw/s/", "/gw/s/other"):
        assert (await get(settings, path))[0] == 404, path
    assert (await get(settings, "/gw/sx"))[0] == 200


async def test_hosts_have_routes_of_their_own(gateway, settings, client, start_origin, make_route: MakeRoute) -> None:
    door, one, many = await start_origin("door"), await start_origin("one"), await start_origin("many")
    await gateway.put_route(make_route("door", "", door.target))
    await gateway.put_route(make_route("one", "", one.target, host="one.example.com"))
    await gateway.put_route(make_route("many", "/p", many.target, host="*.example.org"))

    async def owner(host: str, path: str = "/p") -> str:
        answer = await client.get(path, headers={"host": host})
        return answer.json()["name"] if answer.status_code == 200 else str(answer.status_code)

    assert await owner("one.example.com") == "one"
    assert await owner("ONE.example.com:8080") == "one"
    assert await owner("two.example.com") == "door"
    assert await owner("a.example.org") == "many"
    assert await owner("a.example.org", "/q") == "404"


async def test_object_names_arrive_as_they_were_sent(gateway, settings, start_origin, make_route: MakeRoute) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("store", "/v1/AUTH_x", origin.target))
    for name in (
        "a%2Fb",
        "a%2fb",
        "a//b",
        "a/",
        ".hidden",
        "..a",
        "a..",
        "...",
        "a%2E",
        "%7Ea",
        "~a",
        "a%20b",
        "%EA%B0%80",
        "a;b=1",
        "a:b@c",
        "%00",
        "a%5Cb",
        "x%2F..%2Fy",
    ):
        assert (await get(settings, f"/v1/AUTH_x/c/{name}?format=json"))[1][
            "path"
        ] == f"/v1/AUTH_x/c/{name}?format=json"


TRICKS = ("/p/../q", "/p/..", "/..", "/p/./q", "/p/%2e%2e/q", "/p/.%2E/q", "/p/%2E", "/p\\q", "/p/..?x=1")


async def test_paths_with_two_meanings_are_refused(gateway, settings, start_origin, make_route: MakeRoute) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("all", "", origin.target))
    for trick, (status, body) in zip(
        TRICKS, await asyncio.gather(*(get(settings, trick) for trick in TRICKS)), strict=True
    ):
        assert (status, code(body)) == (400, 400900), trick
    assert origin.requests == []
    assert (await get(settings, "/p?x=/../"))[0] == 200


async def test_garbage_is_answered_in_the_envelope(gateway, settings, start_origin, make_route: MakeRoute) -> None:
    assert b" 400 " in (await raw(settings, "GARBAGE\r\n\r\n")).split(b"\r\n")[0]
    huge = await raw(settings, f"GET / HTTP/1.1\r\nhost: x\r\nx: {'y' * 120_000}\r\n\r\n")
    head, _, body = huge.partition(b"\r\n\r\n")
    assert (int(head.split(b" ")[1]), code(json.loads(body))) == (431, 431900)


async def test_weights_share_requests(gateway, client, start_origin) -> None:
    blue, green, dark = [await start_origin(name) for name in ("blue", "green", "dark")]
    upstreams = (
        Upstream("blue", (blue.target,), 90),
        Upstream("green", (green.target,), 10),
        Upstream("dark", (dark.target,), 0),
    )
    await gateway.put_route(Route("r", "/r", (Rule("/", ("blue", "green", "dark"), is_prefix=True),), upstreams))
    for _ in range(20):
        await asyncio.gather(*(client.get("/r") for _ in range(50)))
    # 1,000 draws with p = 0.1: the deviation is 9.5, so these bounds are five of them.
    assert 50 <= len(green.requests) <= 150
    assert len(blue.requests) == 1000 - len(green.requests)
    assert dark.requests == []


async def test_targets_share_and_a_dead_one_fails_nobody(gateway, client, start_origin, make_route: MakeRoute) -> None:
    origins = [await start_origin(f"o{number}") for number in range(3)]
    await gateway.put_route(make_route("r", "/r", *(origin.target for origin in origins)))
    for _ in range(10):
        await asyncio.gather(*(client.get("/r") for _ in range(30)))
    assert min(len(origin.requests) for origin in origins) > 50
    await origins[0].close()
    for _ in range(5):
        answers = await asyncio.gather(*(client.post("/r", content=b"x" * 1000) for _ in range(30)))
        assert {answer.status_code for answer in answers} == {200}


async def test_a_request_that_may_have_been_seen_is_sent_again_only_if_that_makes_no_difference(
    gateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("r", "/r", origin.target))
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        answer = await client.request(method, "/r/break")
        assert answer.status_code == 503
        assert method == "HEAD" or code(answer.json()) == 503903
        assert method == "HEAD" or "send it again where" in answer.json()["header"]["resultMessage"]
    seen = Counter(request.split()[0] for request in origin.requests)
    assert (seen["POST"], seen["PUT"], seen["DELETE"]) == (1, 1, 1)
    assert seen["GET"] == seen["HEAD"] > 1


async def test_a_question_whose_target_dies_is_answered_by_another(
    gateway, client, start_origin, make_route: MakeRoute
) -> None:
    dying, living = await start_origin("dying"), await start_origin("living")
    dying.breaks = True
    await gateway.put_route(make_route("r", "/r", dying.target, living.target))
    answers = [await client.get("/r/x") for _ in range(20)]
    assert [(answer.status_code, answer.json()["name"]) for answer in answers] == [(200, "living")] * 20
    assert "GET /r/x" in dying.requests, "it was asked, and did not answer"
    assert "x-envoy-retry-on" not in answers[0].json()["headers"]


async def test_a_target_that_comes_back_is_found_at_once(gateway, client, start_origin, make_route: MakeRoute) -> None:
    origin = await start_origin()
    await origin.close()
    Path(origin.address).unlink(missing_ok=True)
    await gateway.put_route(make_route("r", "/r", origin.target))
    assert (await client.post("/r", content=b"x")).status_code == 503
    await origin.open()
    assert (await client.post("/r", content=b"x")).status_code == 200


async def test_own_answers_are_in_the_envelope(
    gateway, client, start_origin, make_route: MakeRoute, port: Callable[[], int]
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("gone", "/gone", Target(f"127.0.0.1:{port()}")))
    await gateway.put_route(make_route("empty", "/empty"))
    await gateway.put_route(make_route("late", "/late", origin.target, timeout_seconds=0.2))
    for path, status, number in (
        ("/none", 404, 900),
        ("/gone", 503, 902),
        ("/empty", 503, 901),
        ("/late/hang", 504, 900),
    ):
        answer = await client.get(path)
        assert (answer.status_code, code(answer.json())) == (status, status * 1000 + number), answer.text
        assert answer.headers["content-type"].startswith("application/json")
        assert ("retry-after" in answer.headers) == (status == 503)
    # What the target answers is the target's own word.
    answer = await client.get("/late/500")
    assert (answer.status_code, answer.json()["name"]) == (500, "one")


async def test_bodies_over_the_limit_are_turned_away(
    gateway, settings, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("small", "/small", origin.target, max_body_bytes=100_000))
    await gateway.put_route(make_route("large", "/large", origin.target, max_body_bytes=1 << 30))

    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 1000

    for content in (b"x" * 100_001, pieces(101)):
        assert origin.requests == []  # what says its size never gets there
        answer = await client.post("/small", content=content)
        assert (answer.status_code, code(answer.json())) == (413, 413900)
    for content in (b"x" * 100_000, pieces(100)):
        answer = await client.post("/small", content=content)
        assert (answer.status_code, answer.json()["body_bytes"]) == (200, 100_000)
    assert (await client.post("/large", content=b"x" * 200_000)).status_code == 200
    assert (await client.post("/large", content=pieces(1))).json()["body_bytes"] == 1000
    assert (await client.get("/large")).status_code == 200
    assert (await client.get("/small")).status_code == 200
    # Turned away before the first byte of the body: a client that asks first (RFC 9110, 10.1.1) sends none.
    size = (1 << 30) + 1
    asking = f"POST /large HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\nexpect: 100-continue\r\n\r\n"
    assert b" 413 " in (await raw(settings, asking, until_eof=False)).split(b"\r\n")[0]
    asking = asking.replace(str(size), "5")
    assert b" 100 " in (await raw(settings, asking, until_eof=False)).split(b"\r\n")[0]


async def test_the_limit_that_most_routes_have_is_no_other_routes_limit(
    gateway, settings, client, start_origin, make_route: MakeRoute
) -> None:
    origin, usual = await start_origin(), 64 << 20
    for name, limit in (("usual", usual), ("more", usual + 1), ("less", 1000), ("any", None)):
        await gateway.put_route(make_route(name, f"/{name}", origin.target, max_body_bytes=limit))

    async def first_line(name: str, size: int) -> bytes:
        asking = f"POST /{name} HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\nexpect: 100-continue\r\n\r\n"
        return (await raw(settings, asking, until_eof=False)).split(b"\r\n")[0]

    for name, size, status in (
        ("usual", usual, b"100"),
        ("usual", usual + 1, b"413"),
        ("more", usual + 1, b"100"),
        ("more", usual + 2, b"413"),
        ("less", 1001, b"413"),
        ("any", 1 << 40, b"100"),
    ):
        assert status in await first_line(name, size), (name, size)
    await gateway.remove_route("usual")
    assert b"100" in await first_line("any", 1 << 40)
    assert (await client.post("/less", content=b"x" * 1000)).status_code == 200


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


async def test_large_bodies_stream_in_constant_memory(
    gateway: EnvoyGateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("all", "/all", origin.target))
    await gateway.put_route(make_route("some", "/some", origin.target, max_body_bytes=1 << 30))
    mebibyte = b"x" * (1 << 20)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield mebibyte

    assert gateway.pid is not None
    assert (await client.post("/all", content=mebibyte)).status_code == 200
    before = resident_bytes(gateway.pid)
    size = {"content-length": str(300 << 20)}
    for path, headers in (("/all", {}), ("/all", size), ("/some", size)):
        answer = await client.post(path, content=pieces(), headers=headers)
        assert answer.json()["body_bytes"] == 300 << 20
    assert resident_bytes(gateway.pid) - before < 30 << 20


async def test_streams_arrive_piece_by_piece_and_outlast_the_usual_limits(
    gateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("stream", "/stream", origin.target, timeout_seconds=0))
    await gateway.put_route(make_route("timed", "/timed", origin.target, timeout_seconds=0.5))
    pieces = 0
    async with client.stream("GET", "/stream/slow") as answer:
        async for _ in answer.aiter_raw():
            pieces += 1
    assert pieces >= 10
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("/timed/slow")


async def test_web_sockets_pass(gateway, settings, start_origin, make_route: MakeRoute) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("ws", "/ws", origin.target, timeout_seconds=0))
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.http[0].port)
    writer.write(
        b"GET /ws/a HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: eA==\r\nsec-websocket-version: 13\r\n\r\n"
    )
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        for number in range(50):
            frame = b"\x82\x84mask" + struct.pack("!I", number)
            writer.write(frame)
            assert await reader.readexactly(len(frame)) == frame
    writer.close()


async def test_https_speaks_http_2_with_the_platforms_certificate(
    gateway, settings, tmp_path: Path, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("r", "/r", origin.target))
    context = ssl.create_default_context(cafile=str(tmp_path / "tls" / "ca.crt"))
    async with httpx.AsyncClient(verify=context) as secure:
        answer = await secure.get(f"https://localhost:{settings.https[0].port}/r")
    assert answer.json()["headers"]["x-forwarded-proto"] == "https"
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.https[0].port, ssl=context)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    # RFC 9113: preface, empty SETTINGS, one HEADERS frame that ends the stream; RFC 7541: GET, https, literal path and authority.
    block = b"\x82\x87\x04\x02/r\x01\x09localhost"
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04\x00" + bytes(4))
    writer.write(len(block).to_bytes(3, "big") + b"\x01\x05" + (1).to_bytes(4, "big") + block)
    frames: dict[int, bytes] = {}
    async with asyncio.timeout(10):
        while 0 not in frames:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if int.from_bytes(head[5:], "big") == 1:
                frames[head[3]] = payload
    assert frames[1][:1] == b"\x88"  # ":status: 200"
    assert json.loads(frames[0])["path"] == "/r"
    writer.close()


async def test_headers_tell_the_target_who_asks_and_clients_cannot_steer_the_gateway(
    gateway, settings, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("r", "/r", origin.target))
    forged = {
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-retry-on": "5xx",
        "x-forwarded-for": "1.2.3.4",
        "x-request-id": "mine",
    }
    answer = await client.get("/r/500", headers=forged)
    assert len(origin.requests) == 1
    seen = answer.json()["headers"]
    assert seen["host"] == f"127.0.0.1:{settings.http[0].port}"
    # Envoy tells this machine's own address for a client on the loopback.
    assert re.fullmatch(r"1\.2\.3\.4,[0-9.]+", seen["x-forwarded-for"])
    assert (seen["x-forwarded-proto"], seen["x-forwarded-port"]) == ("http", str(settings.http[0].port))
    assert seen["x-request-id"] == answer.headers["x-request-id"] == "mine"
    assert not [name for name in answer.headers if name.startswith("x-envoy")]
    assert "x-envoy-retry-on" not in seen


async def test_access_log_and_statistics_tell_the_route(
    gateway, settings, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("stage-1", "/gw/s", origin.target, rewrite="/"))
    await client.post("/gw/s/x?token=secret", content=b"12345", headers={"x-request-id": "abc"})
    await client.get("/gw/s/500")
    async with asyncio.timeout(20):
        while not settings.files.access_log.exists() or settings.files.access_log.read_text().count("\n") < 2:
            await asyncio.sleep(0.1)
        while not (found := await gateway.read_statistics()) or not found[0].latencies:
            await asyncio.sleep(0.1)
    [statistics] = found
    line = json.loads(settings.files.access_log.read_text().splitlines()[0])
    expected = {
        "route": "stage-1",
        "method": "POST",
        "path": "/gw/s/x",
        "status": 200,
        "bytes_received": 5,
        "request_id": "abc",
        "flags": "-",
    }
    assert expected.items() <= line.items()
    assert "secret" not in settings.files.access_log.read_text()
    assert settings.files.access_log.stat().st_mode & 0o777 == 0o600
    assert (statistics.calls_count, statistics.success_count, statistics.server_error_count) == (2, 1, 1)
    assert statistics.received_bytes > 5
    assert sum(count for _, count in statistics.latencies) == 2
