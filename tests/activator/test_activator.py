"""The activator as a process of its own, between a gateway's connections and model servers on Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from modelyard.activator.board import Board, Seat
from modelyard.activator.room import WaitingRoom

SECONDS = 30.0


def eventually(check: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:  # short: paths of sockets are
        yield Path(directory)


@pytest.fixture
def room(place: Path) -> Iterator[WaitingRoom]:
    room = WaitingRoom(place / "wait", place / "activator.log")
    yield room
    room.close()
    assert Board(place / "wait").holder() is None


def opened(room: WaitingRoom, *seats: Seat) -> None:
    room.publish(seats)
    eventually(lambda: all(room.is_open(seat.id) for seat in seats))


def seat(room: WaitingRoom, id: str = "model", **fields: object) -> Seat:
    return Seat(id, room.socket_of(id), **fields)  # type: ignore[arg-type]  # fields of the test's choice


async def ask(room: WaitingRoom, body: bytes = b"x", id: str = "model") -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(uds=room.socket_of(id))
    async with httpx.AsyncClient(transport=transport, timeout=SECONDS) as client:
        return await client.post("http://model/predict", content=body)


@contextlib.asynccontextmanager
async def model_server(path: Path, name: str = "one"):
    """Answers each request with its name and the length of the body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                answer = f"{name} {len(await reader.readexactly(length))}".encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
                await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield str(path)
    finally:
        server.close()


async def test_requests_wait_for_the_server_and_say_so(room: WaitingRoom, place: Path) -> None:
    opened(room, seat(room))
    body = os.urandom(3_000_000)  # more than any buffer on the way holds
    waiting = [asyncio.create_task(ask(room, body)) for _ in range(8)]
    heard: set[str] = set()
    while not heard:
        heard = room.take_wakes()
        await asyncio.sleep(0.02)
    assert heard == {"model"}
    assert not any(task.done() for task in waiting)
    async with model_server(place / "server.sock") as address:
        room.publish([seat(room, addresses=(str(place / "gone.sock"), address))])
        answers = await asyncio.gather(*waiting)
        assert [(answer.status_code, answer.text) for answer in answers] == [(200, "one 3000000")] * 8
        assert (await ask(room)).text == "one 1"  # who comes late is passed on at once


async def test_what_waits_too_long_or_is_too_much_is_refused_with_the_reason(room: WaitingRoom) -> None:
    opened(room, seat(room, hold_seconds=1.0, limit=2, message="Waiting for 2.0 GiB of memory."))
    answers = await asyncio.gather(*(ask(room, b"x" * 500_000) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.headers["retry-after"] for answer in answers} == {"5"}
    sentences = sorted(answer.json()["error"] for answer in answers)
    assert sentences == [
        *["2 requests wait for this model to start; no more may. Try again in 5 seconds."] * 3,
        *["The model rests and did not start within 1 s: Waiting for 2.0 GiB of memory. Try again in 5 seconds."] * 2,
    ]
    assert answers[0].json()["header"]["isSuccessful"] is False


async def test_it_outlives_who_started_it_and_is_the_only_one(room: WaitingRoom, place: Path) -> None:
    opened(room, seat(room))
    board = Board(place / "wait")
    pid = board.holder()
    waiting = asyncio.create_task(ask(room))
    await asyncio.sleep(0.2)
    other = WaitingRoom(place / "wait", place / "activator.log")  # as a server does that comes after a killed one
    async with model_server(place / "server.sock") as address:
        other.publish([seat(other, addresses=(address,))])
        assert (await waiting).text == "one 1"
    assert board.holder() == pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: board.holder() is None)
    opened(other, seat(other), seat(other, "second"))  # started again, over the sockets that were left
    assert board.holder() not in (None, pid)


async def test_who_is_off_the_board_is_refused(room: WaitingRoom) -> None:
    opened(room, seat(room), seat(room, "second"))
    waiting = asyncio.create_task(ask(room))
    await asyncio.sleep(0.2)
    room.publish([seat(room, "second")])
    answer = await waiting
    assert answer.status_code == 503
    assert answer.json()["error"] == "The model is no longer served here. Try again in 5 seconds."
    eventually(lambda: not room.is_open("model"))
    assert room.is_open("second")


async def test_a_link_in_the_place_of_a_socket_is_not_followed(room: WaitingRoom, place: Path) -> None:
    """What a model server may put there; the other end could be anybody's."""
    link = place / "link.sock"
    link.symlink_to(place / "other.sock")
    opened(room, seat(room, addresses=(str(link),), hold_seconds=0.5))
    async with model_server(place / "other.sock", "other"):
        refused = await ask(room)
    assert refused.status_code == 503 and "other" not in refused.text
