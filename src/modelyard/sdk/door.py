"""What the SDK asks of the outside, as a small contract with two implementations.

All of the SDK is written once, as coroutines over a `Door`. `modelyard.sdk.asynchronous` really waits; `modelyard.sdk.blocking` answers at
once, because it blocks, so that a coroutine over it runs to its end in one step. Nothing here or above knows which of the two it is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Part of a file as a request's body: `length` bytes from `offset`.

    `on_position` is told how many bytes of the slice have left by now; a second try begins at 0 again.
    """

    path: Path
    offset: int
    length: int
    on_position: Callable[[int], None] | None = None

    def chunks(self) -> Iterator[bytes]:
        """The bytes in pieces. Raises OSError, also when the file has become shorter than the slice."""
        remaining = self.length
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while remaining:
                chunk = file.read(min(CHUNK_BYTES, remaining))
                if not chunk:
                    raise OSError(0, "the file became shorter while it was being read", str(self.path))
                remaining -= len(chunk)
                yield chunk
                if self.on_position is not None:
                    self.on_position(self.length - remaining)


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request.

    Attributes:
        is_repeatable: whether sending it twice does no harm, so that it may be tried again after an answer got lost.
        timeout_seconds: without a byte from the other side, not for the whole call.
    """

    method: str
    url: str
    params: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | FileSlice | None = None
    is_repeatable: bool = True
    timeout_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are lower case; `body` is empty where the body went to a `receive` callback."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class NotSent(Exception):
    """No connection came about: the other side has seen nothing of the call."""


class Broken(Exception):
    """The connection broke or went silent: the other side may have seen the call."""


class Door(Protocol):
    """The outside. `send` and `receive` raise `NotSent` and `Broken`; every status is an answer."""

    async def send(self, call: Call) -> Answer:
        """Do the call and read the whole answer."""
        ...

    async def receive(self, call: Call, write: Callable[[bytes], object]) -> Answer:
        """Do the call; the body of a successful answer (2xx) goes to `write` piece by piece."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    async def work(self, task: Callable[[], T]) -> T:
        """Do something that blocks (disk, hashing) where it disturbs nobody."""
        ...

    async def together(self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]], at_once: int) -> Sequence[T]:
        """Run the jobs, at most `at_once` at a time; results in order. The first error ends the others and is raised."""
        ...
