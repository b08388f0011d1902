"""What all resource groups share: get, list, delete, wait, events, and names in the place of ids."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

from modelyard.kit.ids import is_id
from modelyard.resources.logs.schemas import EventList, EventOut, OutputOne
from modelyard.sdk.api import Api, Params, checked
from modelyard.sdk.errors import AmbiguousName, NotFound, UnknownName, WaitFailed, WaitTimedOut
from modelyard.wire import DeletionList, DeletionOut, Empty, Paging, Wire


class Named(Protocol):
    """What every resource has. `id` and `name` are properties because answers are frozen."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...


One = TypeVar("One", bound=Wire)
Many = TypeVar("Many", bound=Wire)
Out = TypeVar("Out", bound=Named)

PAGE_SIZE = 100
OUTPUT_BYTES = 65536
LONG_POLL_SECONDS = 20
_FIRST_POLL_SECONDS = 0.2
_LAST_POLL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Kind(Generic[One, Many, Out]):
    """A sort of resource.

    Attributes:
        word: for messages, e.g. `training`.
        path: below the app key, e.g. `/trainings`.
        one, many: the answers' shapes.
        item: takes the resource out of `one`.
        items: takes the resources and the whole list's length out of `many`.
        state: the resource's state.
        name_filter: the query parameter that asks for names; None where there is none.
        wanted: the state that a wait hopes for.
    """

    word: str
    path: str
    one: type[One]
    many: type[Many]
    item: Callable[[One], Out]
    items: Callable[[Many], tuple[Sequence[Out], int]]
    state: Callable[[Out], str]
    name_filter: str | None = None
    wanted: str = "ACTIVE"


class Resources(Generic[One, Many, Out]):
    """Base of the groups."""

    def __init__(self, api: Api, kind: Kind[One, Many, Out]) -> None:
        self._api = api
        self._kind = kind

    async def get(self, key: str) -> Out:
        """One resource, by its id or its name. Raises `NotFound`, `UnknownName` or `AmbiguousName`."""
        # A list, which a name is found in, leaves out what is long, such as the last lines of the output.
        id = key if is_id(key) else (await self.find(key)).id
        return self._kind.item(await self._api.ask(self._kind.one, "GET", self._at(id)))

    async def find(self, name: str) -> Out:
        """One resource by its name. Raises `UnknownName` or `AmbiguousName`."""
        kind = self._kind
        filters: Params = {kind.name_filter: one_or_many(name)} if kind.name_filter else {}
        items, _ = kind.items(await self._api.ask(kind.many, "GET", kind.path, params=filters))
        found = [item for item in items if item.name == name]
        if len(found) > 1:
            raise AmbiguousName(kind.word, name, [item.id for item in found])
        if found:
            return found[0]
        if kind.name_filter:
            items, _ = kind.items(await self._api.ask(kind.many, "GET", kind.path, params={"limit": PAGE_SIZE}))
        raise UnknownName(kind.word, name, difflib.get_close_matches(name, [item.name for item in items]))

    async def id_of(self, key: str) -> str:
        """The id of a resource given by id or name. An id is believed; the call that uses it tells when it is wrong."""
        return key if is_id(key) else (await self.find(key)).id

    async def delete(self, key: str, *, wait: bool = False, timeout_seconds: float | None = None) -> None:
        """Delete a resource, by its id or its name. What takes time goes on after the call, unless `wait` asks to stay until it is gone.

        Raises `Conflict` where something still needs it, and with `wait` also `WaitTimedOut` and `WaitFailed`.
        """
        id = await self.id_of(key)
        await self._api.ask(Empty, "DELETE", self._at(id))
        if wait:
            await self._wait_until_gone(id, timeout_seconds)

    async def _delete_many(self, keys: Sequence[str], body: Callable[[Sequence[str]], Wire]) -> Sequence[DeletionOut]:
        ids = [await self.id_of(key) for key in keys]
        answer = await self._api.ask(DeletionList, "POST", f"{self._kind.path}/bulk-delete", body=body(ids))
        return answer.result_list

    async def wait(
        self,
        key: str,
        *,
        timeout_seconds: float | None = None,
        progress: Callable[[Out], object] | None = None,
    ) -> Out:
        """Wait until the resource is as wanted (a training COMPLETE, the others ACTIVE) and return it.

        `progress` is called with the resource at first and whenever its state or message changed. Raises `WaitFailed` when it ends in
        another state, with reason, message and the last log lines, and `WaitTimedOut`, which leaves the work going on.
        """
        return await self._wait(key, self._is_done, timeout_seconds, progress)

    async def _wait(
        self,
        key: str,
        is_done: Callable[[Out], bool],
        timeout_seconds: float | None,
        progress: Callable[[Out], object] | None = None,
    ) -> Out:
        started = monotonic()
        id = await self.id_of(key)
        delay = _FIRST_POLL_SECONDS
        told: object = None
        while True:
            resource = await self.get(id)
            seen = (self._state_shown(resource), getattr(resource, "status_message", None))
            if seen != told:
                told = seen
                delay = _FIRST_POLL_SECONDS
                if progress is not None:
                    progress(resource)
            if is_done(resource):
                return resource
            failed = self._failed_part(resource)
            if failed is not None:
                raise self._failure(resource, failed)
            if timeout_seconds is not None and monotonic() - started + delay > timeout_seconds:
                raise WaitTimedOut(self._kind.word, id, resource.name, self._kind.state(resource), timeout_seconds)
            await self._api.door.sleep(delay)
            delay = min(delay * 1.25, _LAST_POLL_SECONDS)

    async def _wait_until_gone(self, id: str, timeout_seconds: float | None) -> None:
        started = monotonic()
        delay = _FIRST_POLL_SECONDS
        while True:
            try:
                resource = await self.get(id)
            except NotFound:
                return
            state = self._kind.state(resource)
            if state == "DELETE_FAILED":
                raise self._failure(resource, resource)
            if timeout_seconds is not None and monotonic() - started + delay > timeout_seconds:
                raise WaitTimedOut(self._kind.word, id, resource.name, state, timeout_seconds)
            await self._api.door.sleep(delay)
            delay = min(delay * 1.25, _LAST_POLL_SECONDS)

    def _at(self, id: str, tail: str = "") -> str:
        return f"{self._kind.path}/{quote(id, safe='')}{tail}"

    async def _page(self, filters: Params, page: int, limit: int | None) -> tuple[Sequence[Out], int]:
        params: Params = {**filters} if limit is None else {**filters, "page": page, "limit": limit}
        return self._kind.items(await self._api.ask(self._kind.many, "GET", self._kind.path, params=params))

    async def _each(self, filters: Params) -> AsyncIterator[Out]:
        page, cursor = 1, None
        while True:
            place: Params = {"page": page} if cursor is None else {"cursor": cursor}
            answer = await self._api.ask(
                self._kind.many, "GET", self._kind.path, params={**filters, **place, "limit": PAGE_SIZE}
            )
            items, total_count = self._kind.items(answer)
            for item in items:
                yield item
            was_by_cursor = cursor is not None
            paging = getattr(answer, "paging", None)
            cursor = paging.next_cursor if isinstance(paging, Paging) else None
            if cursor is None and (was_by_cursor or not items or page * PAGE_SIZE >= total_count):
                return
            page += 1

    async def _create(self, shape: type[Wire], fields: Mapping[str, Any], idempotency_key: str | None) -> Out:
        answer = await self._api.ask(
            self._kind.one, "POST", self._kind.path, body=checked(shape, fields), idempotency_key=idempotency_key
        )
        return self._kind.item(answer)

    async def _change(self, key: str, shape: type[Wire], fields: Mapping[str, Any]) -> Out:
        body = checked(shape, fields)
        answer = await self._api.ask(self._kind.one, "PUT", self._at(await self.id_of(key)), body=body)
        return self._kind.item(answer)

    def _state_shown(self, resource: Out) -> object:
        return self._kind.state(resource)

    def _is_done(self, resource: Out) -> bool:
        return self._kind.state(resource) == self._kind.wanted

    def _failed_part(self, resource: Out) -> Any:
        """The resource, or the part of it, that has ended in a state that isn't wanted; None while there is hope."""
        return resource if has_failed(self._kind.state(resource)) else None

    def _failure(self, resource: Out, part: Any) -> WaitFailed:
        return WaitFailed(
            self._kind.word,
            resource.id,
            resource.name,
            self._kind.state(resource),
            reason=getattr(part, "status_reason", None),
            message=getattr(part, "status_message", None),
            last_log_lines=getattr(part, "last_log_lines", ()),
        )


class LongLived(Resources[One, Many, Out]):
    """Base of the groups whose resources run, so that they have a history and output."""

    async def events(self, key: str) -> Sequence[EventOut]:
        """The changes of state, oldest first: who, when and why."""
        return (await self._api.ask(EventList, "GET", self._at(await self.id_of(key), "/events"))).event_list

    async def _output(
        self,
        key: str,
        instance: int,
        offset: int,
        follow: bool,
        attempt: int | None = None,
        model: str | None = None,
    ) -> AsyncIterator[str]:
        id = await self.id_of(key)
        current: int | None = None
        while True:
            params: Params = {
                "instance": instance,
                "attempt": attempt,
                "model": model,
                "offset": offset,
                "limitBytes": OUTPUT_BYTES,
                "waitSeconds": LONG_POLL_SECONDS if follow else 0,
            }
            answer = await self._api.ask(
                OutputOne, "GET", self._at(id, "/logs"), params=params, timeout_seconds=LONG_POLL_SECONDS + 30.0
            )
            output = answer.output
            if current is not None and output.attempt not in (None, current):
                # Another attempt has begun: first what the former one has printed last, then the new one from its beginning.
                async for text in self._output(id, instance, offset, False, current):
                    yield text
                current, offset = output.attempt, 0
                continue
            current = output.attempt
            if output.text:
                yield output.text
            is_still = output.next_offset == offset
            if output.is_end or (is_still and not follow):
                return
            offset = output.next_offset


def has_failed(state: str) -> bool:
    """Whether a state means that the hoped-for one will not come: stopped, being deleted, or failed and done with it."""
    return state in {"STOPPED", "DELETE_IN_PROGRESS"} or ("FAIL" in state and not state.endswith("IN_PROGRESS"))


def tag_list(tags: Mapping[str, str] | None) -> Any:
    """Tags on the wire; None stays None (no change)."""
    return None if tags is None else [{"tagKey": key, "tagValue": value} for key, value in tags.items()]


def one_or_many(value: str | Sequence[str] | None) -> Sequence[str] | None:
    """A filter that takes one value or several.

    One value with a comma goes twice: the platform reads a single value as a comma-joined list, as the oldest clients send it.
    """
    values = [value] if isinstance(value, str) else value
    return [*values, *values] if values is not None and len(values) == 1 and "," in values[0] else values
