"""Writes what is generated from the code: OpenAPI and the state diagrams. With `--check` it only says whether they are stale (exit code 1)."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from modelyard.db.engine import Database, sqlite_url
from modelyard.kit.lifecycle import Lifecycle
from modelyard.resources.endpoints.lifecycle import ENDPOINT, ENDPOINT_MODEL, STAGE
from modelyard.resources.experiments.lifecycle import LIFECYCLE as EXPERIMENT
from modelyard.resources.images.lifecycle import LIFECYCLE as ENVIRONMENT
from modelyard.resources.models.lifecycle import LIFECYCLE as MODEL
from modelyard.resources.notebooks.lifecycle import LIFECYCLE as NOTEBOOK
from modelyard.resources.routes.lifecycle import LIFECYCLE as ROUTE
from modelyard.resources.tensorboards.lifecycle import LIFECYCLE as TENSORBOARD
from modelyard.resources.trainings.lifecycle import LIFECYCLE as TRAINING
from modelyard.resources.workloads.lifecycle import LIFECYCLE as WORKLOAD
from modelyard.server.app import create_app
from modelyard.server.backends import make_backends
from modelyard.server.home import Home
from modelyard.server.services import make_services
from modelyard.server.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
OPENAPI = ROOT / "docs" / "reference" / "openapi.json"
STATES = ROOT / "docs" / "reference" / "states.md"


def main() -> int:
    """Write, or check."""
    is_check = "--check" in sys.argv[1:]
    stale: list[Path] = []
    for path, content in ((OPENAPI, _openapi()), (STATES, "\n".join(_states()) + "\n")):
        if path.exists() and path.read_text() == content:
            continue
        stale.append(path)
        if not is_check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    for path in stale:
        print(f"{'stale, run `make gen`' if is_check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if stale and is_check else 0


def _openapi() -> str:
    with tempfile.TemporaryDirectory() as directory:
        home = Home(Path(directory))
        home.prepare()
        settings = Settings()
        database = Database(sqlite_url(home.database_file))
        backends = make_backends(home, settings, database)
        services = make_services(home, settings, database, backends, has_gpu=False)
        schema = create_app(settings, services, backends).openapi()
        backends.compute.close()
    return json.dumps(schema, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _states() -> Iterator[str]:
    yield "# States"
    yield ""
    yield "Drawn from the `lifecycle.py` of each resource by `make gen`. A state without an arrow out of it is final; deleting is possible"
    yield "where the resource's rules allow it and is not drawn for workloads and routes."
    lifecycles = (
        TRAINING,
        NOTEBOOK,
        EXPERIMENT,
        MODEL,
        ENDPOINT,
        STAGE,
        ENDPOINT_MODEL,
        ENVIRONMENT,
        TENSORBOARD,
        WORKLOAD,
        ROUTE,
    )
    for lifecycle in lifecycles:
        yield from _diagram(lifecycle)


def _diagram(lifecycle: Lifecycle[StrEnum]) -> Iterator[str]:
    yield ""
    yield f"## {lifecycle.name}"
    yield ""
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield f"    [*] --> {lifecycle.initial.value}"
    for state, followers in lifecycle.moves.items():
        for follower in sorted(followers):
            yield f"    {state.value} --> {follower.value}"
    yield "```"


if __name__ == "__main__":
    raise SystemExit(main())
