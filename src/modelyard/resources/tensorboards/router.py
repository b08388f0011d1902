"""HTTP door of TensorBoards, below trainings and experiments."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from modelyard.resources.projects.access import Access, project_router
from modelyard.resources.projects.model import Caller
from modelyard.resources.tensorboards.model import OwnerKind
from modelyard.resources.tensorboards.schemas import TensorBoardOne
from modelyard.resources.tensorboards.service import TensorBoards
from modelyard.wire import Empty


def create_router(tensorboards: TensorBoards, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = project_router(access, "tensorboards")

    @router.post("/trainings/{training_id}/tensorboard")
    async def start_training_tensorboard(training_id: str, caller: Caller = Depends(access)) -> TensorBoardOne:
        """Have a training's TensorBoard run; asking again tells how far it is."""
        return TensorBoardOne(tensorboard=await tensorboards.start(caller, OwnerKind.TRAINING, training_id))

    @router.get("/trainings/{training_id}/tensorboard")
    async def get_training_tensorboard(training_id: str, caller: Caller = Depends(access)) -> TensorBoardOne:
        """How a training's TensorBoard is."""
        return TensorBoardOne(tensorboard=await tensorboards.get(caller, OwnerKind.TRAINING, training_id))

    @router.delete("/trainings/{training_id}/tensorboard")
    async def stop_training_tensorboard(training_id: str, caller: Caller = Depends(access)) -> Empty:
        """End a training's TensorBoard; its address stays good."""
        await tensorboards.stop(caller, OwnerKind.TRAINING, training_id)
        return Empty()

    @router.post("/experiments/{experiment_id}/tensorboard")
    async def start_experiment_tensorboard(experiment_id: str, caller: Caller = Depends(access)) -> TensorBoardOne:
        """Have the TensorBoard run that shows all trainings of an experiment; asking again tells how far it is."""
        return TensorBoardOne(tensorboard=await tensorboards.start(caller, OwnerKind.EXPERIMENT, experiment_id))

    @router.get("/experiments/{experiment_id}/tensorboard")
    async def get_experiment_tensorboard(experiment_id: str, caller: Caller = Depends(access)) -> TensorBoardOne:
        """How an experiment's TensorBoard is."""
        return TensorBoardOne(tensorboard=await tensorboards.get(caller, OwnerKind.EXPERIMENT, experiment_id))

    @router.delete("/experiments/{experiment_id}/tensorboard")
    async def stop_experiment_tensorboard(experiment_id: str, caller: Caller = Depends(access)) -> Empty:
        """End an experiment's TensorBoard; its address stays good."""
        await tensorboards.stop(caller, OwnerKind.EXPERIMENT, experiment_id)
        return Empty()

    return router
