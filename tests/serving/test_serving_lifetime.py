"""The process from start to end, with handlers that are slow to load and slow to answer."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

SLEEPER = """
import time

class Sleeper:
    def initialize(self, context):
        time.sleep(float(context.system_properties["parameters"].get("load", 0)))

    def handle(self, data, context):
        time.sleep(max(data))
        return data
"""


@pytest.fixture(scope="module")
def python(framework_python: Callable[[str, str], Path]) -> Path:
    return framework_python("PYTORCH", "2.13")


@pytest.fixture
def sleeper(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    root.mkdir()
    with zipfile.ZipFile(root / "m.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "m", "handler": "sleeper.py"}}))
        archive.writestr("sleeper.py", SLEEPER)
    return root


def test_alive_while_loading_then_ready(start_server: Any, python: Path, sleeper: Path) -> None:
    server = start_server(sleeper, python, parameters={"load": "1.5"})
    server.wait_for("loading")
    deadline = time.monotonic() + 60
    while not _is_alive(server):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert server.client.get("/v2/health/ready").status_code == 503
    assert server.report["step"] == "loading"
    server.wait_for("ready")
    assert server.client.get("/v2/health/ready").status_code == 200
    assert server.predict({"instances": [0.01]}).json() == {"predictions": [0.01]}


def test_requests_in_flight_are_finished_on_sigterm(start_server: Any, python: Path, sleeper: Path) -> None:
    server = start_server(sleeper, python)
    server.wait_for("ready")
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(server.predict({"instances": [1.5]})))
    asking.start()
    _wait_until_in_flight(server)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("draining", "stopped")
    with pytest.raises(httpx.TransportError):
        httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket))).get("http://m/v2/health/live", timeout=1)
    asking.join(timeout=30)
    assert answers[0].status_code == 200
    assert server.process.wait(timeout=30) == 0
    assert server.report == {"step": "stopped", "message": "stopped"}
    assert not server.socket.exists()


def test_a_body_on_its_way_at_sigterm_is_waited_for(start_server: Any, python: Path, sleeper: Path) -> None:
    server = start_server(sleeper, python, drain_seconds=60.0)
    server.wait_for("ready")
    body = b'{"instances": [0.01]}'
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(60)
        line.connect(str(server.socket))
        line.sendall(b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n" % len(body))
        line.sendall(b"Expect: 100-continue\r\n\r\n")
        assert line.recv(1024).startswith(b"HTTP/1.1 100 ")
        line.sendall(body[:5])
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining", "stopped")
        time.sleep(2.5)  # longer than a server may take for answers that are ready
        line.sendall(body[5:])
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b'{"predictions":[0.01]}')
    assert server.process.wait(timeout=30) == 0
    assert server.report["message"] == "stopped"


def test_requests_that_take_too_long_are_cut_off(start_server: Any, python: Path, sleeper: Path) -> None:
    server = start_server(sleeper, python, drain_seconds=0.5)
    server.wait_for("ready")
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(server.predict({"instances": [30]})))
    asking.start()
    _wait_until_in_flight(server)
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 15
    assert "1 requests were cut off" in server.report["message"]
    asking.join(timeout=30)
    assert answers[0].status_code == 503
    assert "stopping" in answers[0].json()["error"]


def test_sigterm_while_loading_ends_the_server(start_server: Any, python: Path, sleeper: Path) -> None:
    server = start_server(sleeper, python, parameters={"load": "60"}, drain_seconds=0.2)
    server.wait_for("loading")
    time.sleep(1.0)  # into the load, wherever it is by then
    assert server.stop() == 0
    assert server.report["step"] == "stopped"


def test_an_address_in_use_is_told(start_server: Any, python: Path, sleeper: Path, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        server = start_server(sleeper, python, listen=f"127.0.0.1:{port}")
        assert f"127.0.0.1:{port}: Address already in use" in server.wait_for("failed")["message"]
        assert server.process.wait(timeout=30) == 3
    missing = start_server(sleeper, python, listen=str(tmp_path / "absent" / "http.sock"))
    assert "can't listen on" in missing.wait_for("failed")["message"]
    assert missing.process.wait(timeout=30) == 3
    (tmp_path / "stale.sock").write_text("a file")
    file = start_server(sleeper, python, listen=str(tmp_path / "stale.sock"))
    assert "there is a file of that name" in file.wait_for("failed")["message"]


def test_a_socket_left_behind_is_replaced_and_a_live_one_is_not(
    start_server: Any, python: Path, sleeper: Path, tmp_path: Path
) -> None:
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    first = start_server(sleeper, python, listen=str(path))
    first.wait_for("ready")
    second = start_server(sleeper, python, listen=str(path))
    assert "another server answers there" in second.wait_for("failed")["message"]
    client = httpx.Client(transport=httpx.HTTPTransport(uds=str(path)))
    assert client.get("http://m/v2/health/ready").status_code == 200


def test_a_wrong_configuration_ends_with_3(start_server: Any, python: Path, sleeper: Path) -> None:
    server = start_server(sleeper, python, colour="blue", format="CAFFE")
    assert server.process.wait(timeout=60) == 3
    assert "'colour' is not a setting" in server.report["message"]
    assert server.report["step"] == "failed"


def _is_alive(server: Any) -> bool:
    try:
        return server.client.get("/v2/health/live").status_code == 200
    except httpx.TransportError:  # not bound, or bound and not yet listening
        return False


def _wait_until_in_flight(server: Any) -> None:
    deadline = time.monotonic() + 30
    while 'modelyard_serving_in_flight{model="m"} 1' not in server.client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
