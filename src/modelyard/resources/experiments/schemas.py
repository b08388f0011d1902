"""Wire shapes of experiments."""

from __future__ import annotations

from pydantic import Field

from modelyard.wire import MAX_DELETIONS, Change, Description, Header, Id, Name, Paging, ResourceOut, Tags, Wire

EXPERIMENT_SORTS = ("createdDatetime", "updatedDatetime", "experimentName", "experimentStatusCode")


class ExperimentDeletion(Wire):
    """`POST /experiments/bulk-delete`."""

    experiment_id_list: list[Id] = Field(min_length=1, max_length=MAX_DELETIONS)


class ExperimentCreate(Wire):
    """`POST /experiments`."""

    experiment_name: Name
    description: Description = None
    tag_list: Tags = []


class ExperimentOut(ResourceOut):
    """An experiment."""

    experiment_id: str
    experiment_name: str
    experiment_status_code: str
    tensorboard_access_uri: str | None = None


class ExperimentList(Wire):
    """`GET /experiments`."""

    header: Header = Header()
    experiment_list: list[ExperimentOut]
    paging: Paging


class ExperimentOne(Wire):
    """One experiment."""

    header: Header = Header()
    experiment: ExperimentOut


class ExperimentChange(Change):
    """`PUT /experiments/{id}`: fields that are absent stay as they are."""

    name: Name | None = Field(default=None, alias="experimentName")
