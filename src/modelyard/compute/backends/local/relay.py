"""Lets an instance that has a network of its own reach the front door and the world, and nothing else of this machine.

One of these runs beside such an instance, outside of its sandbox, as its user and in its control groups. The instance makes listening
sockets in its own network and hands them over through a Unix socket (one line of JSON with the descriptors beside it, `SCM_RIGHTS`); who
connects to them inside is served here:

- `door`: passed on to one of the front door's addresses, whatever it speaks.
- `proxy`: an HTTP proxy (RFC 9110, section 9.3.6 for CONNECT) that resolves names and connects to other machines. Addresses of this
  machine, link-local ones (cloud metadata) and multicast are refused; what the administrator's package configuration names is not.

To whoever connects to the Unix socket it first says the front door's addresses. The listeners go when the connection that brought them
does. Run as a program by the supervisor: `relay.py PLAN UID GID`; standard library only. Everything that is imported late is touched
before the rights are dropped, since the user can't read the platform's Python.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import ipaddress
import json
import os
import socket
import stat
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

_HEAD_BYTES = 32 * 1024
_HEAD_SECONDS = 30.0
_CONNECT_SECONDS = 20.0
_PIECE_BYTES = 64 * 1024
_MESSAGE_BYTES = 4096
_MAX_LISTENERS = 8
_BACKLOG = 8

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Refused(Exception):
    """The destination is not allowed or can't be reached; the sentence goes to the user."""


class Rules(NamedTuple):
    """Where connections may go.

    Attributes:
        doors, allowed: `host:port` of the front door's addresses, and of others on this machine.
        names: host names whose port 443 is a door, each with the door: the hosts that scripts of the official client call by name.
    """

    doors: tuple[str, ...]
    allowed: frozenset[str]
    names: Mapping[str, str] = {}


async def addresses(rules: Rules, host: str, port: int) -> list[tuple[str, int]]:
    """What a name stands for, as addresses that may be connected to. Raises `Refused`."""
    name = f"{host}:{port}"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Refused(f"the name '{host}' can't be resolved") from None
    places = list(dict.fromkeys((str(entry[4][0]), port) for entry in found))
    if name in rules.doors or name in rules.allowed:
        return places
    kept = [place for place in places if _is_elsewhere(place[0])]
    if not kept:
        raise Refused(f"'{name}' is on the platform's own machine, which notebooks can't reach")
    return kept


