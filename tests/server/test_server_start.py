"""What a start must not pay for: modules that nobody needs yet, work done twice, garbage collections of what is there to stay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fastapi.routing import APIRoute

from modelyard.db.engine import Database, sqlite_url
from modelyard.server.app import create_app
from modelyard.server.backends import make_backends
from modelyard.server.home import Home
from modelyard.server.services import make_services
from modelyard.server.settings import Settings


def _printed(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_the_server_loads_no_tool_that_a_start_does_without() -> None:
    idle = "{'alembic', 'httpx', 'typer', 'rich', 'numpy', 'modelyard.sdk', 'modelyard.cli', 'modelyard.testing'}"
    assert _printed(f"import sys, modelyard.server.life\nprint({idle} & set(sys.modules))") == "set()"


def test_settings_are_read_before_what_is_slow_to_load() -> None:
    heavy = "{'sqlalchemy', 'fastapi', 'uvicorn', 'modelyard.server.services', 'modelyard.server.backends'}"
    assert _printed(f"import sys, modelyard.server.process\nprint({heavy} & set(sys.modules))") == "set()"


def test_what_tells_about_a_platform_loads_nothing_of_the_server() -> None:
    heavy = "{'sqlalchemy', 'fastapi', 'httpx', 'alembic', 'modelyard.server.services', 'modelyard.server.backends'}"
    program = f"import sys, modelyard.server.running, modelyard.server.credentials\nprint({heavy} & set(sys.modules))"
    assert _printed(program) == "set()"


def test_the_keeper_loads_nothing_of_the_platform() -> None:
    heavy = "{'pydantic', 'sqlalchemy', 'fastapi', 'typer', 'asyncio', 'modelyard.server.home'}"
    assert _printed(f"import sys, modelyard.cli.keep\nprint({heavy} & set(sys.modules))") == "set()"


def test_the_collector_rests_until_the_server_serves() -> None:
    program = """
import gc, runpy, sys, types
import modelyard.server.life as life
import modelyard.server.process as process
wake = life._wake_collector
process.main = lambda: print(gc.isenabled())
runpy.run_module("modelyard.server", run_name="__main__")
wake()
print(gc.isenabled(), gc.get_freeze_count() > 10_000)
"""
    assert _printed(program).split() == ["False", "True", "True"]


def test_every_route_is_built_once_and_found_without_a_detour(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    settings = Settings()
    database = Database(sqlite_url(home.database_file))
    backends = make_backends(home, settings, database)
    try:
        services = make_services(home, settings, database, backends, has_gpu=False)
        app = create_app(settings, services, backends)
    finally:
        backends.compute.close()
    nested = [route for route in app.routes if hasattr(route, "original_router")]
    paths = [route.path for route in app.routes if isinstance(route, APIRoute)]
    assert nested == []
    assert "/v1.0/appkeys/{appkey}/trainings" in paths
    assert "/oauth2/token/create" in paths
