"""The life of the Envoy process: started, adopted, killed, in each other's way."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import httpx
import orjson
import pytest
from cryptography import x509

from modelyard.gateway.backends.envoy.gateway import EnvoyGateway
from modelyard.gateway.backends.envoy.process import EnvoyFailed
from modelyard.gateway.backends.envoy.settings import EnvoySettings, ListenAddress
from modelyard.gateway.certificates import ensure_certificates
from modelyard.gateway.port import Route, Target
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import RetryLater

pytestmark = pytest.mark.slow

MakeRoute = Callable[..., Route]


@contextlib.asynccontextmanager
async def started(settings: EnvoySettings) -> AsyncIterator[EnvoyGateway]:
    gateway = EnvoyGateway(settings)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def test_a_killed_envoy_is_started_again_with_the_same_routes(
    gateway: EnvoyGateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("r", "/r", origin.target))
    first = gateway.pid
    assert first is not None
    for death in range(1, 3):
        assert gateway.pid is not None
        os.kill(gateway.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get("/r")).status_code == 200:
                        break
                await asyncio.sleep(0.02)
            while gateway.restarts_count < death:
                await asyncio.sleep(0.02)
        assert time.monotonic() - killed_at < 10
    assert gateway.pid not in (None, first)
    await gateway.put_route(make_route("s", "/s", origin.target))
    assert [route.id for route in await gateway.list_routes()] == ["r", "s"]


async def test_a_death_in_the_middle_of_a_change_delays_neither(
    gateway: EnvoyGateway, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    for number in range(3):
        assert gateway.pid is not None
        os.kill(gateway.pid, signal.SIGSTOP)
        change = asyncio.create_task(gateway.put_route(make_route("r", f"/r{number}", origin.target)))
        await asyncio.sleep(0.2)
        os.kill(gateway.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            await change
        assert (await client.get(f"/r{number}")).status_code == 200


async def test_the_next_platform_adopts_a_running_envoy(
    settings: EnvoySettings, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    one = EnvoyGateway(settings)
    await one.start()
    await one.put_route(make_route("r", "/r", origin.target))
    pid = one.pid
    await one.detach()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.http[0].port}") as client:
        assert (await client.get("/r")).status_code == 200
        async with started(settings) as two:
            assert two.pid == pid
            assert (await client.get("/r")).status_code == 200
            assert [route.id for route in await two.list_routes()] == ["r"]
            await two.remove_route("r")
            assert (await client.get("/r")).status_code == 404
    assert pid is not None
    assert not is_running(pid)


SERVER = """
import asyncio, sys, orjson
from pathlib import Path
from modelyard.gateway.backends.envoy.gateway import EnvoyGateway
from modelyard.gateway.backends.envoy.settings import EnvoySettings, ListenAddress
from modelyard.gateway.port import Route, Rule, Target, Upstream

