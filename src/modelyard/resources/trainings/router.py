"""HTTP door of trainings."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from modelyard.kit.errors import Fault, Invalid
from modelyard.kit.ids import is_id
from modelyard.kit.paging import PageRequest
from modelyard.resources.logs.output import events_out, follow, output_out
from modelyard.resources.logs.schemas import EventList, OutputOne
from modelyard.resources.projects.access import Access, project_router
from modelyard.resources.projects.model import Caller
from modelyard.resources.trainings.lifecycle import TrainingState
from modelyard.resources.trainings.repository import TrainingFilter
from modelyard.resources.trainings.schemas import (
    TRAINING_SORTS,
    TrainingChange,
    TrainingCopy,
    TrainingCreate,
    TrainingDeletion,
    TrainingList,
    TrainingOne,
)
from modelyard.resources.trainings.service import Trainings
from modelyard.resources.trainings.terms import words
from modelyard.web import (
    QueryMoment,
    WireRoute,
    deletions_out,
    form_faults,
    listed,
    paging_of,
    sorted_page_request,
    streamed,
)
from modelyard.wire import DeletionList, Empty, Id, Line

_page_request = sorted_page_request(*TRAINING_SORTS)


def create_router(trainings: Trainings, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = project_router(access, "trainings")

    class CreateRoute(WireRoute):
        """Tells with what is wrong with a request's form what else is wrong with it."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def _answer(request: Request) -> Response:
                try:
                    return await answer(request)
                except RequestValidationError as error:
                    caller = await access(request, request.path_params["appkey"])
                    known = form_faults(error.errors())
                    raise Invalid(await trainings.faults_of(caller, error.body, known)) from None

            return _answer

    @router.get("/trainings", response_model=TrainingList)
    async def list_trainings(
        wanted: TrainingFilter = Depends(training_filter),
        caller: Caller = Depends(access),
        page: PageRequest = Depends(_page_request),
    ) -> TrainingList | Response:
        """Trainings, newest first. Filters that are given all apply; of several values of one, any will do (of tags, all).

        Without `limit` and `cursor` the whole list, however long, as it is read.
        """
        if page.limit is None:
            ids = await trainings.ids(caller, wanted, page)
            return streamed("trainingList", ids, lambda part: trainings.some(caller, part))
        found = await trainings.list(caller, wanted, page)
        return TrainingList(training_list=list(found.items), paging=paging_of(found))

    async def create_training(body: TrainingCreate, caller: Caller = Depends(access)) -> TrainingOne:
        """A new training. Paths, permissions, image, instance type and limits are checked before anything is stored."""
        return TrainingOne(training=await trainings.create(caller, body))

    router.add_api_route("/trainings", create_training, methods=["POST"], route_class_override=CreateRoute)

    @router.get("/trainings/{training_id}")
    async def get_training(training_id: str, caller: Caller = Depends(access)) -> TrainingOne:
        """One training."""
        return TrainingOne(training=await trainings.get(caller, training_id))

    @router.post("/trainings/bulk-delete")
    async def delete_trainings(body: TrainingDeletion, caller: Caller = Depends(access)) -> DeletionList:
        """Delete those of several that can be deleted, and say of each what became of it."""
        return deletions_out(await trainings.delete_many(caller, body.training_id_list))

    @router.get("/trainings/{training_id}/copy")
    async def copy_training(
        training_id: str,
        same_source: bool = Query(
            default=False, alias="sameSource", description="The source that it ran with, also if its path has changed."
        ),
        caller: Caller = Depends(access),
    ) -> TrainingCopy:
        """The settings of a training as a request that creates it again."""
        request = await trainings.copy(caller, training_id, has_same_source=same_source)
        return TrainingCopy(training_request=request)

    @router.put("/trainings/{training_id}")
    async def change_training(training_id: str, body: TrainingChange, caller: Caller = Depends(access)) -> TrainingOne:
        """Change name, description or tags."""
        return TrainingOne(training=await trainings.change(caller, training_id, body))

    @router.put("/trainings/{training_id}/stop")
    async def stop_training(training_id: str, caller: Caller = Depends(access)) -> TrainingOne:
        """Ask for a stop: the script gets SIGTERM and a grace period, checkpoints are saved."""
        return TrainingOne(training=await trainings.stop(caller, training_id))

    @router.delete("/trainings/{training_id}")
    async def delete_training(training_id: str, caller: Caller = Depends(access)) -> Empty:
        """Delete a training that has ended. What it has uploaded stays."""
        await trainings.delete(caller, training_id)
        return Empty()

    @router.get("/trainings/{training_id}/logs")
    async def read_training_logs(
        training_id: str,
        instance: int = Query(default=0, ge=0, le=99),
        attempt: int | None = Query(default=None, ge=0, le=99, description="From 0; the newest one if not given."),
        offset: int = Query(default=0, ge=0),
        limit_bytes: int = Query(default=65536, ge=1, le=1048576, alias="limitBytes"),
        wait_seconds: float = Query(default=0.0, ge=0.0, le=20.0, alias="waitSeconds"),
        caller: Caller = Depends(access),
    ) -> OutputOne:
        """What an instance has printed, from `offset` on. With `waitSeconds` the answer waits for something new."""
        chunk = await follow(
            lambda: trainings.read_output(caller, training_id, instance, attempt, offset, limit_bytes), wait_seconds
        )
        return OutputOne(output=output_out(chunk))

    @router.get("/trainings/{training_id}/events")
    async def list_training_events(training_id: str, caller: Caller = Depends(access)) -> EventList:
        """What has happened to a training, oldest first."""
        return EventList(event_list=events_out(await trainings.events(caller, training_id)))

    return router


