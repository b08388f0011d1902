"""Notebooks on a control loop that is stepped by hand, with compute and gateway that misbehave on demand; on both databases."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from notebook_rig import Rig, rig_on

from modelyard.compute.port import Cause, Command
from modelyard.testing.compute import Script


@pytest.fixture
async def rig(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    async with rig_on(database_url, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
async def small_rig(sqlite_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """On SQLite, for what the database has no part in."""
    async with rig_on(sqlite_database_url, tmp_path, monkeypatch) as made:
        yield made


async def test_created_opened_stopped_started_deleted(rig: Rig) -> None:
    notebook = await rig.make()
    await rig.until(notebook, "ACTIVE_HEALTHY")
    (running,) = rig.compute.alive_ids
    launched = rig.compute.instance(running)
    assert launched.boot_bytes == 10 * 2**30
    assert [(volume.id, volume.target, volume.size_bytes) for volume in launched.volumes] == [
        (notebook, "/root/easymaker", 20 * 2**30)
    ]
    assert launched.has_own_network
    (route,) = await rig.gateway.list_routes()
    assert route.id == notebook
    shown = await rig.get(notebook)
    assert shown.url == f"http://127.0.0.1:1/open/notebook/{notebook}?path=/lab"
    await rig.notebooks.stop(rig.caller, notebook)
    await rig.until(notebook, "STOPPED")
    assert rig.compute.alive_ids == []
    assert await rig.gateway.list_routes() == []
    assert rig.compute.volumes == {notebook}
    await rig.notebooks.start(rig.caller, notebook)
    await rig.until(notebook, "ACTIVE_HEALTHY")
    (again,) = rig.compute.alive_ids
    assert again.split(".")[0] != running.split(".")[0], "each start has boot storage of its own"
    await rig.notebooks.delete(rig.caller, notebook)
    for _ in range(30):
        await rig.settle()
        rig.clock.advance(1.0)
    assert await rig.count() == 0
    assert (rig.compute.alive_ids, rig.compute.volumes) == ([], set())
    assert await rig.workloads.live() == []


async def test_health_changes_by_itself(small_rig: Rig) -> None:
    rig = small_rig
    notebook = await rig.make()
    await rig.until(notebook, "ACTIVE_HEALTHY")
    rig.answers = lambda: False
    await rig.until(notebook, "ACTIVE_UNHEALTHY")
    assert (await rig.get(notebook)).status_reason == "NOT_ANSWERING"
    rig.answers = lambda: True
    await rig.until(notebook, "ACTIVE_HEALTHY")
    (running,) = rig.compute.alive_ids
    rig.answers = lambda: False
    rig.compute.kill(running, Cause.SIGNAL, "it was killed")
    await rig.until(notebook, "ACTIVE_UNHEALTHY")
    rig.answers = lambda: True
    await rig.until(notebook, "ACTIVE_HEALTHY")
    assert rig.compute.alive_ids != [running]


async def test_a_creation_that_fails_leaves_nothing(rig: Rig) -> None:
    rig.answers = lambda: False
    notebook = await rig.make()
    await rig.settle()
    (running,) = rig.compute.alive_ids
    rig.compute.print(running, "no space\n")
    rig.compute.finish(running, 1)
    await rig.until(notebook, "CREATE_FAILED")
    assert (await rig.get(notebook)).last_log_lines == ["no space"]
    for _ in range(10):
        await rig.settle()
        rig.clock.advance(1.0)
    assert rig.compute.volumes == set()
    with pytest.raises(Exception, match="create a new one"):
        await rig.notebooks.start(rig.caller, notebook)


async def test_a_start_that_fails_keeps_the_data(small_rig: Rig) -> None:
    rig = small_rig
    notebook = await rig.make()
    await rig.until(notebook, "ACTIVE_HEALTHY")
    await rig.notebooks.stop(rig.caller, notebook)
    await rig.until(notebook, "STOPPED")
    rig.answers = lambda: False
    await rig.notebooks.start(rig.caller, notebook)
    await rig.settle()
    (running,) = rig.compute.alive_ids
    rig.compute.report(running, {"step": "scripts", "message": "Running the start-up script 10-breaks."})
    rig.compute.kill(running, Cause.SIGNAL, "Killed by signal 9 (SIGKILL).")
    await rig.until(notebook, "START_FAILED")
    assert (await rig.get(notebook)).status_message == (
        "Killed by signal 9 (SIGKILL). That was at the step: Running the start-up script 10-breaks. "
        "Start it without its start-up scripts to mend them."
    )
    assert rig.compute.volumes == {notebook}
    rig.answers = lambda: True
    for skips in (True, False):
        await rig.notebooks.start(rig.caller, notebook, skips_scripts=skips)
        await rig.until(notebook, "ACTIVE_HEALTHY")
        (running,) = rig.compute.alive_ids
        task = rig.compute.instance(running).task
        assert isinstance(task, Command) and json.loads(task.files["plan.json"])["skips_scripts"] is skips
        await rig.notebooks.stop(rig.caller, notebook)
        await rig.until(notebook, "STOPPED")


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8])
async def test_stop_and_delete_win_at_any_step(small_rig: Rig, steps: int) -> None:
    """Some of what is due is done, then the wish comes."""
    rig = small_rig
    for wish in ("stop", "delete"):
        notebook = await rig.make(notebookName=wish)
        for _ in range(steps):
            items = await rig.queue.claim(list(rig.reconcilers), 1)
            for item in items:
                await rig.queue.claim((), 0, finished=[await rig.reconcile(item)])
        if wish == "stop":
            await rig.notebooks.stop(rig.caller, notebook)
            await rig.until(notebook, "STOPPED")
            assert rig.compute.alive_ids == []
        await rig.notebooks.delete(rig.caller, notebook)
        for _ in range(30):
            await rig.settle()
            rig.clock.advance(1.0)
        assert (await rig.count(), rig.compute.alive_ids, rig.compute.volumes) == (0, [], set())


async def test_what_does_not_end_is_told_and_ends_after_all(small_rig: Rig) -> None:
    rig = small_rig
    notebook = await rig.make()
    await rig.until(notebook, "ACTIVE_HEALTHY")
    (running,) = rig.compute.alive_ids
    rig.compute.scripts[running] = Script(exit_on_stop=None)
    await rig.notebooks.stop(rig.caller, notebook)
    await rig.settle()
    rig.clock.advance(400.0)
    await rig.until(notebook, "STOP_FAILED")
    assert "do not end" in ((await rig.get(notebook)).status_message or "")
    await rig.notebooks.stop(rig.caller, notebook)
    assert await rig.state(notebook) == "STOP_IN_PROGRESS"
    rig.compute.finish(running)
    await rig.until(notebook, "STOPPED")


async def test_nobody_at_work_stops_it_where_that_was_asked_for(small_rig: Rig) -> None:
    rig = small_rig
    lasting, idle = await rig.make(notebookName="lasting"), await rig.make(notebookName="idle", idleStopMinutes=1)
    await rig.until(idle, "ACTIVE_HEALTHY")
    await rig.until(lasting, "ACTIVE_HEALTHY")
    for running in rig.compute.alive_ids:
        rig.compute.report(running, {"step": "idle", "message": "", "last_activity": 1_800_000_000})
    await rig.until(idle, "STOPPED")
    assert (await rig.get(idle)).status_reason == "IDLE"
    assert await rig.state(lasting) == "ACTIVE_HEALTHY"
    assert (await rig.get(lasting)).last_activity_datetime is not None


@pytest.mark.parametrize(
    "report",
    [
        {"step": 5, "message": ["x"], "steps": "many", "disk": [1], "last_activity": "now"},
        {
            "step": "running",
            "steps": [1, {"step": 7}, {"step": "x", "seconds": "long"}],
            "disk": {"boot": ["a", 1], "data": 5},
        },
        {"step": "x" * 5000, "message": "y" * 5000, "last_activity": 1e300, "kept": "no", "reset": [1]},
    ],
)
async def test_a_senseless_report_harms_nothing(rig: Rig, report: dict[str, Any]) -> None:
    notebook = await rig.make()
    await rig.until(notebook, "ACTIVE_HEALTHY")
    rig.compute.report(rig.compute.alive_ids[0], report)
    await rig.settle()
    assert await rig.state(notebook) == "ACTIVE_HEALTHY"