async def main() -> None:
    directory, port, target = sys.argv[1:]
    gateway = EnvoyGateway(EnvoySettings(Path(directory), (ListenAddress(port=int(port)),), (), worker_count=2))
    await gateway.start()
    await gateway.put_route(Route("r", "/r", (Rule("/", ("m",), True),), (Upstream("m", (Target(target),)),)))
    print(gateway.pid, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_a_killed_platform_fails_no_request(settings: EnvoySettings, start_origin) -> None:
    origin = await start_origin()
    settings = dataclasses.replace(settings, https=(), certificate=None, key=None)
    port = settings.http[0].port
    command = [sys.executable, "-c", textwrap.dedent(SERVER), str(settings.directory), str(port), origin.address]
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert server.stdout is not None
    line = await asyncio.to_thread(server.stdout.readline)
    pid = int(line)
    statuses: list[int] = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def ask(count: int) -> None:
            for _ in range(count):
                statuses.append((await client.get("/r")).status_code)

        asking = asyncio.create_task(ask(300))
        await asyncio.sleep(0)
        server.kill()
        await asyncio.to_thread(server.wait)
        server.stdout.close()
        await asking
        assert is_running(pid)
        async with started(settings) as gateway:
            assert gateway.pid == pid
            await ask(20)
    assert set(statuses) == {200}
    assert len(statuses) == 320


async def test_routes_are_served_again_after_everything_was_away(
    settings: EnvoySettings, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    async with started(settings) as gateway:
        await gateway.put_route(make_route("r", "/r", origin.target))
    async with started(settings) as gateway, httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{settings.http[0].port}/r")).status_code == 200
        assert [route.id for route in await gateway.list_routes()] == ["r"]


async def test_other_settings_restart_envoy(
    settings: EnvoySettings, port: Callable[[], int], start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    one = EnvoyGateway(settings)
    await one.start()
    await one.put_route(make_route("r", "/r", origin.target))
    old = one.pid
    await one.detach()
    moved = dataclasses.replace(settings, http=(ListenAddress(port=port()), ListenAddress(port=port())))
    async with started(moved) as two, httpx.AsyncClient() as client:
        assert two.pid != old
        for address in moved.http:
            assert (await client.get(f"http://{address}/r")).status_code == 200
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://{settings.http[0]}/r")


@pytest.mark.parametrize("record", [None, b"", b'{"pid": 1, "started_ticks": 1, "boot": "x", "bootstrap_digest": "y"}'])
async def test_a_lost_or_stale_record_is_got_over(settings: EnvoySettings, record: bytes | None) -> None:
    one = EnvoyGateway(settings)
    await one.start()
    old = one.pid
    await one.detach()
    if record is None:
        settings.files.process.unlink()
    else:
        settings.files.process.write_bytes(record)
    async with started(settings) as two:
        assert two.pid not in (None, old)
        assert old is not None
        assert not is_running(old)


async def test_a_taken_port_is_named_with_its_holder(settings: EnvoySettings) -> None:
    with socket.socket() as holder:
        holder.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEPORT, 1
        )  # a port that would let us in is taken all the same
        holder.bind(("127.0.0.1", settings.http[0].port))
        holder.listen()
        with pytest.raises(
            EnvoyFailed,
            match=rf"port {settings.http[0].port} on 127\.0\.0\.1 is taken by \S+ \(process {os.getpid()}\)",
        ):
            await EnvoyGateway(settings).start()
    async with started(settings) as gateway:
        assert await gateway.is_ready()


async def test_what_cannot_start_says_why(settings: EnvoySettings, tmp_path: Path) -> None:
    for changes, sentence in (
        ({"binary": tmp_path / "nothing"}, "there is no Envoy at"),
        ({"http": (ListenAddress("192.0.2.77", 18000),)}, "this machine has no address|is not an address"),
        ({"certificate": None}, "HTTPS needs a certificate"),
        ({"key": tmp_path / "tls" / "ca.key"}, "does not belong to the certificate"),
        ({"directory": tmp_path / ("d" * 100)}, "too long for a Unix socket"),
        ({"binary": Path("/bin/false")}, "Envoy ended at its start"),
    ):
        with pytest.raises(EnvoyFailed, match=sentence):
            await EnvoyGateway(dataclasses.replace(settings, **changes)).start()


async def test_changes_of_a_gateway_that_is_not_there_are_for_later(
    settings: EnvoySettings, make_route: MakeRoute
) -> None:
    gateway = EnvoyGateway(dataclasses.replace(settings, confirm_seconds=0.5))
    with pytest.raises(RetryLater, match="not started"):
        await gateway.put_route(make_route("r", "/r"))
    with pytest.raises(RetryLater):
        await gateway.list_routes()
    assert not await gateway.is_ready()
    await gateway.start()
    try:
        assert gateway.pid is not None
        os.kill(gateway.pid, signal.SIGSTOP)
        with pytest.raises(RetryLater, match="did not take new"):
            await gateway.put_route(make_route("r", "/r", Target("127.0.0.1:1")))
        os.kill(gateway.pid, signal.SIGCONT)
        await gateway.put_route(make_route("r", "/r", Target("127.0.0.1:1")))
        assert [route.id for route in await gateway.list_routes()] == ["r"]
    finally:
        await gateway.stop()


async def test_stopping_lets_requests_end_and_leaves_nothing_behind(
    settings: EnvoySettings, client, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    gateway = EnvoyGateway(settings)
    await gateway.start()
    await gateway.put_route(make_route("r", "/r", origin.target))
    pid = gateway.pid
    assert pid is not None
    slow = asyncio.create_task(client.get("/r/slow"))
    async with asyncio.timeout(10):
        while not origin.requests:
            await asyncio.sleep(0.01)
    await gateway.stop()
    assert (await slow).text == "x" * 20
    assert not is_running(pid)
    # `modelyard down` after the platform itself died: an Envoy that nobody started in this process is ended too.
    await gateway.stop()
    left = EnvoyGateway(settings)
    await left.start()
    pid = left.pid
    await left.detach()
    await EnvoyGateway(settings).stop()
    assert pid is not None
    assert not is_running(pid)


async def test_envoys_threads_interrupt_nobody(gateway: EnvoyGateway) -> None:
    threads = [int(thread.name) for thread in Path(f"/proc/{gateway.pid}/task").iterdir()]
    assert len(threads) > 2
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}


async def test_everything_of_envoys_is_for_its_owner_alone(gateway: EnvoyGateway, settings: EnvoySettings) -> None:
    assert settings.directory.stat().st_mode & 0o777 == 0o700
    loose = {
        path.name: oct(path.stat().st_mode & 0o777)
        for path in settings.directory.iterdir()
        if path.stat().st_mode & 0o077
    }
    assert loose == {}
    assert gateway.pid is not None
    listening = subprocess.run(
        ["cat", f"/proc/{gateway.pid}/net/tcp"], capture_output=True, text=True, check=True
    ).stdout
    sockets = {link.readlink().name for link in Path(f"/proc/{gateway.pid}/fd").iterdir() if link.is_symlink()}
    ports = {
        int(fields[1].rpartition(":")[2], 16)
        for fields in (line.split() for line in listening.splitlines()[1:])
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets
    }
    assert ports == {settings.http[0].port, settings.https[0].port}


async def served_expiry(settings: EnvoySettings, authority: Path) -> object:
    context = ssl.create_default_context(cafile=str(authority))
    _, writer = await asyncio.open_connection("127.0.0.1", settings.https[0].port, ssl=context)
    certificate = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    writer.close()
    return certificate.not_valid_after_utc


async def test_a_renewed_certificate_is_served_without_a_restart(
    gateway: EnvoyGateway, settings: EnvoySettings, tmp_path: Path
) -> None:
    authority = tmp_path / "tls" / "ca.crt"
    before, pid = await served_expiry(settings, authority), gateway.pid
    renewed = ensure_certificates(tmp_path / "tls", ["new.example.com"], now=utc_now() - timedelta(days=2))
    assert renewed.expires_at != before
    async with asyncio.timeout(20):
        while await served_expiry(settings, authority) != renewed.expires_at:
            await asyncio.sleep(0.1)
    # A file that can't serve is not taken: what was served goes on.
    renewed.certificate.write_text("half a fi")
    await asyncio.sleep(3)
    assert await served_expiry(settings, authority) == renewed.expires_at
    assert gateway.pid == pid


async def test_logs_stay_small(settings: EnvoySettings, start_origin, make_route: MakeRoute) -> None:
    origin = await start_origin()
    settings = dataclasses.replace(settings, access_log_bytes=20_000, access_log_files=2)
    async with started(settings) as gateway, httpx.AsyncClient() as client:
        await gateway.put_route(make_route("r", "/r", origin.target))
        older = [settings.files.access_log.with_name(f"access.log.{number}") for number in (1, 2, 3)]
        async with asyncio.timeout(30):
            while not older[1].exists():
                await asyncio.gather(*(client.get(f"http://{settings.http[0]}/r") for _ in range(50)))
                await asyncio.sleep(0.2)
        assert not older[2].exists()
        assert all(orjson.loads(line)["route"] == "r" for line in older[1].read_text().splitlines())
