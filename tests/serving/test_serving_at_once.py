"""Coroutines that are begun without a task."""

from __future__ import annotations

import asyncio

import pytest

from modelyard.serving.at_once import begun


async def test_what_never_waits_has_ended() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    assert begun(work()) is None and done == [1]


async def test_what_waits_goes_on_in_a_task_and_waits_again() -> None:
    gate, steps = asyncio.get_running_loop().create_future(), list[str]()

    async def work() -> None:
        steps.append("begun")
        steps.append(await gate)
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await asyncio.sleep(0.001)
        steps.append("ended")

    rest = begun(work())
    assert rest is not None and steps == ["begun"]
    gate.set_result("passed")  # before the task has begun
    await asyncio.create_task(rest)
    assert steps == ["begun", "passed", "ended"]


async def test_faults_and_cancellations_reach_it_and_come_out() -> None:
    async def faulty(gate: asyncio.Future[None] | None) -> None:
        if gate is not None:
            try:
                await gate
            finally:
                cleaned.append(1)
        raise ValueError("no")

    cleaned: list[int] = []
    with pytest.raises(ValueError, match="no"):
        begun(faulty(None))
    for end in ("result", "exception", "cancel"):
        gate = asyncio.get_running_loop().create_future()
        rest = begun(faulty(gate))
        assert rest is not None
        task = asyncio.create_task(rest)
        await asyncio.sleep(0)
        match end:
            case "result":
                gate.set_result(None)
            case "exception":
                gate.set_exception(ValueError("no gate"))
            case _:
                task.cancel()
        with pytest.raises(asyncio.CancelledError if end == "cancel" else ValueError):
            await task
    assert cleaned == [1, 1, 1]
