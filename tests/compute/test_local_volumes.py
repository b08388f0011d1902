"""Storage that outlives instances, storage of a fixed size, and networks of one's own, on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.compute.backends.local import backend, loops
from modelyard.compute.backends.local.settings import Isolation
from modelyard.compute.port import RUN, Command, Environment, LaunchRefused, Phase, Volume
from modelyard.kit.errors import RetryLater

pytestmark = pytest.mark.slow

SIZE = 32 << 20
PLAIN = Environment("bare Python", "3.11", ())


def kept(volume_id: str = "kept") -> dict[str, Any]:
    return {"volumes": (Volume(volume_id, "/root/data", SIZE),), "boot_bytes": SIZE, "account": volume_id}


async def test_a_volume_outlives_instances_and_the_root_does_not(world: Any) -> None:
    _, printed = await world.run("echo one > /root/data/a; echo two > /root/b; touch /c && echo written", **kept())
    assert printed == "written\n"
    _, printed = await world.run("cat /root/data/a; ls /root/b /c 2>/dev/null; stat -c %u /root/data/a", **kept())
    assert printed == "one\n0\n"
    assert await world.compute.has_volume("kept")
    await world.compute.remove_volume("kept")
    await world.compute.remove_volume("kept")
    assert not await world.compute.has_volume("kept")
    _, printed = await world.run("ls /root/data", **kept())
    assert printed == ""


async def test_what_fills_up_gets_no_space_left(world: Any, is_root: bool) -> None:
    if not is_root:  # sizes are looked at now and then there
        return
    fill = "dd if=/dev/zero of={} bs=1M count=64 2>&1 | grep -o 'No space left on device'; "
    _, printed = await world.run(
        fill.format("/root/data/x") + fill.format("/root/y") + "rm /root/y && echo on", **kept()
    )
    assert printed == "No space left on device\nNo space left on device\non\n"


async def test_a_volume_is_one_instance_s_at_a_time(world: Any, is_root: bool) -> None:
    if not is_root:  # a directory can be shared without harm
        return
    first = world.instance("echo up; sleep 1000", **kept())
    await world.compute.launch(first)
    await world.until_printed(first.id, "up")
    with pytest.raises(RetryLater, match="in use"):
        await world.compute.launch(world.instance("true", **kept()))
    with pytest.raises(RetryLater, match="in use"):
        await world.compute.remove_volume("kept")
    await world.compute.stop(first.id)
    await world.until(first.id, Phase.EXITED)
    await world.compute.remove_volume("kept")


async def test_a_killed_supervisor_leaves_no_mount(world: Any, is_root: bool) -> None:
    if not is_root:
        return
    instance = world.instance("echo up > /root/data/x; sync; echo up; sleep 1000", **kept())
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    image = str(world.root / "compute" / "volumes" / "kept" / "image")
    assert loops.is_attached(image)
    os.kill(json.loads((world.directory(instance) / "supervisor.json").read_text())["pid"], 9)
    await world.until(instance.id, Phase.EXITED)
    for _ in range(500):
        if not loops.is_attached(image):
            break
        await asyncio.sleep(0.02)
    _, printed = await world.run("cat /root/data/x", **kept())
    assert printed == "up\n"


async def test_twenty_instances_find_every_byte_of_those_before(world: Any) -> None:
    ends = ("", "sleep 1000", "sleep 1000")
    for number in range(20):
        script = (
            "cd /root/data && { [ ! -e sums ] || sha256sum --quiet -c sums; } && ls | grep of | wc -l"
            f" && head -c 300001 /dev/urandom > 'of {number}' && sha256sum of* > sums && echo whole; {ends[number % 3]}"
        )
        instance = world.instance(script, **kept())
        await world.compute.launch(instance)
        await world.until_printed(instance.id, "whole")
        assert (await world.output(instance.id)).split() == [str(number), "whole"]
        if number % 3 == 1:
            await world.compute.stop(instance.id)
        elif number % 3 == 2:
            os.kill(json.loads((world.directory(instance) / "supervisor.json").read_text())["pid"], 9)
        await world.until(instance.id, Phase.EXITED)


async def test_without_loop_devices_storage_is_a_directory(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "can_mount_images", lambda _: "no loop devices")
    _, printed = await world.run("echo one > /root/data/a; touch /c; ls /root", **kept())
    assert printed == "data\n"
    seen, printed = await world.run("cat /root/data/a; ls /c 2>/dev/null", **kept())
    assert printed == "one\n"
    assert any("not enforced" in note for note in seen.notes) or not seen.notes


@pytest.mark.parametrize("mount", [Volume("UP", "/root/x", 1), Volume("a", "/etc/x", 1), Volume("a", "relative", 1)])
async def test_bad_volumes_are_refused(world: Any, mount: Volume) -> None:
    with pytest.raises(LaunchRefused):
        await world.compute.launch(world.instance("true", volumes=(mount,)))


@pytest.fixture
def listener() -> Iterator[tuple[str, int]]:
    """Something of this machine that answers `secret` to whoever connects."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nsecret")

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()


