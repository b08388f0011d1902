"""Instances that find each other: ports that are kept, introductions, and the second request to end."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelyard.compute.backends.local import ports
from modelyard.compute.port import Cause, LaunchRefused, Network, Peer, Phase

# Waits for its introduction, listens on its own port, and says what the others say.
MEETING = """
import json, os, socket, sys, threading, time
path = "/run/modelyard/peers.json"
while not os.path.exists(path): time.sleep(0.01)
with open(path) as file: peers = json.load(file)
own = int(sys.argv[1])
server = socket.create_server(("127.0.0.1", peers[own]["ports"]["door"]))
def greet():
    for _ in peers[:-1]:
        client, _ = server.accept()
        client.sendall(b"this is %d" % own)
        client.close()
thread = threading.Thread(target=greet)
thread.start()
heard = []
for peer in peers:
    if peer["index"] == own: continue
    for _ in range(1000):
        try:
            client = socket.create_connection((peer["host"], peer["ports"]["door"]))
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    heard.append(client.recv(100).decode())
thread.join()
print(peer["interface"], sorted(heard))
"""


def gang(world: Any, size: int, code: str) -> list[Any]:
    first = world.python(code)
    return [
        replace(
            first,
            id=f"{first.workload_id}.{index}.0",
            index=index,
            ports=("door",),
            task=replace(first.task, argv=(*first.task.argv, str(index))),
        )
        for index in range(size)
    ]


async def test_instances_meet_at_their_ports(world: Any) -> None:
    instances = gang(world, 3, MEETING)
    for each in instances:
        await world.compute.launch(each)
    networks = [(await world.until(each.id, Phase.RUNNING)).network for each in instances]
    peers = [Peer(index, network) for index, network in enumerate(networks)]
    for each in instances:
        await world.compute.introduce(each.id, list(reversed(peers)))
    for index, each in enumerate(instances):
        seen = await world.until(each.id, Phase.EXITED)
        others = [f"this is {other}" for other in range(3) if other != index]
        assert (seen.exit.code, await world.output(each.id)) == (0, f"lo {others}\n")


async def test_a_port_is_kept_from_others_until_the_instance_ends(world: Any) -> None:
    instance = world.instance("sleep 60", ports=("door",))
    await world.compute.launch(instance)
    network = (await world.until(instance.id, Phase.RUNNING)).network
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", network.ports["door"]))
    await world.compute.stop(instance.id)
    await world.until(instance.id, Phase.EXITED)
    await asyncio.sleep(0)
    deadline = asyncio.get_running_loop().time() + 10
    while True:  # the supervisor ends a moment after it has recorded the exit
        with socket.socket() as stranger:
            try:
                stranger.bind(("127.0.0.1", network.ports["door"]))
                break
            except OSError:
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.01)


def test_no_port_is_given_twice_whoever_else_chooses() -> None:
    held: list[tuple[list[Any], dict[str, int]]] = []
    begin = threading.Barrier(8)

    def take() -> None:
        begin.wait()
        held.extend(ports.hold(["a", "b"]) for _ in range(40))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [number for _, named in held for number in named.values()]
    automatic = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(numbers) == len(set(numbers)) == 640
    assert max(numbers) < max(automatic, 32_000)
    # Those who set the option can listen; then nobody else can.
    with socket.create_server(("", numbers[0])) as server, pytest.raises(OSError, match="in use"):
        assert server.getsockname()[1] == numbers[0]
        socket.create_server(("", numbers[0]))
    for sockets, _ in held:
        for each in sockets:
            each.close()


async def test_a_link_in_the_way_is_neither_followed_nor_kept(world: Any, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("as it was")
    instance = world.instance(
        f"ln -s {precious} /run/modelyard/peers.json; echo laid; "
        "while [ -L /run/modelyard/peers.json ]; do sleep 0.05; done; cat /run/modelyard/peers.json"
    )
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "laid")
    await world.compute.introduce(instance.id, [Peer(0, Network("127.0.0.1", {"door": 7}))])
    await world.until(instance.id, Phase.EXITED)
    assert precious.read_text() == "as it was"
    told = json.loads((await world.output(instance.id)).splitlines()[-1])
    assert told == [{"index": 0, "host": "127.0.0.1", "ports": {"door": 7}, "interface": None}]


async def test_a_directory_in_the_way_keeps_nobody_from_going_on(world: Any) -> None:
    instance = world.instance("mkdir /run/modelyard/told.json; echo laid; sleep 60")
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "laid")
    await world.compute.tell(instance.id, "another", "something else", "{}")
    (listed,) = await world.compute.list_instances()
    assert (listed.role, listed.title) == ("another", "something else")
    run = json.loads((world.directory(instance) / "instance.json").read_text())["run_directory"]
    assert not list(Path(run).glob(".told*"))
    await world.compute.stop(instance.id)
    await world.until(instance.id, Phase.EXITED)


async def test_a_ports_name_is_checked(world: Any) -> None:
    with pytest.raises(LaunchRefused, match="can't be a port's name"):
        await world.compute.launch(world.instance("true", ports=("../x",)))


async def test_insisting_is_a_second_request(world: Any) -> None:
    instance = world.instance(
        "count=0; trap 'count=$((count+1)); echo told $count; [ $count = 2 ] && exit 9' TERM; echo up; while :; do sleep 0.05; done",
        grace_seconds=60.0,
    )
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    await world.compute.stop(instance.id)
    await world.until_printed(instance.id, "told 1")
    for _ in range(2):  # also after a request without it, and twice is once
        await world.compute.stop(instance.id, insist_after_seconds=0.2)
    seen = await world.until(instance.id, Phase.EXITED)
    assert (seen.exit.cause, seen.exit.code) == (Cause.STOPPED, 9)
    assert (await world.output(instance.id)).splitlines() == ["up", "told 1", "told 2"]
