"""What a stage's address asks of requests, and the API keys of an endpoint: told and changed. The reconcilers bring it to the gateway.

Keys belong to the endpoint, so that they stay good when its default stage changes and a revoked one is good nowhere; each stage says for
itself whether it asks for one.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.idempotency import claim, remember
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import Fault, Invalid, NotFound
from modelyard.kit.ids import IdempotencyKey
from modelyard.resources.endpoints import repository
from modelyard.resources.endpoints.errors import ApiKeyNameTaken, BeingDeleted, TooManyApiKeys
from modelyard.resources.endpoints.instances import ServingSettings
from modelyard.resources.endpoints.model import ENDPOINT_KIND, STAGE_KIND, StageSpec
from modelyard.resources.endpoints.opening import body_limit_faults, mint_key
from modelyard.resources.endpoints.openings import keeps, limit_of, read_opening, wake
from modelyard.resources.endpoints.stage_settings import (
    MAX_API_KEYS,
    ApiKeyCreate,
    ApiKeyOut,
    StageSettings,
    StageSettingsOut,
)
from modelyard.resources.endpoints.table import ApiKeyRow, EndpointRow, StageRow
from modelyard.resources.endpoints.traffic import listed_paths, paths_of
from modelyard.resources.projects.model import Caller
from modelyard.resources.routes.service import Routes
from modelyard.resources.workloads.service import Workloads

_API_KEY = "api-key"


class Gatekeeping:
    """Settings of stages, and API keys of endpoints."""

    def __init__(
        self, database: Database, workloads: Workloads, routes: Routes, serving: ServingSettings, *, secret: bytes
    ) -> None:
        """`secret`: what API keys are drawn from that may be asked for again."""
        self._database = database
        self._secret = secret
        self._workloads = workloads
        self._routes = routes
        self._serving = serving

    async def settings(self, caller: Caller, stage_id: str) -> StageSettingsOut:
        """A stage's settings, and whether the gateway keeps them already."""
        async with self._database.read() as session:
            stage = await repository.stage_or_404(session, caller.project.id, stage_id)
            opening = await read_opening(session, self._workloads, stage)
            ids = [stage.id, *([stage.endpoint_id] if stage.is_default else [])]
            routes = await self._routes.get_many(session, ids)
        is_deployed = all(keeps(routes.get(id), opening) for id in ids)
        return StageSettingsOut(endpoint_stage_id=stage.id, is_deployed=is_deployed, settings=opening.settings)

    async def change_settings(self, caller: Caller, stage_id: str, change: StageSettings) -> StageSettingsOut:
        """Change the settings that are given; null takes one away. No request fails. Raises `Invalid` with every fault that there is."""
        async with self._database.write() as session:
            stage = await repository.held_stage(session, caller.project.id, stage_id)
            if stage.desired == "delete":
                raise BeingDeleted("stage", stage.name)
            spec = StageSpec.model_validate(stage.spec)
            given = {name: getattr(change, name) for name in change.model_fields_set}
            settings = spec.settings.model_copy(update=given)
            faults = body_limit_faults(change, self._serving, "")
            faults += await _key_faults(session, stage, spec.settings, settings)
            faults += await _mirror_faults(session, stage, change)
            if faults:
                raise Invalid(faults)
            if settings != spec.settings:
                stage.spec = spec.model_copy(update={"settings": settings}).model_dump(mode="json")
                stage.generation += 1
                stage.updated_at = utc_now()
                await wake(session, stage)
        return await self.settings(caller, stage_id)

    async def create_key(self, caller: Caller, endpoint_id: str, request: ApiKeyCreate) -> ApiKeyOut:
        """A new API key. It is in the answer, and nowhere else.

        With an `Idempotency-Key` it is drawn from that and the platform's secret: who lost the answer gets the same one again, and still
        nothing is kept of it but its hash.
        """
        project_id, key = caller.project.id, caller.idempotency_key
        minted = mint_key(secrets.token_bytes(64) if key is None else self._seed(project_id, key))
        async with self._database.write() as session:
            made_id = await claim(session, project_id, _API_KEY, key)
            if made_id is not None:
                made = await repository.api_keys_by_ids(session, [made_id])
                if not made:
                    raise NotFound("API key", made_id)
                return _key_out(made[0]).model_copy(update={"api_key": minted.shown})
            endpoint = await repository.held_endpoint(session, caller.project.id, endpoint_id)
            if endpoint.desired == "delete":
                raise BeingDeleted("endpoint", endpoint.name)
            known = await repository.api_keys(session, endpoint.id)
            if any(row.name == request.name for row in known):
                raise ApiKeyNameTaken(request.name)
            if len(known) >= MAX_API_KEYS:
                raise TooManyApiKeys(MAX_API_KEYS)
            row = ApiKeyRow(
                id=minted.id,
                endpoint_id=endpoint.id,
                name=request.name,
                digest=minted.digest,
                rate_limit=None if request.rate_limit is None else request.rate_limit.model_dump(mode="json"),
                created_at=utc_now(),
                created_by=caller.actor,
                calls_count=0,
                gateway_count=0,
            )
            session.add(row)
            remember(session, project_id, _API_KEY, key, row.id)
            await _wake_all(session, endpoint)
        return _key_out(row).model_copy(update={"api_key": minted.shown})

    def _seed(self, project_id: str, key: IdempotencyKey) -> bytes:
        return hmac.digest(self._secret, "\0".join((project_id, key.value, key.request_digest)).encode(), "sha512")

    async def keys(self, caller: Caller, endpoint_id: str) -> Sequence[ApiKeyOut]:
        """API keys of an endpoint, oldest first."""
        async with self._database.read() as session:
            endpoint = await repository.endpoint_or_404(session, caller.project.id, endpoint_id)
            return [_key_out(row) for row in await repository.api_keys(session, endpoint.id)]

    async def revoke_key(self, caller: Caller, endpoint_id: str, key_id: str) -> None:
        """Revoke an API key: requests with it are turned away as soon as the gateway has heard of it. Raises `NotFound`."""
        async with self._database.write() as session:
            endpoint = await repository.endpoint_or_404(session, caller.project.id, endpoint_id)
            row = next((row for row in await repository.api_keys(session, endpoint.id) if row.id == key_id), None)
            if row is None:
                raise NotFound("API key", key_id)
            await session.delete(row)
            await session.flush()
            await _wake_all(session, endpoint)


