"""The list of a hundred thousand trainings: what a page costs, in every order and with every filter, through the API of the application.

    python bench/trainings_list.py [--count 100000] [--database-url postgresql://…]

Without a URL the database is SQLite. What is measured is the application's answer as JSON (routing, checks, queries, the wire form) without the
network and the gateway. The floor, in the same run: fifty rows by their primary keys, over the database's driver alone.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert, text

from modelyard.control.transitions import CONTROLLER
from modelyard.db.engine import Database, sqlite_url
from modelyard.db.migrate import upgrade
from modelyard.kit.ids import new_id
from modelyard.resources.projects.service import new_project_keys
from modelyard.resources.trainings.model import Parameter, TrainingSpec, TrainingStatus
from modelyard.resources.trainings.table import TermRow, TrainingRow
from modelyard.resources.trainings.terms import terms_of
from modelyard.server import schema
from modelyard.server.app import create_app
from modelyard.server.backends import make_backends
from modelyard.server.home import Home
from modelyard.server.services import make_services
from modelyard.server.settings import Settings

BATCH = 2000
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ROUNDS = 15
PAGE = 50


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--database-url", default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(Path(directory), arguments.count, arguments.database_url))


async def measure(directory: Path, count: int, database_url: str | None) -> None:
    """Fill a project, then ask for its list in many ways."""
    home = Home(directory / "home")
    home.root.mkdir(mode=0o700)
    home.prepare()
    schema.all_metadata()
    url = database_url or sqlite_url(home.database_file)
    settings = Settings(database_url=url)
    database = Database(url)
    await upgrade(database)
    backends = make_backends(home, settings, database)
    services = make_services(home, settings, database, backends, has_gpu=False)
    keys = new_project_keys()
    project = await services.projects.ensure("bench", keys)
    experiments = [new_id() for _ in range(200)]
    began = time.perf_counter()
    last_ids = await fill(database, project.id, count, experiments)
    print(f"{count} trainings written in {time.perf_counter() - began:.0f} s ({database.url.get_backend_name()})")
    transport = httpx.ASGITransport(create_app(settings, services, backends))
    headers = {"x-nhn-authorization": f"Bearer {keys.access_token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:10090", headers=headers) as http:

        async def ask(params: dict[str, Any]) -> dict[str, Any]:
            answer = await http.get(f"/v1.0/appkeys/{keys.app_key}/trainings", params={"limit": PAGE, **params})
            answer.raise_for_status()
            return dict(answer.json())

        await report("floor: 50 rows by primary key", lambda: rows_by_key(database, last_ids))
        middle = await cursor_of(ask, count // 2)
        for name, params in cases(experiments, middle).items():
            await report(name, lambda params=params: ask(params))
    backends.compute.close()
    await database.close()


def cases(experiments: list[str], middle: str) -> dict[str, dict[str, Any]]:
    """What is asked for: each order and filter, many and few, alone and together."""
    orders = ("createdDatetime", "updatedDatetime", "trainingName", "trainingStatusCode")
    filters: dict[str, dict[str, Any]] = {
        "no filter": {},
        "state, 9 of 10": {"trainingStatusCodeList": "COMPLETE"},
        "state, 1 of 1000": {"trainingStatusCodeList": "RUNNING"},
        "two states": {"trainingStatusCodeList": "COMPLETE,FAIL_TRAIN"},
        "experiment": {"experimentId": experiments[3]},
        "image, 1 of 2": {"imageIdList": "image-0"},
        "tag, 1 of 2": {"tag": "team=a"},
        "tag, 1 of 1000": {"tag": "rare"},
        "part of a name, none": {"nameContains": "nowhere"},
        "part of a name, 1 of 10": {"nameContains": "7 of"},
        "word, all": {"search": "learn"},
        "two words, few": {"search": "rare learn"},
        "a day": {"createdFrom": "2026-01-10T00:00:00Z", "createdTo": "2026-01-11T00:00:00Z"},
        "part of a name and a state, 1 of 1000": {
            "nameContains": "7 of",
            "trainingStatusCodeList": "FAIL_TRAIN",
            "tag": "team=b",
        },
        "two tags that never meet": {"tag": ["team=a", "team=b"]},
        "image and tag that never meet": {"imageIdList": "image-0", "tag": "team=a"},
        "image, state and word": {"imageIdList": "image-1", "trainingStatusCodeList": "FAIL_TRAIN", "search": "about"},
    }
    found = {"newest 50": {}, "page 1000": {"page": 1000}, "cursor at the middle": {"cursor": middle}}
    found |= {
        f"{name} by {order}": {**params, "sort": f"-{order}"} for name, params in filters.items() for order in orders
    }
    return found


async def report(name: str, ask: Callable[[], Awaitable[Any]]) -> None:
    """Ask several times and print the middle and the worst."""
    await ask()
    seconds: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await ask()
        seconds.append(time.perf_counter() - began)
    print(f"{name:45} p50 {statistics.median(seconds) * 1000:7.1f} ms   max {max(seconds) * 1000:7.1f} ms", flush=True)


async def rows_by_key(database: Database, ids: list[str]) -> None:
    """The floor."""
    names = ", ".join(f"'{id}'" for id in ids)
    async with database.read() as session:
        (await session.execute(text(f"SELECT * FROM trainings WHERE id IN ({names})"))).all()


async def cursor_of(ask: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]], skipped: int) -> str:
    """The cursor after about so many rows."""
    content = await ask({"page": max(1, skipped // PAGE)})
    return str(content["paging"]["nextCursor"])


async def fill(database: Database, project_id: str, count: int, experiments: list[str]) -> list[str]:
    """Write the trainings and their terms; the ids of the last fifty."""
    draw = random.Random(1)
    ids: list[str] = []
    for start in range(0, count, BATCH):
        rows = [training(project_id, number, draw, experiments) for number in range(start, min(start + BATCH, count))]
        terms = [
            {"project_id": project_id, "term": term, "training_id": row["id"]}
            for row in rows
            for term in terms_of(
                row["name"], row["description"], [(tag["tagKey"], tag["tagValue"]) for tag in row["tags"]]
            )
        ]
        async with database.write() as session:
            await session.execute(insert(TrainingRow), rows)
            await session.execute(insert(TermRow), terms)
        ids = [row["id"] for row in rows[-PAGE:]]
    async with database.engine.connect() as connection:  # what a database does by itself after many rows
        settled = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await settled.execute(text("ANALYZE" if database.is_sqlite else "VACUUM (ANALYZE)"))
    return ids


def training(project_id: str, number: int, draw: random.Random, experiments: list[str]) -> dict[str, Any]:
    """One row, of a usual size."""
    created_at = BEGIN + timedelta(seconds=30 * number)
    image_id = f"image-{number % 2}"
    is_rare = number % 1000 == 7
    spec = TrainingSpec(
        image_id=image_id,
        image_name="image",
        framework="PYTHON",
        framework_version="3.11",
        flavor_id="flavor",
        flavor_name="flavor",
        source_uri="obs://127.0.0.1:10090/v1/AUTH_tenant/container/source",
        entry_point="train.py",
        parameters=tuple(Parameter(name=f"parameter-{index}", value=str(draw.random())) for index in range(10)),
        model_uri="obs://127.0.0.1:10090/v1/AUTH_tenant/container/output",
        timeout_minutes=600,
    )
    state = "RUNNING" if is_rare else draw.choices(["COMPLETE", "FAIL_TRAIN"], [90, 10])[0]
    return {
        "id": new_id(created_at),
        "project_id": project_id,
        "name": f"run {number} of many",
        "name_folded": f"run {number} of many",
        "description": "about learning" + (" something rare" if is_rare else ""),
        "tags": [{"tagKey": "team", "tagValue": "a" if number % 2 else "b"}]
        + ([{"tagKey": "rare", "tagValue": "yes"}] if is_rare else []),
        "spec": spec.model_dump(mode="json"),
        "status": TrainingStatus().model_dump(mode="json"),
        "desired": "run",
        "state": state,
        "generation": 1,
        "created_by": CONTROLLER,
        "created_at": created_at,
        "updated_at": created_at + timedelta(seconds=draw.randrange(100_000)),
        "experiment_id": draw.choice(experiments),
        "image_id": image_id,
        "flavor_id": "flavor",
    }


if __name__ == "__main__":
    main()