TRY = """
import os, socket, sys, urllib.request
sys.path.insert(0, "/opt/modelyard/lib")
from modelyard.notebook.network import WayOut
door, other = int(sys.argv[1]), int(sys.argv[2])
way = WayOut("/run/modelyard/relay.sock"); way.open()
for port in (door, other):
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as c: print(port == door, c.recv(100)[-6:].decode())
    except OSError as error: print(port == door, "unreachable")
proxy = urllib.request.ProxyHandler({"http": way.proxy_url, "https": way.proxy_url})
opener = urllib.request.build_opener(proxy)
for url in (f"http://127.0.0.1:{other}/", f"http://localhost:{other}/", f"http://[::ffff:127.0.0.1]:{other}/", "http://169.254.169.254/",
            f"http://0.0.0.0:{other}/", "http://no-such-name.invalid/"):
    try: print(opener.open(url, timeout=20).read())
    except urllib.error.HTTPError as error: print(error.code)
for place in ("Store.Vendor.example:443", "store.vendor.example:444"):
    with socket.create_connection(("127.0.0.1", int(way.proxy_url.rsplit(":", 1)[1])), 5) as c:
        c.sendall(f"CONNECT {place} HTTP/1.1\\r\\n\\r\\n".encode())
        print(c.makefile("rb").read().split(b" ")[1].decode())
print(sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else open("/proc/net/dev").read().count(":"))
"""


async def test_an_own_network_has_the_front_door_and_nothing_else_of_the_machine(
    world: Any, listener: tuple[str, int]
) -> None:
    with socket.socket() as other, socket.socket() as third:
        for each in (other, third):
            each.bind(("0.0.0.0", 0))
            each.listen(4)
        command = Command(("{python}", "-c", TRY, str(listener[1]), str(other.getsockname()[1])))
        door = f"127.0.0.1:{listener[1]}"
        instance = world.instance(
            command,
            environment=PLAIN,
            has_own_network=True,
            doors=(door,),
            door_names={"store.vendor.example": door},
            **kept(),
        )
        _, printed = await world.run(instance)
    lines = printed.splitlines()
    assert lines[:2] == ["True secret", "False unreachable"], printed
    assert lines[2:8] == ["403"] * 6, printed
    assert lines[8:10] == ["200", "403"], printed
    assert lines[10] in ("['lo']", "1")


async def test_the_relay_comes_back_when_it_is_killed(world: Any, listener: tuple[str, int]) -> None:
    code = (
        "import socket, sys, time; from modelyard.notebook.network import WayOut\n"
        f"way = WayOut({RUN!r} + '/relay.sock'); way.open(); print('open', flush=True)\n"
        "port = int(sys.argv[1])\n"
        "while True:\n"
        "    try:\n"
        "        with socket.create_connection(('127.0.0.1', port), 5) as c:\n"
        "            if b'secret' in c.recv(100): print('reached', flush=True)\n"
        "    except OSError: print('lost', flush=True)\n"
        "    time.sleep(0.1)\n"
    )
    instance = world.instance(
        Command(("{python}", "-c", code, str(listener[1]))),
        environment=PLAIN,
        has_own_network=True,
        doors=(f"127.0.0.1:{listener[1]}",),
        boot_bytes=SIZE,
    )
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "reached")
    supervisor = json.loads((world.directory(instance) / "supervisor.json").read_text())["pid"]
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    relay = next(int(pid) for pid in children if b"relay.py" in Path(f"/proc/{pid}/cmdline").read_bytes())
    assert Path(f"/proc/{relay}").stat().st_uid != 0 or os.geteuid() != 0, "it has dropped its rights"
    os.kill(relay, 9)
    before = len(await world.output(instance.id))
    for _ in range(600):
        if "reached" in (await world.output(instance.id))[before + 40 :]:
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError(await world.output(instance.id))


@pytest.fixture(params=[Isolation.WORKLOAD_USER, Isolation.NAMESPACES])
def is_root(request: pytest.FixtureRequest, world: Any) -> bool:
    """Each of the sandboxes that this machine has; whether it is that of a platform that is root."""
    world.compute._settings = type(world.compute._settings)(isolation=request.param)
    return request.param is Isolation.WORKLOAD_USER and os.geteuid() == 0
