"""Inference logs: what was asked and what was answered, a line each, never in the way of the answer.

Lines go to standard output, from where the platform brings them to the log store with the other output. Each begins with the record
separator of RFC 7464 (0x1E), which tells them from what a user's code prints. A thread of its own writes them; what does not fit into its
queue is dropped and counted.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from queue import Full, Queue

RECORD_SEPARATOR = "\x1e"
REQUEST = "Inference.Request"
RESPONSE = "Inference.Response"
_QUEUE_SIZE = 2048
_QUEUE_BYTES = 32 * 1024 * 1024
_LINE_BYTES = 56 * 1024  # below what the platform takes as one line
_TEXT_TYPES = ("json", "text/", "x-www-form-urlencoded")
_MAX_ID_CHARACTERS = 64
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")


class InferenceIds:
    """Ids of inferences: unique over all processes, and cheap."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._numbers = count(1)

    def id_for(self, given: str | None) -> str:
        """The caller's own id where it is a plain word, else a new one."""
        if given and len(given) <= _MAX_ID_CHARACTERS and _ID_CHARACTERS.issuperset(given):
            return given
        return f"{self._prefix}-{next(self._numbers):08x}"


@dataclass(frozen=True, slots=True)
class Record:
    """One side of an inference."""

    action: str
    inference_id: str
    body: bytes
    content_type: str
    status: int | None = None
    seconds: float | None = None


class InferenceLog:
    """Takes records and writes them as lines.

    Args:
        sample_rate: which part of the inferences is written, 0 to 1. Request and answer of one are written together.
        max_bytes: more of a body is cut off.
        write: takes whole lines; may block, and raise `OSError`.
    """

    def __init__(
        self, *, sample_rate: float, max_bytes: int, write: Callable[[bytes], object] | None = None, queue_size: int = 0
    ) -> None:
        self._sample_rate = sample_rate
        self._max_bytes = min(max_bytes, _LINE_BYTES // 2)
        self._write = write or _print
        self._queue: Queue[Record | None] = Queue(queue_size or _QUEUE_SIZE)
        # Each of the two is written by one thread alone.
        self._put_bytes = 0
        self._taken_bytes = 0
        self.dropped_count = 0
        self.written_count = 0
        self._thread: threading.Thread | None = None
        if sample_rate > 0:
            self._thread = threading.Thread(target=self._serve, name="inference-log", daemon=True)
            self._thread.start()

    def takes_next(self) -> bool:
        """Whether the next inference is to be written."""
        return self._sample_rate >= 1 or (self._sample_rate > 0 and random.random() < self._sample_rate)  # noqa: S311  # a sample, no secret

    def note(self, record: Record) -> None:
        """Write a record soon, or drop it. Never waits."""
        size = min(len(record.body), self._max_bytes + 4)
        try:
            if self._put_bytes - self._taken_bytes + size > _QUEUE_BYTES:
                raise Full
            # Of a large body only what may be written is kept.
            self._queue.put_nowait(record if size == len(record.body) else _cut(record, size))
        except Full:
            self.dropped_count += 1
            return
        self._put_bytes += size

    def close(self, seconds: float = 2.0) -> None:
        """Write what is queued, for at most so long."""
        if self._thread is None or not self._thread.is_alive():
            return
        try:
            self._queue.put(None, timeout=seconds)
        except Full:
            return
        self._thread.join(seconds)

    def _serve(self) -> None:
        told = 0
        while (record := self._queue.get()) is not None:
            self._taken_bytes += len(record.body)
            try:
                self._write(line_of(record, self._max_bytes))
                self.written_count += 1
            except OSError:
                self.dropped_count += 1
            if self.dropped_count != told and self._queue.empty():
                print(f"model server: {self.dropped_count - told} inference log lines were dropped", file=sys.stderr)
                told = self.dropped_count


def line_of(record: Record, max_bytes: int) -> bytes:
    """A record as a line of its own."""
    fields: dict[str, object] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": "INFO"
        if record.status is None or record.status < 400
        else "WARNING"
        if record.status < 500
        else "ERROR",
        "action": record.action,
        "inferenceId": record.inference_id,
    }
    if record.status is not None:
        fields["status"] = record.status
    if record.seconds is not None:
        fields["milliseconds"] = round(record.seconds * 1000, 3)
    while True:
        fields["body"] = _text(record, max_bytes)
        line = f"{RECORD_SEPARATOR}{json.dumps(fields, ensure_ascii=False)}\n".encode("utf-8", "replace")
        if len(line) <= _LINE_BYTES:
            return line
        max_bytes //= 2  # JSON writes one control character as six


def _text(record: Record, max_bytes: int) -> str:
    kind = record.content_type.partition(";")[0].strip().lower()
    if kind and not any(word in kind for word in _TEXT_TYPES):
        return f"<{kind}>"
    text = record.body[:max_bytes].decode("utf-8", "replace")
    return text if len(record.body) <= max_bytes else text.rstrip("�") + "…"


def _cut(record: Record, size: int) -> Record:
    return Record(
        record.action, record.inference_id, record.body[:size], record.content_type, record.status, record.seconds
    )


def _print(line: bytes) -> None:
    view = memoryview(line)
    while view:
        view = view[os.write(1, view) :]
