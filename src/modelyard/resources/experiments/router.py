"""HTTP door of experiments."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from modelyard.kit.paging import PageRequest
from modelyard.resources.experiments.repository import ExperimentFilter
from modelyard.resources.experiments.schemas import (
    ExperimentChange,
    ExperimentCreate,
    ExperimentList,
    ExperimentOne,
)
from modelyard.resources.experiments.service import Experiments
from modelyard.resources.projects.access import Access
from modelyard.resources.projects.model import Caller
from modelyard.web import WireRoute, listed, page_request, paging_of
from modelyard.wire import Empty


def create_router(experiments: Experiments, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = APIRouter(route_class=WireRoute, tags=["experiments"], dependencies=[Depends(access)])

    @router.get("/experiments")
    async def list_experiments(
        request: Request, caller: Caller = Depends(access), page: PageRequest = Depends(page_request)
    ) -> ExperimentList:
        """Experiments, newest first; `experimentIdList` and `experimentNameList` (exact names) choose."""
        wanted = ExperimentFilter(ids=listed(request, "experimentIdList"), names=listed(request, "experimentNameList"))
        found = await experiments.list(caller, wanted, page)
        return ExperimentList(experiment_list=list(found.items), paging=paging_of(found))

    @router.post("/experiments")
    async def create_experiment(body: ExperimentCreate, caller: Caller = Depends(access)) -> ExperimentOne:
        """A new experiment."""
        return ExperimentOne(experiment=await experiments.create(caller, body))

    @router.get("/experiments/{experiment_id}")
    async def get_experiment(experiment_id: str, caller: Caller = Depends(access)) -> ExperimentOne:
        """One experiment."""
        return ExperimentOne(experiment=await experiments.get(caller, experiment_id))

    @router.put("/experiments/{experiment_id}")
    async def change_experiment(
        experiment_id: str, body: ExperimentChange, caller: Caller = Depends(access)
    ) -> ExperimentOne:
        """Change name, description or tags."""
        return ExperimentOne(experiment=await experiments.change(caller, experiment_id, body))

    @router.put("/experiments/{experiment_id}/retry")
    async def retry_experiment(experiment_id: str, caller: Caller = Depends(access)) -> ExperimentOne:
        """Try a failed creation again."""
        return ExperimentOne(experiment=await experiments.retry(caller, experiment_id))

    @router.delete("/experiments/{experiment_id}")
    async def delete_experiment(experiment_id: str, caller: Caller = Depends(access)) -> Empty:
        """Delete an experiment without trainings."""
        await experiments.delete(caller, experiment_id)
        return Empty()

    return router
