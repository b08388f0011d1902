"""How a stage is told to go. Asked for by people, and by the change of the default stage."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.transitions import move
from modelyard.control.work import enqueue
from modelyard.resources.endpoints import repository
from modelyard.resources.endpoints.lifecycle import ENDPOINT_MODEL, STAGE, EndpointModelState, StageState
from modelyard.resources.endpoints.model import STAGE_KIND
from modelyard.resources.endpoints.openings import end_mirrors
from modelyard.resources.endpoints.table import StageRow


async def ask_stage_delete(session: AsyncSession, stage: StageRow, *, actor: str) -> None:
    """Want the stage gone, as part of the caller's transaction. Asking again changes nothing."""
    if stage.desired == "delete":
        return
    stage.desired = "delete"
    stage.generation += 1
    await end_mirrors(session, stage)
    move(session, STAGE, stage, StageState.DELETE_IN_PROGRESS, actor=actor)
    for model in await repository.models_of_stages(session, [stage.id]):
        move(session, ENDPOINT_MODEL, model, EndpointModelState.DELETE_IN_PROGRESS, actor=actor)
    await enqueue(session, STAGE_KIND, stage.id)
