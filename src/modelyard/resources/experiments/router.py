"""HTTP door of experiments."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Query, Request

from modelyard.kit.errors import Fault, Invalid
from modelyard.kit.paging import PageRequest
from modelyard.resources.experiments.lifecycle import ExperimentState
from modelyard.resources.experiments.repository import ExperimentFilter
from modelyard.resources.experiments.schemas import (
    EXPERIMENT_SORTS,
    ExperimentChange,
    ExperimentCreate,
    ExperimentDeletion,
    ExperimentList,
    ExperimentOne,
)
from modelyard.resources.experiments.service import Experiments
from modelyard.resources.projects.access import Access, project_router
from modelyard.resources.projects.model import Caller
from modelyard.web import QueryMoment, deletions_out, listed, paging_of, sorted_page_request
from modelyard.wire import DeletionList, Empty, Line

_page_request = sorted_page_request(*EXPERIMENT_SORTS)


def create_router(experiments: Experiments, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = project_router(access, "experiments")

    @router.get("/experiments")
    async def list_experiments(
        wanted: ExperimentFilter = Depends(experiment_filter),
        caller: Caller = Depends(access),
        page: PageRequest = Depends(_page_request),
    ) -> ExperimentList:
        """Experiments, newest first. Filters that are given all apply; of several values of one, any will do."""
        found = await experiments.list(caller, wanted, page)
        return ExperimentList(experiment_list=list(found.items), paging=paging_of(found))

    @router.post("/experiments")
    async def create_experiment(body: ExperimentCreate, caller: Caller = Depends(access)) -> ExperimentOne:
        """A new experiment."""
        return ExperimentOne(experiment=await experiments.create(caller, body))

    @router.post("/experiments/bulk-delete")
    async def delete_experiments(body: ExperimentDeletion, caller: Caller = Depends(access)) -> DeletionList:
        """Delete those of several that can be deleted, and say of each what became of it."""
        return deletions_out(await experiments.delete_many(caller, body.experiment_id_list))

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


def experiment_filter(
    request: Request,
    experiment_id_list: list[str] | None = Query(default=None, alias="experimentIdList"),
    experiment_name_list: list[str] | None = Query(
        default=None, alias="experimentNameList", description="Exact names."
    ),
    experiment_status_code_list: list[str] | None = Query(default=None, alias="experimentStatusCodeList"),
    name_contains: Line | None = Query(default=None, alias="nameContains", max_length=50),
    created_from: QueryMoment | None = Query(default=None, alias="createdFrom"),
    created_to: QueryMoment | None = Query(default=None, alias="createdTo", description="Not itself in."),
) -> ExperimentFilter:
    """Which experiments are wanted. Raises `Invalid`."""
    states = listed(request, "experimentStatusCodeList")
    if unknown := [state for state in states if state not in set(ExperimentState)]:
        known = ", ".join(ExperimentState)
        message = f"'{unknown[0]}' is no state of an experiment; they are {known}"
        raise Invalid([Fault("experimentStatusCodeList", message)])
    return ExperimentFilter(
        ids=listed(request, "experimentIdList"),
        names=listed(request, "experimentNameList"),
        states=states,
        name_part=name_contains,
        created_from=created_from,
        created_to=created_to,
    )
