"""Experiments: what groups trainings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from modelyard.resources.experiments.schemas import (
    ExperimentChange,
    ExperimentCreate,
    ExperimentDeletion,
    ExperimentList,
    ExperimentOne,
    ExperimentOut,
)
from modelyard.resources.metrics.schemas import ComparisonOut
from modelyard.sdk.api import Api, Params
from modelyard.sdk.groups.resource import Kind, Resources, one_or_many, tag_list
from modelyard.wire import DeletionOut

EXPERIMENTS = Kind(
    word="experiment",
    path="/experiments",
    one=ExperimentOne,
    many=ExperimentList,
    item=lambda answer: answer.experiment,
    items=lambda answer: (answer.experiment_list, answer.paging.total_count),
    state=lambda experiment: experiment.experiment_status_code,
    name_filter="experimentNameList",
)


class AsyncExperiments(Resources[ExperimentOne, ExperimentList, ExperimentOut]):
    """`client.experiments`."""

    def __init__(self, api: Api) -> None:
        super().__init__(api, EXPERIMENTS)

    async def create(
        self,
        name: str,
        *,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> ExperimentOut:
        """Create an experiment."""
        fields = {"experimentName": name, "description": description, "tagList": tag_list(tags)}
        return await self._create(ExperimentCreate, fields, idempotency_key)

    async def list(
        self,
        *,
        name: str | Sequence[str] | None = None,
        state: str | Sequence[str] | None = None,
        name_contains: str | None = None,
        sort: str | None = None,
        page: int = 1,
        limit: int | None = None,
    ) -> Sequence[ExperimentOut]:
        """Experiments, newest first or as `sort` says (`experimentName`, `-updatedDatetime` …); all of them, or `limit` of them a page."""
        filters = {
            "experimentNameList": one_or_many(name),
            "experimentStatusCodeList": one_or_many(state),
            "nameContains": name_contains,
            "sort": sort,
        }
        items, _ = await self._page(filters, page, limit)
        return items

    def iterate(self, *, name: str | Sequence[str] | None = None) -> AsyncIterator[ExperimentOut]:
        """All experiments, fetched page by page."""
        return self._each({"experimentNameList": one_or_many(name)})

    async def update(
        self,
        key: str,
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ExperimentOut:
        """Change what is given; the rest stays."""
        fields = {"experimentName": name, "description": description, "tagList": tag_list(tags)}
        return await self._change(key, ExperimentChange, fields)

    async def delete_many(self, keys: Sequence[str]) -> Sequence[DeletionOut]:
        """Delete several (100 at most) that have no trainings, and say of each what became of it: a refused one refuses no other."""
        return await self._delete_many(keys, lambda ids: ExperimentDeletion(experiment_id_list=list(ids)))

    async def retry(self, key: str) -> ExperimentOut:
        """Try again to create an experiment that has failed."""
        answer = await self._api.ask(ExperimentOne, "PUT", self._at(await self.id_of(key), "/retry"))
        return answer.experiment

    async def compare(
        self,
        key: str,
        *,
        metrics: str | Sequence[str] | None = None,
        filters: str | Sequence[str] | None = None,
        sort: str | Sequence[str] | None = None,
        page: int = 1,
        limit: int | None = None,
    ) -> ComparisonOut:
        """The trainings of an experiment side by side, with hyperparameters and metrics.

        `metrics` chooses columns. `filters` are e.g. `metrics.accuracy>0.9` or `parameters.lr=0.01`, all of which must hold; `sort` e.g.
        `-metrics.loss:min`, the first deciding. Raises `BadRequest` with what is wrong with them.
        """
        params: Params = {
            "name": _listed(metrics),
            "filter": _listed(filters),
            "sort": _listed(sort),
            "page": page,
            "limit": limit,
        }
        return await self._api.ask(ComparisonOut, "GET", self._at(await self.id_of(key), "/comparison"), params=params)


def _listed(value: str | Sequence[str] | None) -> Sequence[str] | None:
    return [value] if isinstance(value, str) else value
