"""A JupyterHub beside the platform: its own proxy, a process of the machine for each user, names instead of passwords.

    python -m venv HUB && HUB/bin/pip install jupyterhub jupyterlab && npm install --global --prefix HUB configurable-http-proxy

Nothing of it is a user's own: the servers run as whoever runs this, without a sandbox or limits.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from processor_time import of_trees

from modelyard.testing.ports import free_port

_START_SECONDS = 120.0
_SERVER_SECONDS = 900.0
_CONFIG = """\
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.command = ["{bin}/configurable-http-proxy"]
c.JupyterHub.spawner_class = "jupyterhub.spawner.SimpleLocalProcessSpawner"  # LocalProcessSpawner without accounts of the machine
c.SimpleLocalProcessSpawner.home_dir_template = "{directory}/{{username}}"
c.Spawner.cmd = ["{bin}/jupyterhub-singleuser", "--allow-root"]
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = 900
c.Spawner.http_timeout = 900
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}", "admin": True}}]
c.JupyterHub.db_url = "sqlite:///{directory}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{directory}/cookie_secret"
"""


class Hub:
    """A JupyterHub that runs."""

    def __init__(self, url: str, token: str, pid: int) -> None:
        self._url = url
        self._pid = pid
        self._client = httpx.Client(headers={"Authorization": f"token {token}"}, trust_env=False, timeout=600.0)

    def is_up(self) -> bool:
        """Whether the hub itself answers."""
        try:
            return self._client.get(f"{self._url}/hub/api/users").status_code == 200
        except httpx.HTTPError:
            return False

    def processor_seconds(self) -> float:
        """Of the hub, its proxy and all servers."""
        return of_trees([self._pid])

    def start(self, name: str, pause_seconds: float = 0.02) -> float:
        """A server for this user, new or not; how long until `GET /lab` of it was answered. Raises `SystemExit` when it is not."""
        self._client.post(f"{self._url}/hub/api/users/{name}")
        began = time.monotonic()
        asked = self._client.post(f"{self._url}/hub/api/users/{name}/server")
        if asked.status_code not in (201, 202):
            raise SystemExit(f"JupyterHub does not start a server: {asked.status_code} {asked.text}")
        while time.monotonic() < began + _SERVER_SECONDS:
            user = self._client.get(f"{self._url}/hub/api/users/{name}").json()
            if user["servers"].get("", {}).get("ready"):
                page = self._client.get(f"{self._url}/user/{name}/lab")
                if page.status_code != 200:
                    raise SystemExit(f"JupyterHub answers the page of {name} with {page.status_code}")
                return time.monotonic() - began
            time.sleep(pause_seconds)
        raise SystemExit(f"JupyterHub's server of {name} does not start")

    def stop(self, name: str) -> None:
        """End it."""
        self._client.delete(f"{self._url}/hub/api/users/{name}/server")


@contextmanager
def running_hub(python: Path) -> Iterator[Hub]:
    """A JupyterHub of this interpreter's environment, ended with all its servers at the end."""
    port, token = free_port(), secrets.token_hex(16)
    programs = python.absolute().parent
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "config.py"
        config.write_text(
            _CONFIG.format(
                port=port,
                hub_port=free_port(),
                proxy_port=free_port(),
                bin=programs,
                directory=directory,
                token=token,
            )
        )
        environment = {
            "HOME": directory,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "CONFIGPROXY_AUTH_TOKEN": secrets.token_hex(16),
        }
        with (Path(directory) / "log").open("wb") as log:
            command = [str(python), "-m", "jupyterhub", "--config", str(config)]
            process = subprocess.Popen(command, env=environment, cwd=directory, stdout=log, stderr=log)
        try:
            hub = Hub(f"http://127.0.0.1:{port}", token, process.pid)
            deadline = time.monotonic() + _START_SECONDS
            while not hub.is_up():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"JupyterHub does not start: {(Path(directory) / 'log').read_text()[-2000:]}")
                time.sleep(0.2)
            yield hub
        finally:
            process.terminate()
            process.wait(60)
