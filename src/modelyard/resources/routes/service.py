"""Use cases of routes, for the resources that own them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.transitions import born, move
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.gateway.port import Decisions, Gateway, UpstreamStatistics
from modelyard.kit.clock import utc_now
from modelyard.resources.routes import repository
from modelyard.resources.routes.lifecycle import LIFECYCLE, RouteState
from modelyard.resources.routes.model import Route, RouteSpec
from modelyard.resources.routes.table import RouteRow

KIND = "route"


class Routes:
    """Asks for routes and tells what is seen of them. Only the reconciler makes them true; here the gateway is only read."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def read_configuration(self, route_id: str) -> str | None:
        """What the gateway has of a route now, in its own language (JSON). Raises `RetryLater` when it does not answer."""
        return await self._gateway.read_route(route_id)

    async def read_statistics(self) -> Sequence[UpstreamStatistics]:
        """What the gateway has counted for each upstream, by the name that its route gave it. Raises `RetryLater`."""
        return await self._gateway.read_statistics()

    async def read_decisions(self) -> Sequence[Decisions]:
        """What the gateway has decided of routes' requests by itself: turned away, or let in by a key. Raises `RetryLater`."""
        return await self._gateway.read_decisions()

    async def put(self, session: AsyncSession, route_id: str, project_id: str, spec: RouteSpec, *, actor: str) -> Route:
        """Ask for a route with this content, as part of the caller's transaction. Asking for what is there already changes nothing."""
        row = await repository.by_id(session, route_id)
        content = spec.model_dump(mode="json")
        now = utc_now()
        if row is None:
            row = RouteRow(
                id=route_id,
                project_id=project_id,
                name=spec.title[:128],
                spec=content,
                status={},
                tags=[],
                desired="run",
                state=LIFECYCLE.initial.value,
                generation=1,
                created_by=actor,
                created_at=now,
                updated_at=now,
                owner_kind=spec.owner_kind,
                owner_id=spec.owner_id,
                access_target=_target(spec),
                access_epoch=0,
            )
            born(session, LIFECYCLE, row, actor=actor)
            session.add(row)
            await enqueue(session, KIND, route_id)
        elif row.spec != content or row.state == RouteState.FAILED.value:
            row.spec = content
            row.access_target = _target(spec)
            row.generation += 1
            if row.state != RouteState.ACTIVE.value:
                move(session, LIFECYCLE, row, RouteState.PENDING, actor=actor)
            await enqueue(session, KIND, route_id)
        return route_of(row)

    async def remove(self, session: AsyncSession, route_id: str) -> bool:
        """Ask for it to be taken away. False when there is no such route (any more)."""
        row = await repository.by_id(session, route_id)
        if row is None:
            return False
        if row.desired != "delete":
            row.desired = "delete"
            row.generation += 1
            await enqueue(session, KIND, route_id)
        return True

    async def end_connections(self, session: AsyncSession, kind: str, target_id: str) -> int:
        """Ask for all connections through guarded routes to this target to be ended, WebSockets too. The number of routes.

        Whoever may still pass can connect again at once.
        """
        rows = await repository.by_target(session, f"{kind}/{target_id}")
        for row in rows:
            row.access_epoch += 1
            row.generation += 1
            await enqueue(session, KIND, row.id)
        return len(rows)

    async def deploy(self, session: AsyncSession, route_id: str, *, actor: str) -> bool:
        """Ask for it to be deployed anew, whatever the gateway has. False when there is no such route."""
        row = await repository.by_id(session, route_id)
        if row is None or row.desired == "delete":
            return False
        row.generation += 1
        if row.state != RouteState.PENDING.value:
            move(session, LIFECYCLE, row, RouteState.PENDING, reason="DEPLOY_REQUESTED", actor=actor)
        await enqueue(session, KIND, route_id)
        return True

    async def all_ids(self, database: Database) -> list[str]:
        """Ids of every route."""
        async with database.read() as session:
            return list(await repository.all_ids(session))

    async def get_many(self, session: AsyncSession, route_ids: Collection[str]) -> dict[str, Route]:
        """The routes of these ids that there are."""
        return {row.id: route_of(row) for row in await repository.by_ids(session, route_ids)}

    async def get(self, session: AsyncSession, route_id: str) -> Route | None:
        """One route."""
        row = await repository.by_id(session, route_id)
        return None if row is None else route_of(row)


def _target(spec: RouteSpec) -> str | None:
    return None if spec.access is None else f"{spec.access.kind}/{spec.access.target_id}"


def route_of(row: RouteRow) -> Route:
    """The frozen value of a row."""
    return Route(
        id=row.id,
        spec=RouteSpec.model_validate(row.spec),
        state=RouteState(row.state),
        message=row.message,
        is_current=row.status.get("generation") == row.generation,
    )
