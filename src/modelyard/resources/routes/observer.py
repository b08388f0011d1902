"""Compares what the gateway has with the record again and again, records what is gone there, and asks for attention. Never acts on the gateway.

A gateway keeps its routes by itself. This finds what somebody took away behind the platform's back, what a restored backup does not
know, and what a server left that was cut off in the middle.
"""

from __future__ import annotations

import asyncio
import logging

from modelyard.control.transitions import move
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.gateway.port import Gateway
from modelyard.kit.ids import is_id
from modelyard.resources.routes import repository
from modelyard.resources.routes.lifecycle import LIFECYCLE, RouteState
from modelyard.resources.routes.service import KIND

log = logging.getLogger(__name__)


class RouteObserver:
    """Looks at all routes again and again. A look is cheap while the gateway has loaded nothing new (see `EnvoyGateway.list_routes`)."""

    def __init__(self, database: Database, gateway: Gateway, *, poll_seconds: float = 3.0) -> None:
        self._database = database
        self._gateway = gateway
        self._poll_seconds = poll_seconds

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self.look()
            except Exception:
                log.exception("The gateway's routes can't be looked at; trying again")

    async def look(self) -> None:
        """Show every route that the gateway no longer has as it was deployed as NOT_FOUND, and ask for attention to it and to strays."""
        deployed = {seen.id: seen.digest for seen in await self._gateway.list_routes()}
        async with self._database.read() as session:
            recorded = {
                row.id: row.status for row in await repository.all_rows(session) if row.state == RouteState.ACTIVE.value
            }
            known = set(await repository.all_ids(session))
        changed = {id for id, status in recorded.items() if deployed.get(id) != status.get("digest")}
        # The server's own route has a name for an id, and no record.
        strays = {route_id for route_id in deployed if is_id(route_id) and route_id not in known}
        if not changed | strays:
            return
        async with self._database.write() as session:
            for route_id in sorted(changed):
                row = await repository.by_id(session, route_id)
                # Only what was not changed while we looked: a newer deployment is its reconciler's to record.
                if row is None or row.state != RouteState.ACTIVE.value or row.status != recorded[route_id]:
                    continue
                if row.status.get("generation") != row.generation:  # being deployed now
                    continue
                sentence = "The gateway no longer has this route as it was deployed."
                move(session, LIFECYCLE, row, RouteState.NOT_FOUND, reason="GONE_FROM_GATEWAY", message=sentence)
                await enqueue(session, row.owner_kind, row.owner_id, is_hint=True)
            for route_id in sorted(changed | strays):
                await enqueue(session, KIND, route_id, is_hint=True)
