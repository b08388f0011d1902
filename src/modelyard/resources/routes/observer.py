"""Compares what the gateway has with the record, now and then, and asks for attention to what differs. Never acts itself.

A gateway keeps its routes by itself. This finds what somebody took away behind the platform's back, what a restored backup does not
know, and what a server left that was cut off in the middle.
"""

from __future__ import annotations

import asyncio
import logging

from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.gateway.port import Gateway
from modelyard.kit.ids import is_id
from modelyard.resources.routes import repository
from modelyard.resources.routes.lifecycle import RouteState
from modelyard.resources.routes.service import KIND

log = logging.getLogger(__name__)


class RouteObserver:
    """Looks at all routes again and again."""

    def __init__(self, database: Database, gateway: Gateway, *, poll_seconds: float = 30.0) -> None:
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
        """Ask for attention to every route that is not at the gateway as the record has it."""
        deployed = {seen.id: seen.digest for seen in await self._gateway.list_routes()}
        async with self._database.read() as session:
            recorded = {
                row.id: row.status.get("digest")
                for row in await repository.all_rows(session)
                if row.state == RouteState.ACTIVE.value
            }
            known = set(await repository.all_ids(session))
        changed = {route_id for route_id, digest in recorded.items() if deployed.get(route_id) != digest}
        # The server's own route has a name for an id, and no record.
        strays = {route_id for route_id in deployed if is_id(route_id) and route_id not in known}
        if not changed | strays:
            return
        async with self._database.write() as session:
            for route_id in sorted(changed | strays):
                await enqueue(session, KIND, route_id, is_hint=True)
