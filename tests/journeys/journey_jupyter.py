"""Talks to a Jupyter server as a browser's page does: REST calls and the WebSockets of kernels and terminals, with the standard library alone."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_ANSWER_SECONDS = 60.0


class Jupyter:
    """One Jupyter server, reached through its Unix socket or at an address with a host name.

    Args:
        address: a path, or host and port.
        host: the name that requests carry.
        headers: what each request carries, a sign-in say.
    """

    def __init__(self, address: str | tuple[str, int], host: str = "localhost", **headers: str) -> None:
        self._address = address
        self._host = host
        self._headers = headers

    def connect(self) -> socket.socket:
        """A connection."""
        family = socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(_ANSWER_SECONDS)
        connection.connect(self._address)
        return connection

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Status and body of an answer."""
        connection = http.client.HTTPConnection(self._host)
        connection.sock = self.connect()
        sent = {"Host": self._host, "Cookie": "_xsrf=x", "X-XSRFToken": "x", **self._headers, **headers}
        if "_xsrf=" not in sent["Cookie"]:
            sent["Cookie"] += "; _xsrf=x"
        connection.request(method, path, None if body is None else json.dumps(body).encode(), sent)
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer that must be a success."""
        status, content = self.call(method, path, body)
        assert status < 300, f"{method} {path}: {status} {content[:300]!r}"
        return json.loads(content) if content else None

    def kernel(self, name: str = "python3") -> Kernel:
        """A new kernel."""
        return Kernel(self, self.json("POST", "/api/kernels", {"name": name})["id"])

    def run(self, code: str, kernel: str = "python3") -> str:
        """What some code prints in a kernel of its own."""
        running = self.kernel(kernel)
        try:
            return running.run(code)
        finally:
            running.end()

    def shell(self, command: str, seconds: float = 120.0) -> str:
        """What a command prints in a terminal."""
        name = self.json("POST", "/api/terminals", {})["name"]
        mark = uuid.uuid4().hex
        socket = WebSocket(self, f"/terminals/websocket/{name}")
        try:
            socket.send(json.dumps(["stdin", f"{command}; echo {mark[:16]}''{mark[16:]}\n"]))
            printed = ""
            deadline = time.monotonic() + seconds
            while mark not in printed:
                assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {command}\n{printed[-2000:]}"
                kind, *rest = json.loads(socket.receive(seconds))
                printed += rest[0] if kind == "stdout" else ""
            return printed.partition(mark)[0].replace("\r", "")
        finally:
            socket.close()
            self.call("DELETE", f"/api/terminals/{name}")

    def upgrade(self, path: str) -> WebSocket:
        """A WebSocket."""
        return WebSocket(self, path)

    def handshake(self, connection: socket.socket, path: str) -> bytes:
        """Ask for a WebSocket; the head of the answer."""
        fields = {
            "Host": self._host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
            **self._headers,
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        connection.sendall("\r\n".join(lines).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(1)
            if not piece:
                break
            head += piece
        return head


class WebSocket:
    """A WebSocket (RFC 6455), as much of it as Jupyter needs."""

    def __init__(self, jupyter: Jupyter, path: str) -> None:
        self._connection = jupyter.connect()
        head = jupyter.handshake(self._connection, path)
        assert b" 101 " in head.split(b"\r\n", 1)[0], head

    def send(self, text: str) -> None:
        """Send a text."""
        self._send(0x81, text.encode())

    def _send(self, kind: int, data: bytes) -> None:
        mask = os.urandom(4)
        length = len(data)
        head = struct.pack("!BB", kind, 0x80 | length) if length < 126 else struct.pack("!BBQ", kind, 0xFF, length)
        self._connection.sendall(head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)))

    def receive(self, seconds: float = _ANSWER_SECONDS) -> str:
        """The next text. Raises TimeoutError, and ConnectionError when it was closed."""
        self._connection.settimeout(seconds)
        text = b""
        while True:
            first, second = self._exactly(2)
            length = second & 0x7F
            if length >= 126:
                length = int.from_bytes(self._exactly(2 if length == 126 else 8), "big")
            data = self._exactly(length)
            if first & 0x0F == 8:
                raise ConnectionError(f"closed: {data!r}")
            if first & 0x0F == 9:
                self._send(0x8A, data)  # who answers no ping is cut off after a while
            if first & 0x0F in (0, 1, 2):
                text += data
                if first & 0x80:
                    return text.decode()

    def close(self) -> None:
        """Cut the connection."""
        with suppress(OSError):
            self._connection.close()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._connection.recv(count - len(data))
            if not piece:
                raise ConnectionError("closed without a word")
            data += piece
        return data


class Kernel:
    """A running kernel."""

    def __init__(self, jupyter: Jupyter, id: str) -> None:
        self._jupyter = jupyter
        self.id = id
        self.session = uuid.uuid4().hex
        self.socket = self.open()

    def open(self) -> WebSocket:
        """A connection to its channels, in the page's session."""
        return self._jupyter.upgrade(f"/api/kernels/{self.id}/channels?session_id={self.session}")

    def send(self, code: str) -> str:
        """Have some code run; the request's id."""
        request = uuid.uuid4().hex
        message = {
            "header": {"msg_id": request, "msg_type": "execute_request", "username": "", "session": self.session,
                       "version": "5.3", "date": "2026-01-01T00:00:00Z"},
            "parent_header": {}, "metadata": {}, "channel": "shell", "buffers": [],
            "content": {"code": code, "silent": False, "store_history": False, "allow_stdin": False,
                        "stop_on_error": True, "user_expressions": {}},
        }  # fmt: skip
        self.socket.send(json.dumps(message))
        return request

    def messages(self, request: str, seconds: float = _ANSWER_SECONDS) -> Iterator[tuple[str, Any]]:
        """Types and contents of what the kernel says to a request, until it is idle again."""
        while True:
            message = json.loads(self.socket.receive(seconds))
            if message["parent_header"].get("msg_id") != request:
                continue
            yield message["msg_type"], message["content"]
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return

    def run(self, code: str, seconds: float = _ANSWER_SECONDS) -> str:
        """What some code prints; its error's text where there is one."""
        printed = ""
        for kind, content in self.messages(self.send(code), seconds):
            if kind == "stream":
                printed += content["text"]
            elif kind == "error":
                printed += f"{content['ename']}: {content['evalue']}"
        return printed

    def end(self) -> None:
        """Shut it down."""
        self.socket.close()
        self._jupyter.call("DELETE", f"/api/kernels/{self.id}")
