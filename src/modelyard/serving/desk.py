"""Where requests wait for a prediction thread: a bounded queue with deadlines, beside the event loop.

The event loop only moves bytes; parsing, predicting and writing run in prediction threads, so a slow model never keeps a health probe
waiting. A hop to a thread and back costs about as much as a small model's whole answer. So a small request of a model that has shown
itself quick (most of its last answers) is done on the spot; one very slow answer ends that until the model has shown itself quick again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter, thread_time
from typing import Any, TypeVar

from modelyard.serving.errors import Busy, TooSlow

T = TypeVar("T")

_QUICK_SECONDS = 0.0008
_VERY_SLOW_SECONDS = 0.05
_ALL_SLOW = (1 << 32) - 1  # one bit for each of the last answers
_TOLERATED_SLOW_COUNT = 10
_SMALL_BYTES = 8192


class Desk:
    """Runs work in threads of its own; at most `queue_size` pieces wait.

    Args:
        queue_size: how many may wait beside those that have a thread.
        deadline_seconds: how long a piece may take, waiting included.
    """

    def __init__(self, *, queue_size: int, deadline_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._queue_size = queue_size
        self._deadline_seconds = deadline_seconds
        self._thread_count = 0
        self._unfinished = 0
        self._overdue = 0
        self._slow_bits = _ALL_SLOW
        self._may_be_done_here = False
        self._jobs: set[_Job] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Pieces of work that have a thread or wait for one."""
        return self._unfinished

    @property
    def waiting(self) -> int:
        """Pieces of work that wait for a thread."""
        return max(0, self._unfinished - self._thread_count)

    @property
    def is_stuck(self) -> bool:
        """Whether every thread is held by work that is past its deadline."""
        return 0 < self._thread_count <= self._overdue

    def open(self, threads: int, *, may_be_done_here: bool = False) -> None:
        """Have so many threads; `may_be_done_here` allows small, quick work on the event loop itself."""
        self._may_be_done_here = may_be_done_here
        while self._thread_count < threads:
            self._thread_count += 1
            threading.Thread(target=self._serve, name=f"predict-{self._thread_count}", daemon=True).start()

    def close(self) -> None:
        """Let the threads end when the queue is empty."""
        for _ in range(self._thread_count):
            self._queue.put(None)

    async def run(self, work: Callable[[], T], size_bytes: int) -> T:
        """The result of work, or what it raised. Raises `Busy` and `TooSlow`."""
        if (
            self._may_be_done_here
            and self._slow_bits.bit_count() <= _TOLERATED_SLOW_COUNT
            and size_bytes <= _SMALL_BYTES
            and not self._unfinished
        ):
            started = perf_counter()
            try:
                return work()
            finally:
                self._note(perf_counter() - started)
        limit = self._queue_size + self._thread_count
        if self._unfinished >= limit:
            raise Busy(limit)
        job = self._put(work)
        timer = self._loop.call_later(self._deadline_seconds, self._expire, job)
        try:
            return await job.future
        finally:
            timer.cancel()

    async def run_unhurried(self, work: Callable[[], T]) -> T:
        """The result of work that has no deadline and takes no place in the queue (loading the model)."""
        return await self._put(work).future

    async def wait_until_idle(self, seconds: float) -> None:
        """Wait until nothing is in flight, at most so long."""
        waiting = asyncio.ensure_future(self._idle.wait())
        await asyncio.wait((waiting,), timeout=seconds)
        waiting.cancel()

    def cut_off(self, error: Exception) -> None:
        """Let everything in flight fail with this error, whatever its threads still do."""
        for job in self._jobs:
            job.is_expired = True
            if not job.future.done():
                job.future.set_exception(error)

    def _put(self, work: Callable[[], Any]) -> _Job:
        job = _Job(work, self._loop.create_future())
        self._unfinished += 1
        self._jobs.add(job)
        self._idle.clear()
        self._queue.put(job)
        return job

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            result, error, watch = None, None, _Watch()
            job.is_running = True  # first, so that a deadline that passes now finds it held by this thread
            if not job.is_expired:
                try:
                    result = job.work()
                except BaseException as raised:  # whatever a user's code raises belongs to its request
                    error = raised
            try:
                self._loop.call_soon_threadsafe(self._finish, job, result, error, watch.seconds)
            except RuntimeError:  # the loop is closed: the server has gone
                return

    def _finish(self, job: _Job, result: Any, error: BaseException | None, seconds: float) -> None:
        self._unfinished -= 1
        self._jobs.discard(job)
        if not self._unfinished:
            self._idle.set()
        if job.is_overdue:
            self._overdue -= 1
        self._note(seconds)
        if job.future.done():
            return
        if error is None:
            job.future.set_result(result)
        elif isinstance(error, Exception):
            job.future.set_exception(error)
        else:  # SystemExit and its like end the user's call, not the server
            job.future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))

    def _expire(self, job: _Job) -> None:
        if job not in self._jobs:  # its result came in the same turn of the loop: no thread is held any more
            return
        job.is_expired = True
        if job.is_running:
            job.is_overdue = True
            self._overdue += 1
        if not job.future.done():
            job.future.set_exception(TooSlow(self._deadline_seconds))

    def _note(self, seconds: float) -> None:
        is_slow = seconds > _QUICK_SECONDS
        self._slow_bits = _ALL_SLOW if seconds > _VERY_SLOW_SECONDS else (self._slow_bits << 1 | is_slow) & _ALL_SLOW


class _Watch:
    """How long work takes in a thread: its processor time, unless so much time has passed that it must have waited for something.

    On a busy machine a thread loses the processor, and the interpreter's lock to the event loop, in the middle of its work; that must
    not make a quick model look slow.
    """

    __slots__ = ("_started", "_used")

    def __init__(self) -> None:
        self._started = perf_counter()
        self._used = thread_time()

    @property
    def seconds(self) -> float:
        """Seconds since the watch was made, as told above. To be asked in the thread that made it."""
        passed = perf_counter() - self._started
        return passed if passed > _VERY_SLOW_SECONDS else thread_time() - self._used


class _Job:
    __slots__ = ("future", "is_expired", "is_overdue", "is_running", "work")

    def __init__(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.is_expired = False
        self.is_running = False
        self.is_overdue = False
