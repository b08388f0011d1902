"""Stages whose model servers can't be had: what is shown, and that nothing is left."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from api_platform import api_platform
from test_autoscaler import Stage

from modelyard.compute.port import Capacity
from modelyard.control.work import enqueue
from modelyard.resources.endpoints.table import EndpointRow, StageRow
from modelyard.testing.compute import FakeCompute, Script
from modelyard.testing.workloads import workload_spec

SECONDS = 60.0


async def test_a_model_server_that_is_never_ready_fails_the_endpoint_with_its_last_lines(
    sqlite_database_url: str, tmp_path: Path
) -> None:
    compute = FakeCompute(Capacity(4.0, 8 * 2**30))
    async with api_platform(sqlite_database_url, tmp_path / "home", {"compute": compute}) as api:
        stage = Stage(api)
        await stage.store()
        instance = f"{stage.model_id}.0.0"
        compute.scripts[instance] = Script(printed="loading\nwaiting for a licence server\n")
        server = workload_spec(
            owner_kind="endpoint_stage",
            owner_id=stage.id,
            role="model-server",
            restart="always",
            socket="http",
            ready_path="/v2/health/ready",
            ready_seconds=0.3,
        )
        async with api.database.write() as session:
            stored = await session.get(StageRow, stage.id)
            endpoint = await session.get(EndpointRow, stage.endpoint_id)
            assert stored is not None and endpoint is not None
            stored.state = endpoint.state = "CREATE_IN_PROGRESS"
            stored.status = {}
            await api.services.workloads.ensure(session, stage.model_id, stored.project_id, server, actor="test")
        shown: dict[str, Any] = {}
        deadline = time.monotonic() + SECONDS
        while shown.get("endpointStatusCode") != "CREATE_FAILED":
            assert time.monotonic() < deadline, shown
            await asyncio.sleep(0.05)
            async with api.database.write() as session:  # a look at what runs, as the loop takes them again and again
                await enqueue(session, "workload", stage.model_id)
            await api.reconcile("workload", "endpoint_stage", "endpoint")
            shown = (await api.ask("GET", f"/endpoints/{stage.endpoint_id}"))["endpoint"]
        [failed] = shown["endpointStageList"]
        assert (failed["endpointStageStatusCode"], failed["statusReason"]) == ("CREATE_FAILED", "NEVER_READY")
        assert failed["statusMessage"] == (
            "The model server could not be started: Instance 0 was not ready for requests within 0.3 seconds."
        )
        assert failed["lastLogLines"] == ["loading", "waiting for a licence server"]
        assert not compute.alive_ids
        logs = f"/endpoint-stages/{stage.id}/logs"
        output = (await api.ask("GET", logs))["output"]
        assert (output["text"], output["isEnd"]) == ("loading\nwaiting for a licence server\n", True)
        output = (await api.ask("GET", f"{logs}?model={stage.model_id}&offset={output['nextOffset']}"))["output"]
        assert (output["text"], output["isEnd"]) == ("", True)
        unknown = await api.call("GET", f"{logs}?model=nobody")
        assert unknown.status_code == 404
