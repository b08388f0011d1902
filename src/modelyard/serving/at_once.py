"""Coroutines that run without a task until they first wait: those that never do save what a task costs, two turns of the event loop.

(Python 3.12 has eager tasks for this; images have 3.11.)
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any


def begun(coroutine: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None] | None:
    """Run a coroutine until it waits: the rest of it, for a task to run, or None when it has ended. Raises what it raises.

    Until it waits it must not ask for its task (as `asyncio.timeout` does): there is none.
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration:
        return None
    return _rest(_Rest(coroutine, awaited))


async def _rest(rest: _Rest) -> None:
    await rest


class _Rest:
    def __init__(self, coroutine: Coroutine[Any, Any, None], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        awaited = self._awaited
        try:
            while True:
                try:
                    sent = yield awaited
                except BaseException as error:  # whatever ends the wait is the coroutine's to deal with
                    awaited = self._coroutine.throw(error)
                else:
                    awaited = self._coroutine.send(sent)
        except StopIteration:
            return
