"""Doing many small transfers at once: a crew of threads over one list of work.

`concurrent.futures` would hold one future per file and keep going after a failure; a data set may have a million files, and the first
failure should end the step.
"""

from __future__ import annotations

import _thread  # `threading` adds nothing that is needed here
from itertools import chain, islice

from modelyard.runner.stop import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    _Work = TypeVar("_Work")

_TICK_SECONDS = 0.2
_PARTING_SECONDS = 3.0

SIZE = 8
"""Threads of a crew: enough to hide a store's latency for small files, more gains nothing under the interpreter's lock."""


def work_through(
    items: Iterable[_Work], do: Callable[[_Work, Stop], None], stop: Stop, tick: Callable[[], None] | None = None
) -> None:
    """Call `do` for every item, eight at a time, in order of their beginnings; returns when all are done. Less work has fewer threads.

    The first failure makes the others end early (the `Stop` that `do` gets is set) and is raised here; a requested stop raises
    `Stopped`. `tick` is called by this thread five times a second, and once at the end of the work.
    """
    crew = _Crew(items, do, Stop(stop))
    crew.start()
    while not crew.is_done_within(_TICK_SECONDS):
        if tick is not None:
            tick()
        if stop.is_requested:
            crew.is_done_within(_PARTING_SECONDS)
            break
    stop.check()
    if crew.failure is not None:
        raise crew.failure
    if tick is not None:
        tick()


class _Crew:
    def __init__(self, items: Iterable[_Work], do: Callable[[_Work, Stop], None], stop: Stop) -> None:
        items = iter(items)
        first = list(islice(items, SIZE))
        self._items = chain(first, items)
        self._do = do
        self._stop = stop
        self._lock = _thread.allocate_lock()
        self._size = self._at_work = len(first)
        self.failure: BaseException | None = None
        self._at_end = _thread.allocate_lock()

    def start(self) -> None:
        if self._size:
            self._at_end.acquire()
        # Nobody waits for them when the runner ends: one that is stuck in a read must not keep a stopped runner alive.
        for _ in range(self._size):
            _thread.start_new_thread(self._run, ())

    def is_done_within(self, seconds: float) -> bool:
        """Wait for the end of the work, but not longer than this."""
        is_done = self._at_end.acquire(timeout=seconds)
        if is_done:
            self._at_end.release()
        return is_done

    def _run(self) -> None:
        try:
            while not self._stop.is_requested:
                with self._lock:
                    taken = list(islice(self._items, 1))
                if not taken:
                    break
                self._do(taken[0], self._stop)
        except BaseException as failure:
            with self._lock:
                self.failure = self.failure or failure
            self._stop.request()
        finally:
            with self._lock:
                self._at_work -= 1
                is_last = self._at_work == 0
            if is_last:
                self._at_end.release()
