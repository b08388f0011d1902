"""A platform of a benchmark's own: a home in a temporary directory, free ports, ended at the end. Images come from the tests' cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.sdk.client import Client
from modelyard.sdk.connection import Connection
from modelyard.testing.ports import free_port

MODELYARD = (sys.executable, "-m", "modelyard")


@contextmanager
def running_platform(config: str = "") -> Iterator[tuple[Client, Connection]]:
    """A client of a platform that was just started with this `config.toml`, and how it is connected."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        home.mkdir(mode=0o700)
        (home / "config.toml").write_text(config)
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "modelyard-tests" / "environments"
        if cache.is_dir():
            (home / "environments").symlink_to(cache)
        ports = ("--http-port", str(free_port()), "--https-port", str(free_port()))
        subprocess.run([*MODELYARD, "up", "--home", str(home), "--detach", *ports], check=True, env=environment)
        try:
            connection = Connection.find(home=home)
            with Client(connection) as client:
                yield client, connection
        finally:
            subprocess.run([*MODELYARD, "down", "--home", str(home)], check=False, env=environment)