async def _key_faults(
    session: AsyncSession, stage: StageRow, before: StageSettings, after: StageSettings
) -> list[Fault]:
    if before.is_api_key_required or not after.is_api_key_required:
        return []
    if await repository.api_keys(session, stage.endpoint_id):
        return []
    sentence = f"the endpoint has no API key, so every call would be refused: make one first (POST /endpoints/{stage.endpoint_id}/api-keys)"
    return [Fault("isApiKeyRequired", sentence)]


async def _mirror_faults(session: AsyncSession, stage: StageRow, change: StageSettings) -> list[Fault]:
    """Copies go to another stage of the endpoint that answers on the same paths."""
    if change.mirror is None:
        return []
    field = "mirror.endpointStageId"
    stages = await repository.stages_of(session, [stage.endpoint_id])
    mirror = next((item for item in stages if item.id == change.mirror.endpoint_stage_id), None)
    if mirror is None or mirror.desired == "delete":
        return [Fault(field, f"the endpoint has no stage '{change.mirror.endpoint_stage_id}'")]
    if mirror.id == stage.id:
        return [Fault(field, "is the stage itself; copies go to another one")]
    own, theirs = await paths_of(session, stage.id), await paths_of(session, mirror.id)
    if own != theirs:
        sentence = f"'{mirror.name}' answers on {listed_paths(theirs)}, this stage on {listed_paths(own)}; a mirror must answer on the same paths"
        return [Fault(field, sentence)]
    return []


async def _wake_all(session: AsyncSession, endpoint: EndpointRow) -> None:
    for stage in await repository.stages_of(session, [endpoint.id]):
        await enqueue(session, STAGE_KIND, stage.id)
    await enqueue(session, ENDPOINT_KIND, endpoint.id)


def _key_out(row: ApiKeyRow) -> ApiKeyOut:
    return ApiKeyOut(
        api_key_id=row.id,
        endpoint_id=row.endpoint_id,
        name=row.name,
        rate_limit=limit_of(row),
        created_datetime=row.created_at,
        created_by=row.created_by,
        last_used_datetime=row.last_used_at,
        calls_count=row.calls_count,
    )
