"""TensorBoards on a control loop that is stepped by hand, over a compute backend that lives in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from api_platform import ApiPlatform, api_platform, good_training
from sqlalchemy import select, update

from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.compute.port import Cause, Exit
from modelyard.control.work import enqueue
from modelyard.kit.clock import utc_now
from modelyard.resources.tensorboards.table import TensorBoardRow
from modelyard.resources.workloads import probe
from modelyard.resources.workloads.observer import WorkloadObserver
from modelyard.testing.compute import FakeCompute, Script
from modelyard.testing.gateway import FakeGateway

IDLE_MINUTES = 30


class Rig:
    """One training, and the loop that makes its TensorBoard true."""

    def __init__(self, api: ApiPlatform, compute: FakeCompute, gateway: FakeGateway, training_id: str) -> None:
        self.api, self.compute, self.gateway = api, compute, gateway
        self.path = f"/trainings/{training_id}/tensorboard"
        self.training_id = training_id
        self.observer = WorkloadObserver(api.database, compute, api.services.workloads)  # type: ignore[arg-type]

    async def ask(self, method: str = "GET") -> dict[str, Any]:
        found: dict[str, Any] = (await self.api.ask(method, self.path)).get("tensorboard", {})
        return found

    async def state(self) -> str:
        return str((await self.ask())["tensorboardStatusCode"])

    async def settle(self) -> None:
        """Let it be looked at, as it is every few seconds, and do what follows from that."""
        for _ in range(6):
            await self.observer.look(await self.api.services.workloads.live())
            ids = await self.ids()
            async with self.api.database.write() as session:
                for row_id in ids:
                    await enqueue(session, "tensorboard", row_id)
            await self.api.reconcile("tensorboard", "workload", "route")

    async def ids(self) -> list[str]:
        async with self.api.database.read() as session:
            return list((await session.scalars(select(TensorBoardRow.id))).all())

    async def nobody_looked_for(self, minutes: float) -> None:
        async with self.api.database.write() as session:
            await session.execute(update(TensorBoardRow).values(used_at=utc_now() - timedelta(minutes=minutes)))


@asynccontextmanager
async def rig_on(database_url: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    async def is_ready(_socket: str, path: str, **_: Any) -> bool:
        return path == "/data/environment"

    monkeypatch.setattr(probe, "is_ready", is_ready)
    monkeypatch.setattr(EnvironmentStore, "is_built", lambda *_: True)
    compute, gateway = FakeCompute(), FakeGateway()
    access = {"tensorboard_idle_minutes": IDLE_MINUTES}
    async with api_platform(database_url, directory, {"compute": compute, "gateway": gateway}, access=access) as api:
        made = await api.ask("POST", "/trainings", await good_training(api, experimentName="e"))
        yield Rig(api, compute, gateway, made["training"]["trainingId"])


@pytest.fixture
async def rig(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    async with rig_on(database_url, tmp_path / "home", monkeypatch) as made:
        yield made


@pytest.fixture
async def small_rig(sqlite_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """On SQLite, for what the database has no part in."""
    async with rig_on(sqlite_database_url, tmp_path / "home", monkeypatch) as made:
        yield made


async def test_one_that_nobody_looks_at_ends_and_the_next_look_starts_another(rig: Rig) -> None:
    assert (await rig.ask("POST"))["tensorboardStatusCode"] == "STARTING"
    await rig.settle()
    assert await rig.state() == "ACTIVE"
    address = (await rig.ask())["accessUri"]
    [first] = rig.compute.alive_ids

    await rig.nobody_looked_for(IDLE_MINUTES - 1)
    await rig.settle()
    assert await rig.state() == "ACTIVE"
    await rig.nobody_looked_for(IDLE_MINUTES + 1)
    await rig.api.services.tensorboards.note_use(rig.training_id)
    await rig.settle()
    assert await rig.state() == "ACTIVE"

    await rig.nobody_looked_for(IDLE_MINUTES + 1)
    await rig.settle()
    assert await rig.state() == "STOPPED"
    assert rig.compute.alive_ids == []
    assert await rig.gateway.list_routes() == []
    assert (await rig.ask())["accessUri"] == address

    await rig.ask("POST")
    await rig.settle()
    assert await rig.state() == "ACTIVE"
    assert rig.compute.alive_ids != [first]


async def test_one_that_crashes_comes_back_by_itself(small_rig: Rig) -> None:
    rig = small_rig
    await rig.ask("POST")
    await rig.settle()
    [first] = rig.compute.alive_ids
    rig.compute.kill(first, Cause.OUT_OF_MEMORY)
    await rig.observer.look(await rig.api.services.workloads.live())
    await rig.api.reconcile("workload", "tensorboard")
    assert await rig.state() == "STARTING"
    await rig.settle()
    [second] = rig.compute.alive_ids
    assert second != first
    await rig.settle()
    assert await rig.state() == "ACTIVE"


async def test_one_that_could_not_be_started_says_why_once_and_the_next_who_asks_gets_another(small_rig: Rig) -> None:
    rig = small_rig
    await rig.ask("POST")
    [id] = await rig.ids()
    rig.compute.scripts[f"{id}.0.0"] = Script(
        printed="ImportError: no module named tensorboard\n",
        exit_at_once=Exit(Cause.EXITED, "it ended with exit code 1", code=1),
    )
    await rig.settle()
    failed = await rig.ask("POST")
    assert failed["tensorboardStatusCode"] == "FAILED"
    assert "exit code 1" in failed["statusMessage"]
    assert "ImportError: no module named tensorboard" in failed["statusMessage"]
    await rig.settle()
    assert await rig.state() == "STOPPED"
    assert (await rig.ask("POST"))["tensorboardStatusCode"] == "STARTING"
    await rig.settle()
    assert await rig.state() == "ACTIVE"
