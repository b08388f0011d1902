"""A small object store in Swift's dialect that can misbehave on demand, and a way to run plans in a real process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from modelyard.runner.plan import Plan

SOURCES = Path(__file__).parents[2] / "src"
TOKEN = "the-token"


@dataclass
class Entry:
    content: bytes
    etag: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.etag = self.etag or hashlib.md5(self.content).hexdigest()


@dataclass
class Fault:
    """What goes wrong with requests that match, `count` times: an answer, a body cut off after so many bytes, or a pause."""

    method: str
    name: str = ""
    count: int = 1
    status: int = 0
    body: bytes = b""
    cut_after: int | None = None
    pause_seconds: float = 0.0
    etag: str = ""


class SwiftServer:
    def __init__(self) -> None:
        self.containers: dict[str, dict[str, Entry]] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.knows_copy = True
        self.knows_slo = True
        self.lock = threading.Lock()
        self.port = 0
        self._server: _Server | None = None

    def start(self) -> None:
        handler = type("BoundHandler", (_Handler,), {"store": self})
        self._server = _Server(("127.0.0.1", self.port), handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._server.end_connections()

    def url(self, container: str) -> str:
        self.containers.setdefault(container, {})
        return f"http://127.0.0.1:{self.port}/v1/AUTH_test/{container}"

    def put(self, container: str, name: str, content: bytes | str, **headers: str) -> None:
        data = content.encode() if isinstance(content, str) else content
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self.containers.setdefault(container, {})[name] = Entry(data, headers=named)

    def names(self, container: str) -> list[str]:
        return sorted(self.containers.get(container, {}))

    def content(self, container: str, name: str) -> bytes:
        return self.containers[container][name].content

    def count(self, method: str, name: str = "") -> int:
        with self.lock:
            return sum(1 for verb, path, _ in self.requests if verb == method and (not name or path.endswith(name)))

    def connection_count(self) -> int:
        assert self._server is not None
        return self._server.connection_count

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.count > 0 and fault.method == method and (not fault.name or path.endswith(fault.name)):
                    fault.count -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *args: object) -> None:
        self._sockets: list = []
        self.connection_count = 0
        super().__init__(*args)  # type: ignore[arg-type]  # passed on as they came

    def process_request(self, request, client_address) -> None:
        self._sockets.append(request)
        self.connection_count += 1
        super().process_request(request, client_address)

    def end_connections(self) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(2)

    def handle_error(self, request, client_address) -> None:
        """Clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    store: SwiftServer

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_PUT = do_DELETE = do_GET

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        segments = parts.path.split("/", 4)
        container = unquote(segments[3])
        name = unquote(segments[4]) if len(segments) > 4 else ""
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.store.lock:
            self.store.requests.append((self.command, unquote(parts.path), dict(self.headers.items())))
        fault = self.store.take_fault(self.command, unquote(parts.path))
        if fault is not None and fault.pause_seconds:
            time.sleep(fault.pause_seconds)
        if fault is not None and fault.status:
            self._answer(fault.status, fault.body)
            return
        if self.headers.get("X-Auth-Token") != TOKEN:
            self._answer(401, b"<html><h1>Unauthorized</h1><p>This server could not verify you.</p></html>")
            return
        if container not in self.store.containers:
            self._answer(404, b"<html><h1>Not Found</h1><p>The resource could not be found.</p></html>")
            return
        entries = self.store.containers[container]
        if not name:
            self._list(entries, query)
        elif self.command == "PUT":
            self._put(entries, name, body, query)
        elif self.command == "DELETE":
            self._answer(204 if entries.pop(name, None) else 404)
        elif name not in entries:
            self._answer(404, b"<html><h1>Not Found</h1></html>")
        else:
            self._get(entries[name], fault)

    def _list(self, entries: dict[str, Entry], query: dict[str, str]) -> None:
        with self.store.lock:
            names = sorted(
                name for name in entries if name.startswith(query.get("prefix", "")) and name > query.get("marker", "")
            )[: int(query.get("limit", "10000"))]
            found = [
                {
                    "name": name,
                    "bytes": len(entries[name].content),
                    "hash": entries[name].etag,
                    "content_type": entries[name].headers.get("Content-Type", "application/octet-stream"),
                }
                for name in names
            ]
        self._answer(200, json.dumps(found).encode())

    def _put(self, entries: dict[str, Entry], name: str, body: bytes, query: dict[str, str]) -> None:
        headers = {key: self.headers[key] for key in ("Content-Type", "X-Object-Manifest") if self.headers[key]}
        if "multipart-manifest" in query:
            if not self.store.knows_slo:
                self._answer(400, b"SLO is not there")
                return
            pieces = [self._segment(piece) for piece in json.loads(body)]
            etag = hashlib.md5("".join(piece.etag for piece in pieces).encode()).hexdigest()
            headers["X-Static-Large-Object"] = "True"
            entries[name] = Entry(b"".join(piece.content for piece in pieces), etag, headers)
        elif self.headers["X-Copy-From"]:
            _, source_container, source = unquote(self.headers["X-Copy-From"]).split("/", 2)
            copied = self.store.containers[source_container].get(source)
            if copied is None or not self.store.knows_copy:
                self._answer(404 if copied is None else 400)
                return
            etag = copied.etag
            entries[name] = Entry(copied.content, copied.etag, headers)
        else:
            etag = hashlib.md5(body).hexdigest()
            if self.headers["ETag"] and self.headers["ETag"] != etag:
                self._answer(422, b"<html><h1>Unprocessable Entity</h1></html>")
                return
            if "X-Object-Manifest" in headers:
                container, _, prefix = headers["X-Object-Manifest"].partition("/")
                segments = self.store.containers[container]
                body = b"".join(segments[key].content for key in sorted(segments) if key.startswith(prefix))
            entries[name] = Entry(body, etag, headers)
        self._answer(201, headers={"ETag": etag})

    def _segment(self, piece: dict[str, str]) -> Entry:
        _, container, name = piece["path"].split("/", 2)
        entry = self.store.containers[container][name]
        assert entry.etag == piece["etag"]
        assert len(entry.content) == piece["size_bytes"]
        return entry

    def _get(self, entry: Entry, fault: Fault | None) -> None:
        content, status = entry.content, 200
        etag = fault.etag if fault is not None and fault.etag else entry.etag
        headers = {
            "ETag": etag,
            "X-Timestamp": "1700000000.50000",
            "Content-Type": "application/octet-stream",
            **entry.headers,
        }
        if self.headers["If-Match"] and self.headers["If-Match"].strip('"') != entry.etag:
            self._answer(412)
            return
        if self.headers["Range"]:
            begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            content, status = content[begin:], 206
        cut = fault.cut_after if fault is not None else None
        self._answer(status, content, headers, cut)

    def _answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        self.wfile.flush()
        if cut is not None:
            self.close_connection = True
            self.connection.shutdown(2)


