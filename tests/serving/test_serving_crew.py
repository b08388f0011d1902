"""Several processes behind one model server: as many as memory allows, each of them replaceable."""

from __future__ import annotations

import json
import os
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelyard.serving.crew import own_memory, sockets_of
from modelyard.serving.merged import merge

TELLER = """
import os

class Teller:
    def initialize(self, context):
        if context.system_properties["parameters"].get("fails"):
            raise RuntimeError("no weights")

    def handle(self, data, context):
        return [os.getpid() for _ in data]
"""
SECONDS = 120.0


@pytest.fixture(scope="module")
def python(framework_python: Callable[[str, str], Path]) -> Path:
    return framework_python("PYTORCH", "2.13")


@pytest.fixture
def teller(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    root.mkdir()
    with zipfile.ZipFile(root / "m.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "m", "handler": "teller.py"}}))
        archive.writestr("teller.py", TELLER)
    return root


def eventually(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def pid_behind(server: Any, name: str) -> int:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.directory / f"{name}.sock")), timeout=30) as client:
        return int(client.post("http://m/v1/models/m:predict", json={"instances": [1]}).json()["predictions"][0])


@pytest.mark.slow
def test_each_process_answers_and_can_be_replaced(start_server: Any, python: Path, teller: Path) -> None:
    server = start_server(teller, python, workers=2)
    assert server.wait_for("ready")["sockets"] == ["http"]  # it answers as soon as one of them does
    eventually(lambda: server.report["sockets"] == ["http", "http1"])
    assert server.report["message"].endswith(" by 2 processes")
    pids = [pid_behind(server, name) for name in ("http", "http1")]
    assert len({*pids, server.process.pid}) == 3
    for _ in range(3):
        pid_behind(server, "http1")
    for _ in range(2):  # whoever is asked tells of all
        text = server.client.get("/metrics").text
        assert 'modelyard_serving_requests_total{model="m",code="200"} 5' in text
        assert 'modelyard_serving_ready{model="m"} 1' in text
    os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: server.report["sockets"] == ["http1"])
    assert pid_behind(server, "http1") == pids[1]
    eventually(lambda: server.report["sockets"] == ["http", "http1"])
    assert pid_behind(server, "http") not in pids
    assert "process 0 has ended (killed by signal 9); starting it again in 0.5 s" in server.stderr
    assert server.stop() == 0
    assert server.report["step"] == "stopped"
    assert not any(own_memory(pid) for pid in pids)


@pytest.mark.slow
def test_there_are_as_many_as_memory_has_room_for(start_server: Any, python: Path, teller: Path) -> None:
    server = start_server(teller, python, workers=4, memory_bytes=64 * 2**20)
    server.wait_for("ready")
    eventually(lambda: "have no room for another" in server.stderr)
    assert server.report["sockets"] == ["http"]
    assert pid_behind(server, "http")
    os.kill(pid_behind(server, "http"), signal.SIGKILL)
    assert server.process.wait(SECONDS) == 1  # the last one is gone: whoever watches starts all anew


@pytest.mark.slow
def test_a_model_that_cant_be_loaded_ends_them_all(start_server: Any, python: Path, teller: Path) -> None:
    server = start_server(teller, python, workers=2, parameters={"fails": "yes"})
    assert "no weights" in server.wait_for("failed")["message"]
    assert server.process.wait(SECONDS) == 3


def test_sockets_have_names_that_are_known_before() -> None:
    assert sockets_of("/run/modelyard/http.sock", 3) == [
        "/run/modelyard/http.sock",
        "/run/modelyard/http1.sock",
        "/run/modelyard/http2.sock",
    ]


def test_numbers_are_summed_and_gauges_of_state_are_not() -> None:
    one = b'# TYPE a counter\na{code="200"} 3\na{code="500"} 1\n# TYPE x_ready gauge\nx_ready{m="1"} 1\ns 0.25\n'
    two = b'# TYPE a counter\na{code="200"} 4\n# TYPE x_ready gauge\nx_ready{m="1"} 1\ns 1.5\nnew 2\n'
    assert merge([one, two]).decode().splitlines() == [
        "# TYPE a counter", 'a{code="200"} 7', 'a{code="500"} 1', "# TYPE x_ready gauge", 'x_ready{m="1"} 1', "s 1.75", "new 2",
    ]  # fmt: skip
    assert merge([one]).decode().split() == one.decode().split()
