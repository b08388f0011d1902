"""Routes through queue and reconciler at a gateway that misbehaves, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select

from modelyard.control.reconciler import Done
from modelyard.control.tables import EventRow, WorkItemRow
from modelyard.control.work import Lease, LeaseLost, WorkQueue
from modelyard.db.engine import Database
from modelyard.gateway.port import GatewayRefused
from modelyard.kit.errors import RetryLater
from modelyard.kit.ids import new_id
from modelyard.resources.routes.lifecycle import RouteState
from modelyard.resources.routes.model import Route, RouteSpec, RuleSpec, UpstreamSpec
from modelyard.resources.routes.observer import RouteObserver
from modelyard.resources.routes.reconciler import RouteReconciler, gateway_route
from modelyard.resources.routes.service import KIND, Routes
from modelyard.testing.clock import ShiftedClock
from modelyard.testing.gateway import FakeGateway
from modelyard.testing.workloads import make_tables

OWNER = "stage"


class RouteLoop:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.gateway = FakeGateway()
        self.routes = Routes(self.gateway)
        self.clock = ShiftedClock()
        self.queue = WorkQueue(database, "a", clock=self.clock)
        self.reconciler = RouteReconciler(database, self.gateway)
        self.observer = RouteObserver(database, self.gateway)
        self.id = new_id()

    async def put(self, *addresses: str) -> None:
        async with self.database.write() as session:
            await self.routes.put(session, self.id, "project", spec(*addresses), actor="test")

    async def remove(self) -> bool:
        async with self.database.write() as session:
            return await self.routes.remove(session, self.id)

    async def get(self) -> Route | None:
        async with self.database.read() as session:
            return await self.routes.get(session, self.id)

    async def drain(self) -> int:
        count = 0
        while items := await self.queue.claim([KIND], 5):
            for item in items:
                count += 1
                try:
                    assert await self.reconciler.reconcile(item.key, Lease(item)) == Done()
                except RetryLater as later:
                    await self.queue.finish(item, again_after_seconds=1.0, error=str(later))
                else:
                    await self.queue.finish(item)
        return count

    async def woken(self) -> bool:
        """Whether the owner was asked to look; forgets it."""
        async with self.database.write() as session:
            rows = (await session.scalars(select(WorkItemRow).where(WorkItemRow.kind == OWNER))).all()
            for row in rows:
                await session.delete(row)
        return bool(rows)


def spec(*addresses: str) -> RouteSpec:
    return RouteSpec(
        owner_kind=OWNER,
        owner_id="owner",
        title="endpoint 'iris', stage 'default'",
        prefix="/gateway/x/default",
        rules=(RuleSpec(path="/inference", upstreams=("main",)),),
        upstreams=(UpstreamSpec(name="main", addresses=addresses or ("/run/one.sock",)),),
        labels={"stage": "s", "endpoint": "e"},
    )


@pytest.fixture
async def loop(database_url: str) -> AsyncIterator[RouteLoop]:
    database = Database(database_url)
    await make_tables(database)
    yield RouteLoop(database)
    await database.close()


async def test_a_life(loop: RouteLoop) -> None:
    await loop.put()
    first = await loop.get()
    assert first is not None
    assert (first.state, first.is_current) == (RouteState.PENDING, False)
    await loop.drain()
    active = await loop.get()
    assert active is not None
    assert (active.state, active.is_current) == (RouteState.ACTIVE, True)
    assert await loop.woken()
    await loop.put()
    assert await loop.drain() == 0  # asking for what is there changes nothing
    assert await loop.remove()
    await loop.drain()
    assert await loop.get() is None
    assert loop.gateway.routes == {}
    assert await loop.woken()
    assert not await loop.remove()
    async with loop.database.read() as session:
        assert (await session.scalars(select(EventRow).where(EventRow.key == loop.id))).all() == []
        assert (await session.scalars(select(WorkItemRow))).all() == []


async def test_new_content_replaces_and_the_old_stays_until_then(loop: RouteLoop) -> None:
    await loop.put("/run/one.sock")
    await loop.drain()
    await loop.woken()
    await loop.put("/run/two.sock")
    changed = await loop.get()
    assert changed is not None
    assert (changed.state, changed.is_current) == (RouteState.ACTIVE, False)
    await loop.drain()
    assert loop.gateway.routes[loop.id] == gateway_route(loop.id, spec("/run/two.sock"))
    current = await loop.get()
    assert current is not None
    assert current.is_current
    assert await loop.woken()


async def test_content_that_changes_during_the_deployment_is_not_called_current(loop: RouteLoop) -> None:
    await loop.put("/run/one.sock")
    seen: list[bool] = []

    async def change(verb: str, _id: str) -> None:
        if verb == "put_route" and not seen:
            seen.append(True)
            await loop.put("/run/two.sock")

    loop.gateway.before = change
    (item,) = await loop.queue.claim([KIND], 1)
    await loop.reconciler.reconcile(item.key, Lease(item))
    route = await loop.get()
    assert route is not None
    assert (route.state, route.is_current) == (RouteState.ACTIVE, False)
    await loop.queue.finish(item)
    await loop.drain()
    route = await loop.get()
    assert route is not None
    assert route.is_current
    assert loop.gateway.routes[loop.id].upstreams[0].targets[0].address == "/run/two.sock"


async def test_a_refusal_is_told_and_new_content_gets_its_chance(loop: RouteLoop) -> None:
    await loop.put()
    loop.gateway.faults.append(GatewayRefused("duplicate domain 'x\x00'"))
    await loop.drain()
    failed = await loop.get()
    assert failed is not None
    assert failed.state is RouteState.FAILED
    assert failed.message == "The gateway does not take the route: duplicate domain 'x\N{REPLACEMENT CHARACTER}'"
    assert await loop.woken()
    await loop.put()
    await loop.drain()
    again = await loop.get()
    assert again is not None
    assert (again.state, again.message) == (RouteState.ACTIVE, None)


async def test_a_gateway_that_is_away_is_asked_again(loop: RouteLoop) -> None:
    await loop.put()
    loop.gateway.faults.extend([RetryLater("Envoy is starting")] * 2)
    for expected in (RouteState.PENDING, RouteState.PENDING, RouteState.ACTIVE):
        await loop.drain()
        route = await loop.get()
        assert route is not None
        assert route.state is expected
        loop.clock.advance(2)
    loop.gateway.faults.append(RetryLater("Envoy is starting"))
    await loop.remove()
    await loop.drain()
    assert await loop.get() is not None
    loop.clock.advance(2)
    await loop.drain()
    assert await loop.get() is None


async def test_removed_before_it_was_ever_deployed(loop: RouteLoop) -> None:
    await loop.put()
    await loop.remove()
    await loop.put("/run/two.sock")  # deleting wins
    await loop.drain()
    assert await loop.get() is None
    assert loop.gateway.puts == []


async def test_what_was_taken_away_behind_the_back_comes_back(loop: RouteLoop) -> None:
    await loop.put()
    await loop.drain()
    await loop.woken()
    await loop.observer.look()
    assert await loop.drain() == 0
    loop.gateway.routes.clear()
    await loop.observer.look()
    gone = await loop.get()
    assert gone is not None
    assert gone.state is RouteState.NOT_FOUND
    assert await loop.woken()
    await loop.drain()
    assert loop.id in loop.gateway.routes
    back = await loop.get()
    assert back is not None
    assert back.state is RouteState.ACTIVE
    assert await loop.woken()


async def test_without_repair_it_comes_back_when_somebody_asks(loop: RouteLoop) -> None:
    loop.reconciler = RouteReconciler(loop.database, loop.gateway, repairs=False)
    await loop.put()
    await loop.drain()
    loop.gateway.routes.clear()
    for _ in range(2):
        await loop.observer.look()
        await loop.drain()
    gone = await loop.get()
    assert gone is not None
    assert gone.state is RouteState.NOT_FOUND
    assert loop.gateway.routes == {}
    async with loop.database.write() as session:
        assert await loop.routes.deploy(session, loop.id, actor="test")
    await loop.drain()
    back = await loop.get()
    assert back is not None
    assert (back.state, back.is_current) == (RouteState.ACTIVE, True)
    assert loop.id in loop.gateway.routes


async def test_a_change_on_its_way_is_not_taken_for_a_loss(loop: RouteLoop) -> None:
    await loop.put("/run/one.sock")
    await loop.drain()
    await loop.put("/run/two.sock")
    await loop.gateway.put_route(gateway_route(loop.id, spec("/run/two.sock")))  # deployed, and not yet recorded
    await loop.observer.look()
    route = await loop.get()
    assert route is not None
    assert route.state is RouteState.ACTIVE


async def test_a_route_without_a_record_goes_and_the_servers_own_stays(loop: RouteLoop) -> None:
    stray = new_id()
    for route_id in (stray, "platform"):
        await loop.gateway.put_route(gateway_route(route_id, spec()))
    await loop.observer.look()
    await loop.drain()
    assert set(loop.gateway.routes) == {"platform"}


async def test_a_stale_holder_writes_nothing(loop: RouteLoop) -> None:
    await loop.put()
    (old,) = await loop.queue.claim([KIND], 1)
    loop.clock.advance(31)
    (new,) = await loop.queue.claim([KIND], 1)
    with pytest.raises(LeaseLost):
        await loop.reconciler.reconcile(old.key, Lease(old))
    route = await loop.get()
    assert route is not None
    assert route.state is RouteState.PENDING
    await loop.reconciler.reconcile(new.key, Lease(new))
    route = await loop.get()
    assert route is not None
    assert route.state is RouteState.ACTIVE
