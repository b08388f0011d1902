"""The door for asyncio programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from modelyard.sdk.door import Answer, Broken, Call, FileSlice, NotSent
from modelyard.sdk.errors import ClientClosed
from modelyard.sdk.wiring import NOT_SENT, LazyContext, answer_of, direct_mounts, limits, timeout_of, why

T = TypeVar("T")


class AsyncDoor:
    """Calls through an `httpx.AsyncClient`. `transport` replaces the network, for programs that call an ASGI app in their own process."""

    def __init__(self, ca_file: Path | None = None, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._context = LazyContext(ca_file)
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._is_closed = False

    async def close(self) -> None:
        """Close all connections; later calls raise `ClientClosed`."""
        self._is_closed = True
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()

    async def send(self, call: Call) -> Answer:
        """See `Door`."""
        try:
            response = await self._client(call).send(self._request(call))
        except NOT_SENT as error:
            raise NotSent(why(error)) from error
        except httpx.TransportError as error:
            raise Broken(why(error)) from error
        return answer_of(response, response.content)

    async def receive(self, call: Call, write: Callable[[bytes], object]) -> Answer:
        """See `Door`."""
        try:
            response = await self._client(call).send(self._request(call), stream=True)
            try:
                if not response.is_success:
                    return answer_of(response, await response.aread())
                async for chunk in response.aiter_raw():
                    await asyncio.to_thread(write, chunk)
                return answer_of(response, b"")
            finally:
                await response.aclose()
        except NOT_SENT as error:
            raise NotSent(why(error)) from error
        except httpx.TransportError as error:
            raise Broken(why(error)) from error

    async def sleep(self, seconds: float) -> None:
        """See `Door`."""
        await asyncio.sleep(seconds)

    async def work(self, task: Callable[[], T]) -> T:
        """See `Door`."""
        return await asyncio.to_thread(task)

    async def together(self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]], at_once: int) -> Sequence[T]:
        """See `Door`."""
        places = asyncio.Semaphore(at_once)

        async def run(job: Callable[[], Coroutine[Any, Any, T]]) -> T:
            async with places:
                return await job()

        tasks = [asyncio.create_task(run(job)) for job in jobs]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _request(self, call: Call) -> httpx.Request:
        headers = dict(call.headers)
        content: bytes | AsyncIterator[bytes] | None
        if isinstance(call.body, FileSlice):
            headers["Content-Length"] = str(call.body.length)
            content = _chunks(call.body)
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

    def _client(self, call: Call) -> httpx.AsyncClient:
        if self._is_closed:
            raise ClientClosed
        is_secure = call.url.startswith("https:")
        client = self._clients.get(is_secure)
        if client is None:
            client = httpx.AsyncClient(
                verify=self._context.of(is_secure),
                transport=self._transport,
                mounts=direct_mounts(self._transport),
                limits=limits(),
            )
            self._clients[is_secure] = client
        return client


async def _chunks(part: FileSlice) -> AsyncIterator[bytes]:
    chunks = part.chunks()
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk
