"""A gateway that is all in memory, for tests of what stands above the gateway port."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from modelyard.gateway.port import Decisions, ObservedRoute, Route, UpstreamStatistics, route_digest


class FakeGateway:
    """Keeps routes in memory (`Gateway` of the port).

    Attributes:
        routes: what is deployed, by id. A test may take routes away behind the platform's back.
        faults: raised by the next calls of `put_route` and `remove_route`, one each.
        puts: ids in the order in which they were really put.
        statistics: what was counted, by upstream; a test counts.
        decisions: what was decided of requests, by route; a test decides.
        before: awaited before each verb does anything, with its name and the id.
    """

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.faults: deque[Exception] = deque()
        self.statistics: dict[str, UpstreamStatistics] = {}
        self.decisions: dict[str, Decisions] = {}
        self.puts: list[str] = []
        self.before: Callable[[str, str], Awaitable[None]] = _do_nothing

    async def put_route(self, route: Route) -> None:
        """See the port."""
        await self._enter("put_route", route.id)
        self.puts.append(route.id)
        self.routes[route.id] = route

    async def remove_route(self, route_id: str) -> None:
        """See the port."""
        await self._enter("remove_route", route_id)
        self.routes.pop(route_id, None)

    async def list_routes(self) -> Sequence[ObservedRoute]:
        """See the port."""
        await self.before("list_routes", "")
        return [ObservedRoute(route.id, route_digest(route)) for route in self.routes.values()]

    async def read_statistics(self) -> Sequence[UpstreamStatistics]:
        """See the port."""
        await self.before("read_statistics", "")
        return list(self.statistics.values())

    async def read_decisions(self) -> Sequence[Decisions]:
        """See the port."""
        await self.before("read_decisions", "")
        return list(self.decisions.values())

    async def read_route(self, route_id: str) -> str | None:
        """See the port. The language of this gateway is Python."""
        await self.before("read_route", route_id)
        route = self.routes.get(route_id)
        return None if route is None else json.dumps({"routes": [repr(route)]})

    async def _enter(self, verb: str, route_id: str) -> None:
        await self.before(verb, route_id)
        if self.faults:
            raise self.faults.popleft()


async def _do_nothing(_verb: str, _route_id: str) -> None:
    """No misbehaviour."""
