"""The contract of the gateway port, as tests that run on every backend.

Subclass `GatewayContract` in a test module and give it the fixture `gateway`: a gateway that serves, without routes of the test's names.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from modelyard.gateway.port import Access, Gateway, Route, Rule, Target, Upstream, route_digest


class GatewayContract:
    """What every backend keeps."""

    async def test_what_is_put_is_listed_with_its_digest(self, gateway: Gateway) -> None:
        """The digest names the content, so that the platform can tell whether it is the newest."""
        route = _route("one")
        await gateway.put_route(route)
        assert await _deployed(gateway) == {"one": route_digest(route)}

    async def test_putting_again_replaces(self, gateway: Gateway) -> None:
        """Also with the same content, which changes nothing."""
        route = _route("one")
        await gateway.put_route(route)
        await gateway.put_route(route)
        assert await _deployed(gateway) == {"one": route_digest(route)}
        changed = replace(route, timeout_seconds=5.0)
        await gateway.put_route(changed)
        assert await _deployed(gateway) == {"one": route_digest(changed)}

    async def test_what_is_deployed_can_be_read(self, gateway: Gateway) -> None:
        """In the gateway's own words, and only while it is there."""
        route = _route("read")
        assert await gateway.read_route(route.id) is None
        await gateway.put_route(route)
        content = await gateway.read_route(route.id)
        assert content is not None
        assert "/read" in content
        json.loads(content)
        await gateway.remove_route(route.id)
        assert await gateway.read_route(route.id) is None

    async def test_removing(self, gateway: Gateway) -> None:
        """Takes away that route alone; what is not there is fine."""
        await gateway.put_route(_route("one"))
        await gateway.put_route(_route("two"))
        await gateway.remove_route("one")
        await gateway.remove_route("one")
        await gateway.remove_route("never-there")
        assert set(await _deployed(gateway)) == {"two"}

    async def test_who_may_pass_is_content_too(self, gateway: Gateway) -> None:
        """A guarded route is another route than the open one, and each epoch of it another one again."""
        opened = _route("one")
        guarded = replace(opened, access=Access("p", "notebook", "n"))
        later = replace(opened, access=Access("p", "notebook", "n", epoch=1))
        assert len({route_digest(route) for route in (opened, guarded, later)}) == 3
        for route in (opened, guarded, later, opened):
            await gateway.put_route(route)
            assert await _deployed(gateway) == {"one": route_digest(route)}

    async def test_many_at_once(self, gateway: Gateway) -> None:
        """Changes that come together don't lose one another."""
        await asyncio.gather(*(gateway.put_route(_route(f"r{number}")) for number in range(20)))
        await asyncio.gather(*(gateway.remove_route(f"r{number}") for number in range(0, 20, 2)))
        assert set(await _deployed(gateway)) == {f"r{number}" for number in range(1, 20, 2)}


async def _deployed(gateway: Gateway) -> dict[str, str]:
    return {seen.id: seen.digest for seen in await gateway.list_routes()}


def _route(route_id: str) -> Route:
    return Route(
        route_id,
        f"/contract/{route_id}",
        rules=(Rule("/", ("main",), is_prefix=True),),
        upstreams=(Upstream("main", (Target("127.0.0.1:9"),)),),
    )
