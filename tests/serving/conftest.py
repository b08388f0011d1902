"""A real model server in a process of its own, on a Unix socket, spoken to over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

SOURCES = Path(__file__).parents[2] / "src"
START_SECONDS = 240.0


class ModelServer:
    """One running server. `client` talks to it; `stderr` is what it has said so far."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, socket: Path) -> None:
        self.process = process
        self.directory = directory
        self.socket = socket
        self.client = httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://model", timeout=60)

    @property
    def report(self) -> dict[str, Any]:
        path = self.directory / "report.json"
        return json.loads(path.read_text()) if path.exists() else {"step": "", "message": ""}

    @property
    def stderr(self) -> str:
        return (self.directory / "stderr").read_text(errors="replace")

    def wait_for(self, *steps: str, seconds: float = START_SECONDS) -> dict[str, Any]:
        """The report once it has one of the steps."""
        deadline = time.monotonic() + seconds
        while self.report["step"] not in steps:
            assert time.monotonic() < deadline, f"still {self.report}: {self.stderr}"
            assert self.process.poll() is None or self.report["step"] in steps, self.stderr
            time.sleep(0.02)
        return self.report

    def predict(self, body: Any, *, name: str = "m", **options: Any) -> httpx.Response:
        return self.client.post(f"/v1/models/{name}:predict", json=body, **options)

    def infer(self, body: Any, *, name: str = "m", **options: Any) -> httpx.Response:
        return self.client.post(f"/v2/models/{name}/infer", json=body, **options)

    def stop(self) -> int:
        """Ask it to end and answer its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ModelServer]]:
    """`start_server(model_dir, python=…, env=…, **settings)` starts a server; all are ended after the test."""
    servers: list[ModelServer] = []

    def start(
        model_dir: Path, python: Path | None = None, env: dict[str, str] | None = None, **settings: Any
    ) -> ModelServer:
        directory = tmp_path / f"server-{len(servers)}"
        directory.mkdir()
        socket = directory / "http.sock"
        config = {
            "model_dir": str(model_dir),
            "model_name": "m",
            "listen": str(socket),
            "report_path": str(directory / "report.json"),
            "work_dir": str(directory),
            "drain_seconds": 5.0,
        }
        (directory / "serving.json").write_text(json.dumps(config | settings))
        with (directory / "stderr").open("wb") as log:
            process = subprocess.Popen(
                [str(python or sys.executable), "-m", "modelyard.serving", "--config", str(directory / "serving.json")],
                cwd=directory,
                env=child_environment() | (env or {}),
                stdout=log,
                stderr=log,
            )
        server = ModelServer(process, directory, socket)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.client.close()
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(scope="session")
def run_script(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """`run_script(python, source, *arguments)` runs a script in a framework's environment and fails with its output."""

    def run(python: Path, source: str, *arguments: str | Path, cwd: Path | None = None) -> None:
        script = tmp_path_factory.mktemp("script") / "script.py"  # a file, because torch.jit reads its source
        script.write_text(source)
        done = subprocess.run(
            [str(python), str(script), *map(str, arguments)],
            env=child_environment(),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def child_environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return environment | {"PYTHONPATH": str(SOURCES), "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPYCACHEPREFIX": ""}