def training_filter(
    request: Request,
    experiment_id: Id | None = Query(default=None, alias="experimentId"),
    training_id_list: list[str] | None = Query(default=None, alias="trainingIdList"),
    training_name_list: list[str] | None = Query(default=None, alias="trainingNameList", description="Exact names."),
    training_status_code_list: list[str] | None = Query(default=None, alias="trainingStatusCodeList"),
    experiment_id_list: list[str] | None = Query(default=None, alias="experimentIdList"),
    image_id_list: list[str] | None = Query(default=None, alias="imageIdList"),
    flavor_id_list: list[str] | None = Query(default=None, alias="flavorIdList"),
    tag: list[Line] | None = Query(default=None, description="`key` or `key=value`; may be repeated."),
    name_contains: Line | None = Query(default=None, alias="nameContains", max_length=50),
    search: Line | None = Query(
        default=None, max_length=200, description="Beginnings of words of name, description and tags; or an id."
    ),
    created_from: QueryMoment | None = Query(default=None, alias="createdFrom"),
    created_to: QueryMoment | None = Query(default=None, alias="createdTo", description="Not itself in."),
) -> TrainingFilter:
    """Which trainings are wanted. Raises `Invalid` with all that is wrong."""
    states = listed(request, "trainingStatusCodeList")
    found_words = () if search is None or is_id(search) else words(search)
    faults: list[Fault] = []
    if unknown := [state for state in states if state not in set(TrainingState)]:
        known = ", ".join(TrainingState)
        faults.append(Fault("trainingStatusCodeList", f"'{unknown[0]}' is no state of a training; they are {known}"))
    if search is not None and not is_id(search) and not found_words:
        faults.append(Fault("search", "must have a letter or a digit"))
    if faults:
        raise Invalid(faults)
    return TrainingFilter(
        ids=[*listed(request, "trainingIdList"), *([search] if search is not None and is_id(search) else ())],
        names=listed(request, "trainingNameList"),
        states=states,
        experiment_ids=[*([experiment_id] if experiment_id is not None else ()), *listed(request, "experimentIdList")],
        image_ids=listed(request, "imageIdList"),
        flavor_ids=listed(request, "flavorIdList"),
        tags=[(key, value if sign else None) for key, sign, value in (item.partition("=") for item in tag or ())],
        words=found_words,
        name_part=name_contains,
        created_from=created_from,
        created_to=created_to,
    )
