"""Links that users' code leaves in the place of its sockets lead nowhere, as root and without."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.gateway.backends.envoy import confined
from modelyard.gateway.backends.envoy.gateway import EnvoyGateway
from modelyard.gateway.backends.envoy.settings import EnvoySettings
from modelyard.gateway.port import Route, Target

pytestmark = pytest.mark.slow

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


async def test_a_link_instead_of_a_socket_leads_nowhere(
    settings: EnvoySettings, client, start_origin, make_route: Callable[..., Route], tmp_path: Path
) -> None:
    instances = tmp_path / "i"
    instances.mkdir()
    gateway = EnvoyGateway(dataclasses.replace(settings, foreign_sockets=instances))
    await gateway.start()
    try:
        origin = await start_origin()
        away = Path(origin.target.address)
        await gateway.put_route(make_route("real", "/real", origin.target))
        await gateway.put_route(make_route("link", "/link", Target(str(instances / "own.sock"))))
        # Sockets that appear below the directory after Envoy's start are there for it; a link to one elsewhere is not.
        (instances / "own.sock").symlink_to(away)
        assert (await client.get("/real")).status_code == 200
        assert (await client.get("/link")).status_code == 503
        (instances / "own.sock").unlink()
        os.link(away, instances / "own.sock")
        assert (await client.get("/link")).status_code == 200
    finally:
        await gateway.stop()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user of the machine can reach, with a file and a link to it."""
    with tempfile.TemporaryDirectory(prefix="modelyard-tests-") as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "below").mkdir()
        (place / "file").write_text("read")
        (place / "below" / "link").symlink_to("../file")
        (place / "confined.py").write_bytes(Path(confined.__file__).read_bytes())
        yield place


@pytest.mark.parametrize("prefix", [(), NOBODY] if os.geteuid() == 0 else [()])
def test_with_and_without_root(open_directory: Path, prefix: tuple[str, ...]) -> None:
    def read(name: str) -> str:
        program = ["/usr/bin/python3", "-I", "-S", str(open_directory / "confined.py"), str(open_directory / "below")]
        done = subprocess.run(
            [*prefix, *program, "/bin/cat", str(open_directory / name)],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        return done.stdout or done.stderr

    assert read("file") == "read"
    assert "Too many levels of symbolic links" in read("below/link")
