"""Resources that the official client has and this version does not: lists are empty, and whoever wants one is told so.

A client that lists or looks something up goes on as with an empty project; one that creates gets a sentence instead of a missing page.
A resource that is built leaves the table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends

from modelyard.kit.errors import NotFound, Unavailable
from modelyard.resources.projects.access import PROJECT_PATH, Access
from modelyard.wire import Empty, Header, Paging


@dataclass(frozen=True, slots=True)
class Absent:
    """A kind of resource.

    Attributes:
        path: below the app key.
        list_key: what its list is called in an answer.
        word: for people.
        create_path: where it is created, if not at `path`; None where it can't be created at all.
        has_items: whether single ones are asked for by id.
        verbs: what is done to single ones with PUT.
    """

    path: str
    list_key: str
    word: str
    create_path: str | None = ""
    has_items: bool = True
    verbs: tuple[str, ...] = ("stop",)


ABSENT = (
    Absent("algorithms", "algorithmList", "algorithm", create_path=None, has_items=False, verbs=()),
    Absent("hyperparameter-tunings", "hyperparameterTuningList", "hyperparameter tuning"),
    Absent("trials", "trialList", "trial", create_path=None, verbs=()),
    Absent("batch-inferences", "batchInferenceList", "batch inference"),
    Absent("pipelines", "pipelineList", "pipeline", create_path="/upload", verbs=()),
    Absent("pipeline-runs", "pipelineRunList", "pipeline run"),
    Absent("pipeline-recurring-runs", "pipelineRecurringRunList", "recurring pipeline run", None, verbs=("stop", "start")),
    Absent("model-evaluations", "modelEvaluationList", "model evaluation"),
    Absent("fine-tunings", "fineTuningList", "fine-tuning"),
    Absent("model-presets", "modelPresetList", "model preset", create_path=None, has_items=False, verbs=()),
    Absent(
        "model-presets/parameter-specs", "modelParameterSpecList", "parameter", None, has_items=False, verbs=()
    ),
)  # fmt: skip


class NotInThisVersion(Unavailable):
    """The client knows something that this version can't do."""

    def __init__(self, word: str) -> None:
        super().__init__(f"{word} is not available in this version of Modelyard; trainings, models and endpoints are")


def create_router(access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`. They are not in the API's description: there is nothing to use yet."""
    router = APIRouter(prefix=PROJECT_PATH, dependencies=[Depends(access)], include_in_schema=False)
    for absent in ABSENT:
        router.add_api_route(f"/{absent.path}", _lists(absent), methods=["GET"])
        if absent.create_path is not None:
            router.add_api_route(f"/{absent.path}{absent.create_path}", _refuses(absent), methods=["POST"])
        if absent.has_items:
            one = f"/{absent.path}/{{resource_id}}"
            router.add_api_route(one, _misses(absent), methods=["GET", "DELETE"])
            for verb in absent.verbs:
                router.add_api_route(f"{one}/{verb}", _misses(absent), methods=["PUT"])
    return router


def _lists(absent: Absent) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def list_nothing() -> dict[str, Any]:
        header, paging = Header().model_dump(by_alias=True), Paging(total_count=0, page=1).model_dump(by_alias=True)
        return {"header": header, absent.list_key: [], "paging": paging}

    return list_nothing


def _refuses(absent: Absent) -> Callable[[], Awaitable[Empty]]:
    async def refuse() -> Empty:
        raise NotInThisVersion(absent.word)

    return refuse


def _misses(absent: Absent) -> Callable[[str], Awaitable[Empty]]:
    async def miss(resource_id: str) -> Empty:
        raise NotFound(absent.word, resource_id)

    return miss