@pytest.fixture
def store() -> Iterator[SwiftServer]:
    server = SwiftServer()
    server.start()
    yield server
    server.stop()


@dataclass
class Ran:
    code: int
    output: str
    report: dict

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()

    @property
    def steps(self) -> list[str]:
        return [step["step"] for step in self.report["steps"]]


class RunnerProcess:
    """A plan under way in a process of its own."""

    def __init__(self, plan: Plan, directory: Path, python: str = sys.executable) -> None:
        self.report_path = directory / "report.json"
        plan_path = directory / "plan.json"
        plan_path.write_text(plan._replace(report_path=str(self.report_path)).to_json())
        dropped = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
        env = {name: value for name, value in os.environ.items() if name not in dropped}
        self._output = directory / "output.log"
        self._file = self._output.open("wb")
        self.process = subprocess.Popen(
            [python, "-I", "-S", str(SOURCES / "modelyard/runner/__main__.py"), str(plan_path)],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=directory,
        )

    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 20.0) -> None:
        """Wait until the output has the text."""
        deadline = time.monotonic() + seconds
        while text not in self.output():
            assert self.process.poll() is None, f"ended without {text!r}:\n{self.output()}"
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.output()}"
            time.sleep(0.02)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self, seconds: float = 60.0) -> Ran:
        try:
            code = self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._file.close()
        report = json.loads(self.report_path.read_text()) if self.report_path.exists() else {}
        return Ran(code, self.output(), report)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., RunnerProcess]]:
    """Start a plan; what still runs at the end of the test is killed."""
    started: list[RunnerProcess] = []

    def start(plan: Plan, **options: str) -> RunnerProcess:
        directory = tmp_path / f"run{len(started)}"
        directory.mkdir()
        started.append(RunnerProcess(plan, directory, **options))
        return started[-1]

    yield start
    for run in started:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


@pytest.fixture
def token() -> str:
    return TOKEN


@pytest.fixture
def fault() -> type[Fault]:
    return Fault


@pytest.fixture
def entry() -> type[Entry]:
    return Entry
