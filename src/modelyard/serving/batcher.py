"""Adaptive batching: requests that are there at the same time are predicted together.

Request threads hand their inputs in and wait; runner threads take what has come together. A runner waits for more only while other
requests are on their way, at most for the delay that was allowed: a lone caller never waits. A batch that fails is asked again one by
one, so that nobody pays for a neighbour's bad value.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from time import monotonic
from typing import Generic, TypeVar

I = TypeVar("I")  # noqa: E741  # input, beside O for output
O = TypeVar("O")  # noqa: E741  # output, beside I for input


class Batcher(Generic[I, O]):
    """Runs inputs together that have the same key.

    Args:
        run: outputs for inputs, one each, in their order; may raise.
        max_rows: the largest batch; an input of more rows runs alone.
        max_delay_seconds: how long the first of a batch may wait for others that are on their way.
        in_flight: how many requests the server has begun and not finished.
        threads: how many batches may run at the same time.
    """

    def __init__(
        self,
        run: Callable[[Hashable, Sequence[I]], Sequence[O]],
        *,
        max_rows: int,
        max_delay_seconds: float,
        in_flight: Callable[[], int],
        threads: int,
    ) -> None:
        self._run = run
        self._max_rows = max_rows
        self._max_delay_seconds = max_delay_seconds
        self._in_flight = in_flight
        self._news = threading.Condition()
        self._waiting: dict[Hashable, deque[_Part[I, O]]] = {}
        self._waiting_count = 0
        self._running_count = 0
        self._is_closed = False
        self.batch_count = 0
        self.row_count = 0
        for index in range(threads):
            threading.Thread(target=self._serve, name=f"batch-{index + 1}", daemon=True).start()

    def ask(self, key: Hashable, given: I, rows: int) -> O:
        """The output for an input of so many rows; waits in the calling thread. Raises what `run` raises for it."""
        part = _Part[I, O](given, rows)
        with self._news:
            self._waiting.setdefault(key, deque()).append(part)
            self._waiting_count += 1
            self._news.notify()
        part.done.wait()
        if part.error is not None:
            raise part.error
        assert part.output is not None
        return part.output

    def close(self) -> None:
        """Let the runner threads end when nothing waits any more."""
        with self._news:
            self._is_closed = True
            self._news.notify_all()

    def _serve(self) -> None:
        while (taken := self._take()) is not None:
            key, parts = taken
            self._answer(key, parts)
            with self._news:
                self._running_count -= len(parts)
                self._news.notify_all()

    def _take(self) -> tuple[Hashable, list[_Part[I, O]]] | None:
        """The next batch: of the group whose first part has waited longest. None when closed."""
        with self._news:
            while True:
                while not self._waiting:
                    if self._is_closed:
                        return None
                    self._news.wait()
                key = min(self._waiting, key=lambda each: self._waiting[each][0].since)
                group = self._waiting[key]
                left = group[0].since + self._max_delay_seconds - monotonic()
                is_full = sum(part.rows for part in group) >= self._max_rows
                # Those that run already can't come to this batch; all others may be parsed a moment later.
                is_more_coming = self._in_flight() - self._running_count > self._waiting_count
                if is_full or left <= 0 or not is_more_coming:
                    return key, self._cut(key, group)
                self._news.wait(left)

    def _cut(self, key: Hashable, group: deque[_Part[I, O]]) -> list[_Part[I, O]]:
        parts = [group.popleft()]
        rows = parts[0].rows
        while group and rows + group[0].rows <= self._max_rows:
            rows += group[0].rows
            parts.append(group.popleft())
        if not group:
            del self._waiting[key]
        self._waiting_count -= len(parts)
        self._running_count += len(parts)
        self.batch_count += 1
        self.row_count += rows
        return parts

    def _answer(self, key: Hashable, parts: list[_Part[I, O]]) -> None:
        try:
            outputs = self._run(key, [part.given for part in parts])
            for part, output in zip(parts, outputs, strict=True):
                part.output = output
        except BaseException as error:  # a user's program may raise anything; it belongs to the requests of the batch
            if len(parts) == 1:
                parts[0].error = error
            else:
                for part in parts:
                    self._answer(key, [part])
        for part in parts:
            part.done.set()


class _Part(Generic[I, O]):
    __slots__ = ("done", "error", "given", "output", "rows", "since")

    def __init__(self, given: I, rows: int) -> None:
        self.given = given
        self.rows = rows
        self.since = monotonic()
        self.output: O | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()
