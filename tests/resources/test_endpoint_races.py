"""Changes of one endpoint that meet: none is lost, and none rests on what another has just changed; on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import pytest
from api_platform import ApiPlatform
from sqlalchemy import update
from test_endpoint_statistics import Calls

from modelyard.resources.endpoints import gatekeeping, traffic
from modelyard.resources.endpoints.model import EndpointModelSpec
from modelyard.resources.endpoints.repository import stages_of
from modelyard.resources.endpoints.table import EndpointModelRow

_PATIENCE_SECONDS = 1.0  # how long the first one waits in the middle; the second one then waits for it


@pytest.fixture
async def stored(api: ApiPlatform) -> Calls:
    stored = Calls(api)
    await stored.store()
    spec = EndpointModelSpec(model_id="m", model_name="m", format_code="ONNX", artifact_uri="", image_id="i")
    async with api.database.write() as session:
        await session.execute(update(EndpointModelRow).values(spec=spec.model_dump(mode="json")))
    return stored


async def stage_ids(stored: Calls) -> list[str]:
    """The default stage first."""
    async with stored.api.database.read() as session:
        return [stage.id for stage in await stages_of(session, [stored.endpoint_id])]


async def meet(
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[Any, str],
    first: Awaitable[httpx.Response],
    second: Callable[[], Awaitable[httpx.Response]],
) -> tuple[int, int]:
    """The statuses of two requests: the second comes when the first has read all and is about to go through `place`."""
    module, name = place
    real = getattr(module, name)
    is_in, may_go = asyncio.Event(), asyncio.Event()

    async def pausing(*arguments: Any) -> Any:
        if not is_in.is_set():
            is_in.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await may_go.wait()
        return await real(*arguments)

    monkeypatch.setattr(module, name, pausing)
    one = asyncio.ensure_future(first)
    async with asyncio.timeout(30):
        await is_in.wait()
    two = asyncio.ensure_future(second())
    two.add_done_callback(lambda _: may_go.set())
    answers = await asyncio.gather(one, two)
    return answers[0].status_code, answers[1].status_code


async def test_settings_that_are_changed_at_the_same_moment_are_all_kept(
    stored: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, _ = await stage_ids(stored)
    path = f"/endpoint-stages/{stage}"
    closes = stored.api.call("PUT", f"{path}/settings", {"allowAddressList": ["192.0.2.7"]})
    scaler = {"enable": True, "metricCode": "REQUESTS_PER_SECOND", "metricTarget": 10, "maxNodeCount": 2}
    scales = partial(stored.api.call, "PUT", f"{path}/auto-scaler", scaler)
    assert await meet(monkeypatch, (gatekeeping, "_key_faults"), closes, scales) == (200, 200)
    settings = (await stored.api.ask("GET", f"{path}/settings"))["stageSettings"]["settings"]
    assert settings["allowAddressList"] == ["192.0.2.7/32"]
    assert (await stored.api.ask("GET", path))["endpointStage"]["autoScaler"]["enable"] is True


async def test_a_stage_that_becomes_the_default_one_is_not_deleted_meanwhile(
    stored: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, blue = await stage_ids(stored)
    path = f"/endpoints/{stored.endpoint_id}/default-stage"
    rises = stored.api.call("PUT", path, {"endpointStageId": blue})
    goes = partial(stored.api.call, "DELETE", f"/endpoint-stages/{blue}")
    assert await meet(monkeypatch, (traffic, "_rewrite"), rises, goes) == (200, 409)
    async with stored.api.database.read() as session:
        default = (await stages_of(session, [stored.endpoint_id]))[0]
        assert (default.id, default.is_default, default.desired) == (blue, True, "run")
