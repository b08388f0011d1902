"""The door for ordinary programs, and the facade that turns a group of coroutines into a group of plain methods.

A coroutine over `BlockingDoor` never gives way: everything that it awaits has happened by the time the call returns. One `send(None)`
therefore runs it to its end, in the caller's thread, without an event loop; a program that has a loop of its own isn't disturbed.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import httpx

from modelyard.sdk.door import Answer, Broken, Call, FileSlice, NotSent
from modelyard.sdk.errors import ClientClosed
from modelyard.sdk.wiring import NOT_SENT, LazyContext, answer_of, direct_mounts, limits, timeout_of, why

T = TypeVar("T")
G = TypeVar("G")
G_co = TypeVar("G_co", covariant=True)
P = ParamSpec("P")


class BlockingDoor:
    """Calls through an `httpx.Client`, in the calling thread; several threads may share it."""

    def __init__(self, ca_file: Path | None = None, transport: httpx.BaseTransport | None = None) -> None:
        self._transport = transport
        self._context = LazyContext(ca_file)
        self._clients: dict[bool, httpx.Client] = {}
        self._opening = threading.Lock()
        self._is_stopping = threading.Event()
        self._is_closed = threading.Event()

    def close(self) -> None:
        """Close all connections. Calls that other threads are in the middle of end with `ClientClosed`."""
        self._is_closed.set()
        with self._opening:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    async def send(self, call: Call) -> Answer:
        """See `Door`."""
        try:
            response = self._client(call).send(self._request(call))
        except NOT_SENT as error:
            raise NotSent(why(error)) from error
        except httpx.TransportError as error:
            raise Broken(why(error)) from error
        return answer_of(response, response.content)

    async def receive(self, call: Call, write: Callable[[bytes], object]) -> Answer:
        """See `Door`."""
        try:
            response = self._client(call).send(self._request(call), stream=True)
            try:
                if not response.is_success:
                    return answer_of(response, response.read())
                for chunk in response.iter_raw():
                    self._check()
                    write(chunk)
                return answer_of(response, b"")
            finally:
                response.close()
        except NOT_SENT as error:
            raise NotSent(why(error)) from error
        except httpx.TransportError as error:
            raise Broken(why(error)) from error

    async def sleep(self, seconds: float) -> None:
        """See `Door`."""
        if self._is_closed.wait(seconds):
            raise ClientClosed
        self._check()

    async def work(self, task: Callable[[], T]) -> T:
        """See `Door`."""
        return task()

    async def together(self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]], at_once: int) -> Sequence[T]:
        """See `Door`. Each job has a thread of its own while it runs."""
        if at_once == 1 or len(jobs) < 2:
            return [run_to_end(job()) for job in jobs]
        with ThreadPoolExecutor(min(at_once, len(jobs)), thread_name_prefix="modelyard-transfer") as pool:
            futures = [pool.submit(_started, job) for job in jobs]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                return [future.result() for future in futures]
            except BaseException:
                # An error, or Ctrl-C: whatever still runs ends at its next piece, so that leaving doesn't take as long as the transfer.
                self._is_stopping.set()
                pool.shutdown(wait=True, cancel_futures=True)
                self._is_stopping.clear()
                raise

    def _check(self) -> None:
        if self._is_stopping.is_set():
            raise _Stopped

    def _request(self, call: Call) -> httpx.Request:
        headers = dict(call.headers)
        content: bytes | Iterator[bytes] | None
        if isinstance(call.body, FileSlice):
            headers["Content-Length"] = str(call.body.length)
            content = self._chunks(call.body)
        else:
            content = call.body
        return self._client(call).build_request(
            call.method,
            call.url,
            params={name: list(values) for name, values in call.params.items()} or None,
            headers=headers,
            content=content,
            timeout=timeout_of(call),
        )

    def _chunks(self, part: FileSlice) -> Iterator[bytes]:
        for chunk in part.chunks():
            self._check()
            yield chunk

    def _client(self, call: Call) -> httpx.Client:
        is_secure = call.url.startswith("https:")
        with self._opening:
            if self._is_closed.is_set():
                raise ClientClosed
            client = self._clients.get(is_secure)
            if client is None:
                client = httpx.Client(
                    verify=self._context.of(is_secure),
                    transport=self._transport,
                    mounts=direct_mounts(self._transport),
                    limits=limits(),
                )
                self._clients[is_secure] = client
            return client


class Blocking(Generic[G_co]):
    """Base of the plain groups: holds the group of coroutines that does the work."""

    def __init__(self, group: G_co) -> None:
        self._group = group

    @staticmethod
    def group_of(facade: Blocking[T]) -> T:
        """The group of coroutines behind a plain one."""
        return facade._group


def blocking(
    method: Callable[Concatenate[G, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Blocking[G], P], T]:
    """The plain method of a coroutine method: same arguments, same documentation, the result instead of a promise of it."""

    @wraps(method)
    def plain(facade: Blocking[G], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run_to_end(method(Blocking.group_of(facade), *args, **kwargs))

    return plain


def blocking_each(
    method: Callable[Concatenate[G, P], AsyncIterator[T]],
) -> Callable[Concatenate[Blocking[G], P], Iterator[T]]:
    """The plain generator of an asynchronous one."""

    @wraps(method)
    def plain(facade: Blocking[G], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items = method(Blocking.group_of(facade), *args, **kwargs)

        async def following() -> T:
            return await anext(items)

        while True:
            try:
                item = run_to_end(following())
            except StopAsyncIteration:
                return
            yield item

    return plain


def run_to_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine over a `BlockingDoor` to its end, in this thread."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("a coroutine over a blocking door must not give way: it awaited something that is not the door")


def _started(job: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return run_to_end(job())


class _Stopped(Exception):
    """Ends a transfer whose siblings failed; never leaves `together`."""