async def connect(places: list[tuple[str, int]]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The first that answers. Raises `Refused`."""
    problem = "nothing answers"
    for host, port in places:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await asyncio.open_connection(host, port)
        except TimeoutError:
            problem = f"{host} port {port} does not answer"
        except OSError as error:
            problem = f"{host} port {port}: {error.strerror or error}"
    raise Refused(problem)


def door_server(address: str) -> Serve:
    """Serves connections to one of the front door's addresses."""
    host, _, port = address.rpartition(":")

    async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(Refused):
            await _join(reader, writer, await connect([(host, int(port))]))

    return _serve


def proxy_server(rules: Rules) -> Serve:
    """Serves an HTTP proxy's connections, one request each."""

    async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            await _proxied(rules, head, reader, writer)
        except Refused as refusal:
            await _answer(writer, "403 Forbidden", str(refusal))
        except (TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await _answer(writer, "400 Bad Request", "this is an HTTP proxy; the request can't be read")

    return _serve


async def _proxied(rules: Rules, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    line, _, fields = head.partition(b"\r\n")
    method, target, version = line.decode("latin-1").split(" ")
    if method == "CONNECT":
        parts = urlsplit(f"//{target}")
        host, port = parts.hostname or "", parts.port or 443
        door = rules.names.get(host.lower()) if port == 443 else None
        if door is not None:
            host, port = door.rsplit(":", 1)[0], int(door.rsplit(":", 1)[1])
        other = await connect(await addresses(rules, host, port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    else:
        parts = urlsplit(target)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("not an absolute http URL")
        other = await connect(await addresses(rules, parts.hostname, parts.port or 80))
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        kept = [field for field in fields.split(b"\r\n") if field and not _is_of_this_hop(field)]
        request = [f"{method} {path} {version}".encode("latin-1"), *kept, b"Connection: close", b"", b""]
        other[1].write(b"\r\n".join(request))
    await _join(reader, writer, other)


def _is_of_this_hop(field: bytes) -> bool:
    name = field.partition(b":")[0].strip().lower()
    return name in {b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization", b"upgrade"}


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    other: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Pass bytes on in both directions until both have ended."""
    try:
        await asyncio.gather(_pass_on(reader, other[1]), _pass_on(other[0], writer))
    finally:
        other[1].close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()  # one side is gone: so is what the other says to it


async def _answer(writer: asyncio.StreamWriter, status: str, sentence: str) -> None:
    body = f"{sentence}\n".encode()
    with contextlib.suppress(OSError):
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
            f"Connection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()


def _is_elsewhere(text: str) -> bool:
    """Whether an address belongs to another machine that may be reached."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))  # sends nothing; the kernel says which of our addresses it would use
        except OSError:
            return True
        return ipaddress.ip_address(probe.getsockname()[0]) != address


class Relay:
    """Takes listeners over and serves who connects to them."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, control: socket.socket) -> None:
        """Somebody has connected to the Unix socket."""
        with contextlib.suppress(OSError):
            connection, _ = control.accept()
            task = asyncio.ensure_future(self._attend(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _attend(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        servers: list[asyncio.Server] = []
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(connection, json.dumps({"doors": self._rules.doors}).encode())
            while True:
                await _readable(loop, connection)
                data, descriptors, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, _MAX_LISTENERS)
                listeners = [socket.socket(fileno=descriptor) for descriptor in descriptors]
                if not data:
                    return
                servers += await self._serve(data, listeners, len(servers))
                await loop.sock_sendall(connection, b"ok\n")
        except (OSError, ValueError):
            return
        finally:
            for server in servers:
                server.close()
            connection.close()

    async def _serve(self, data: bytes, listeners: list[socket.socket], known_count: int) -> list[asyncio.Server]:
        """One server for each listener; the message names what each is for: `{"kinds": ["proxy", "door 127.0.0.1:10090"]}`."""
        message: Any = json.loads(data)
        kinds = cast("list[str]", message["kinds"])
        if len(kinds) != len(listeners) or known_count + len(kinds) > _MAX_LISTENERS:
            raise ValueError("as many listeners as kinds, and not many")
        servers: list[asyncio.Server] = []
        for kind, listener in zip(kinds, listeners, strict=True):
            if listener.family != socket.AF_INET or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise ValueError("not a listening socket")
            word, _, address = kind.partition(" ")
            if word == "door" and address not in self._rules.doors:
                raise ValueError("not a door")
            serve = door_server(address) if word == "door" else proxy_server(self._rules)
            listener.setblocking(False)
            servers.append(await asyncio.start_server(_guarded(serve), sock=listener, limit=_HEAD_BYTES))
        return servers


def _guarded(serve: Serve) -> Serve:
    async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except OSError:
            return
        finally:
            writer.close()

    return _serve


async def _readable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    ready = loop.create_future()
    loop.add_reader(connection, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(connection)


async def run(path: str, rules: Rules, uid: int | None, gid: int | None) -> None:
    """Listen, drop all rights, and serve until killed."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.chdir(os.path.dirname(path))  # noqa: PTH120 - an address has at most 107 bytes, however deep the directory lies
    path = os.path.basename(path)  # noqa: PTH119 - see above
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):  # of one that was killed
            os.unlink(path)  # noqa: PTH108 - pathlib follows nothing more
    control.bind(path)
    control.listen(_BACKLOG)
    control.setblocking(False)
    codecs.lookup("idna")
    with contextlib.suppress(OSError):
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    if uid is not None and gid is not None:
        os.chown(path, uid, gid)
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    relay = Relay(rules)
    asyncio.get_running_loop().add_reader(control, relay.accept, control)
    await asyncio.Event().wait()


def main(arguments: list[str]) -> None:
    """`relay.py PLAN UID GID`: the plan is the JSON of `records.RelayPlan`; `-` for no other user."""
    plan = json.loads(arguments[0])
    uid, gid = (None if text == "-" else int(text) for text in arguments[1:3])
    asyncio.run(run(plan["socket"], Rules(tuple(plan["doors"]), frozenset(plan["allowed"]), plan["names"]), uid, gid))


if __name__ == "__main__":
    main(sys.argv[1:])
