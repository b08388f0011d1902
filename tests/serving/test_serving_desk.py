"""Deadlines of the desk at the moments where two things happen in one turn of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

from modelyard.serving.desk import Desk
from modelyard.serving.errors import TooSlow


async def test_an_answer_that_comes_with_its_deadline_leaves_no_thread_behind_as_stuck() -> None:
    desk = Desk(queue_size=8, deadline_seconds=0.05)
    desk.open(1)
    has_begun, may_end = threading.Event(), threading.Event()

    def work() -> str:
        has_begun.set()
        may_end.wait(30)
        return "late"

    asked = asyncio.ensure_future(desk.run(work, 1))
    while not has_begun.is_set():
        await asyncio.sleep(0)
    may_end.set()
    time.sleep(0.5)  # as a model does that keeps the interpreter's lock: then result and deadline come in one turn
    with contextlib.suppress(TooSlow):  # on a machine so busy that half a second was not enough for the thread
        assert await asked == "late"
    await desk.wait_until_idle(30)
    assert not desk.is_stuck
    desk.close()


async def test_a_thread_past_its_deadline_is_stuck_until_it_comes_back() -> None:
    desk = Desk(queue_size=8, deadline_seconds=0.05)
    desk.open(1)
    may_end = threading.Event()
    with pytest.raises(TooSlow):
        await desk.run(lambda: may_end.wait(30), 1)
    assert desk.is_stuck
    may_end.set()
    await desk.wait_until_idle(30)
    assert not desk.is_stuck
    desk.close()
