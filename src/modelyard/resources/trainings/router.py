"""HTTP door of trainings."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from modelyard.kit.errors import Invalid
from modelyard.kit.paging import PageRequest
from modelyard.resources.logs.output import events_out, follow, output_out
from modelyard.resources.logs.schemas import EventList, OutputOne
from modelyard.resources.projects.access import Access
from modelyard.resources.projects.model import Caller
from modelyard.resources.trainings.repository import TrainingFilter
from modelyard.resources.trainings.schemas import TrainingChange, TrainingCreate, TrainingList, TrainingOne
from modelyard.resources.trainings.service import Trainings
from modelyard.web import WireRoute, form_faults, listed, page_request, paging_of
from modelyard.wire import Empty


def create_router(trainings: Trainings, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = APIRouter(route_class=WireRoute, tags=["trainings"], dependencies=[Depends(access)])

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

    @router.get("/trainings")
    async def list_trainings(
        request: Request,
        experiment_id: str | None = Query(default=None, alias="experimentId"),
        caller: Caller = Depends(access),
        page: PageRequest = Depends(page_request),
    ) -> TrainingList:
        """Trainings, newest first; ids, names, states (`…List`) and `experimentId` choose."""
        wanted = TrainingFilter(
            ids=listed(request, "trainingIdList"),
            names=listed(request, "trainingNameList"),
            states=listed(request, "trainingStatusCodeList"),
            experiment_id=experiment_id,
        )
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
        offset: int = Query(default=0, ge=0),
        limit_bytes: int = Query(default=65536, ge=1, le=1048576, alias="limitBytes"),
        wait_seconds: float = Query(default=0.0, ge=0.0, le=20.0, alias="waitSeconds"),
        caller: Caller = Depends(access),
    ) -> OutputOne:
        """What an instance has printed, from `offset` on. With `waitSeconds` the answer waits for something new."""
        chunk = await follow(
            lambda: trainings.read_output(caller, training_id, instance, offset, limit_bytes), wait_seconds
        )
        return OutputOne(output=output_out(chunk))

    @router.get("/trainings/{training_id}/events")
    async def list_training_events(training_id: str, caller: Caller = Depends(access)) -> EventList:
        """What has happened to a training, oldest first."""
        return EventList(event_list=events_out(await trainings.events(caller, training_id)))

    return router
