"""Makes routes true. The only place that tells the gateway to act."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from modelyard.control.events import forget_events
from modelyard.control.reconciler import Done, Outcome
from modelyard.control.transitions import move
from modelyard.control.work import Lease, enqueue, forget
from modelyard.db.engine import Database
from modelyard.gateway.port import Access, Gateway, GatewayRefused, Mirror, Route, Rule, Target, Upstream, route_digest
from modelyard.kit.errors import RetryLater
from modelyard.resources.routes import repository
from modelyard.resources.routes.lifecycle import LIFECYCLE, RouteState
from modelyard.resources.routes.model import RouteSpec, RuleSpec
from modelyard.resources.routes.service import KIND
from modelyard.resources.routes.table import RouteRow

log = logging.getLogger(__name__)


class RouteReconciler:
    """Reconciles routes."""

    kind = KIND

    def __init__(
        self,
        database: Database,
        gateway: Gateway,
        *,
        repairs: bool = True,
        before_removal: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """With `repairs`, what somebody took from the gateway is deployed again by itself; without, only when it is asked for.

        `before_removal` is awaited before a route goes: what the gateway has counted of it may soon be gone.
        """
        self._database = database
        self._gateway = gateway
        self._repairs = repairs
        self._before_removal = before_removal

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Deploy the newest content of one route, or take it away."""
        async with self._database.read() as session:
            row = await repository.by_id(session, key)
        if row is None:
            await self._gateway.remove_route(key)  # what has no record is not to be reachable
            return Done()
        if row.desired == "delete":
            await self._count()
            await self._gateway.remove_route(key)
            return await self._forget(key, lease)
        is_asked = row.status.get("generation") != row.generation
        if row.state == RouteState.NOT_FOUND.value and not self._repairs and not is_asked:
            return Done()
        route = gateway_route(key, RouteSpec.model_validate(row.spec), row.access_epoch)
        try:
            await self._gateway.put_route(route)
        except GatewayRefused as refusal:
            message = f"The gateway does not take the route: {refusal}".replace("\x00", "\ufffd")
            return await self._record(row, lease, RouteState.FAILED, "GATEWAY_REFUSED", message)
        return await self._record(row, lease, RouteState.ACTIVE, None, None, digest=route_digest(route))

    async def _count(self) -> None:
        if self._before_removal is None:
            return
        try:
            await self._before_removal()
        except RetryLater as later:
            log.info("The last calls of a route that goes are not counted: %s", later)

    async def _record(
        self,
        seen: RouteRow,
        lease: Lease,
        state: RouteState,
        reason: str | None,
        message: str | None,
        digest: str | None = None,
    ) -> Outcome:
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_id(session, seen.id)
            if row is None:
                return Done()
            status = {"generation": seen.generation, "digest": digest}
            has_changed = row.status != status
            row.status = status
            if move(session, LIFECYCLE, row, state, reason=reason, message=message) or has_changed:
                await enqueue(session, row.owner_kind, row.owner_id, is_hint=True)
        return Done()

    async def _forget(self, key: str, lease: Lease) -> Outcome:
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_id(session, key)
            if row is not None:
                await session.delete(row)
                await enqueue(session, row.owner_kind, row.owner_id, is_hint=True)
            await forget_events(session, LIFECYCLE.name, key)
            await forget(session, KIND, key)
        return Done()


def gateway_route(route_id: str, spec: RouteSpec, access_epoch: int = 0) -> Route:
    """The route in the gateway's words."""
    access = spec.access
    return Route(
        id=route_id,
        prefix=spec.prefix,
        rules=tuple(_rule(rule) for rule in spec.rules),
        upstreams=tuple(
            Upstream(
                upstream.name,
                tuple(Target(address) for address in upstream.addresses),
                upstream.weight,
                upstream.max_requests,
            )
            for upstream in spec.upstreams
        ),
        timeout_seconds=spec.timeout_seconds,
        max_body_bytes=spec.max_body_bytes,
        labels=tuple(sorted(spec.labels.items())),
        host=spec.host,
        access=None if access is None else Access(access.project_id, access.kind, access.target_id, access_epoch),
        idle_seconds=spec.idle_seconds,
        conditions=spec.conditions,
    )


def _rule(rule: RuleSpec) -> Rule:
    mirrors = tuple(Mirror(mirror.upstream, mirror.percent) for mirror in rule.mirrors)
    return Rule(rule.path, rule.upstreams, rule.is_prefix, rule.rewrite, rule.methods, mirrors, rule.answer)
