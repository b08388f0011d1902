"""Trainings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypedDict, Unpack

from modelyard.resources.metrics.schemas import MetricList, MetricOut, MetricPoint, MetricWrite, MetricWritten
from modelyard.resources.trainings.schemas import (
    TrainingChange,
    TrainingCopy,
    TrainingCreate,
    TrainingDeletion,
    TrainingList,
    TrainingOne,
    TrainingOut,
)
from modelyard.resources.usage.schemas import UsageList
from modelyard.sdk.api import Api, Params
from modelyard.sdk.groups.catalogue import AsyncFlavors, AsyncImages
from modelyard.sdk.groups.experiments import AsyncExperiments
from modelyard.sdk.groups.resource import Kind, LongLived, one_or_many, tag_list
from modelyard.sdk.places import Places
from modelyard.wire import DeletionOut, Empty

TRAININGS = Kind(
    word="training",
    path="/trainings",
    one=TrainingOne,
    many=TrainingList,
    item=lambda answer: answer.training,
    items=lambda answer: (answer.training_list, answer.paging.total_count),
    state=lambda training: training.training_status_code,
    name_filter="trainingNameList",
    wanted="COMPLETE",
)


class TrainingFilters(TypedDict, total=False):
    """Which trainings, and in which order. All that is given must hold; of several names or states any will do.

    Attributes:
        experiment, image, flavor: names or ids.
        name: exact names.
        tags: keys with values; None for any value.
        name_contains: a part of the name.
        search: beginnings of words of name, description and tags; or an id.
        created_from, created_to: moments with their offset; the second is not itself in.
        sort: `createdDatetime`, `updatedDatetime`, `trainingName` or `trainingStatusCode`; with a `-` before it descending.
    """

    experiment: str | None
    image: str | None
    flavor: str | None
    name: str | Sequence[str] | None
    state: str | Sequence[str] | None
    tags: Mapping[str, str | None] | None
    name_contains: str | None
    search: str | None
    created_from: datetime | None
    created_to: datetime | None
    sort: str | None


class AsyncTrainings(LongLived[TrainingOne, TrainingList, TrainingOut]):
    """`client.trainings`."""

    def __init__(
        self, api: Api, experiments: AsyncExperiments, images: AsyncImages, flavors: AsyncFlavors, places: Places
    ) -> None:
        super().__init__(api, TRAININGS)
        self._experiments = experiments
        self._images = images
        self._flavors = flavors
        self._places = places

    async def create(
        self,
        name: str,
        *,
        image: str,
        flavor: str,
        entry_point: str,
        model_upload: str,
        source: str | None = None,
        source_snapshot: str | None = None,
        experiment: str | None = None,
        new_experiment: str | None = None,
        hyperparameters: Mapping[str, str | int | float | bool] | None = None,
        datasets: Mapping[str, str] | None = None,
        checkpoint_upload: str | None = None,
        checkpoint_input: str | None = None,
        instance_count: int = 1,
        data_storage_size: int | None = None,
        timeout_minutes: int | None = None,
        use_log: bool = False,
        use_torchrun: bool = False,
        nproc_per_node: int | None = None,
        max_restart_count: int = 0,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> TrainingOut:
        """Create a training; it starts by itself.

        `image`, `flavor` and `experiment` are names or ids; `new_experiment` creates one in place. Paths are `obs://…`, `nas://…` or, for the
        platform's own store, `container/path`: `source` is the directory with the `entry_point` (and a requirements.txt, which is installed
        first); `source_snapshot`, the id of a source that another training ran with (its `provenance.source_snapshot_id`), stands instead of
        it. `datasets` maps names to inputs (`EM_DATASET_{NAME}`), `model_upload` is where the output goes, `checkpoint_upload` what
        `EM_CHECKPOINT_DIR` is kept in step with, `checkpoint_input` what a run resumes from. `data_storage_size` is in GB.
        `max_restart_count` starts a run that has failed again so often, from what is in `checkpoint_upload`.
        Raises `BadRequest` with a fault for each wrong field.
        """
        uri = self._places.uri
        fields = {
            "trainingName": name,
            "description": description,
            "tagList": tag_list(tags),
            "experimentId": None if experiment is None else await self._experiments.id_of(experiment),
            "experimentName": new_experiment,
            "imageId": await self._images.id_of(image),
            "flavorId": await self._flavors.id_of(flavor),
            "instanceCount": instance_count,
            "dataStorageSize": data_storage_size,
            "sourceDirUri": None if source is None else await uri(source),
            "sourceSnapshotId": source_snapshot,
            "entryPoint": entry_point,
            "hyperparameterList": [
                {"parameterName": key, "parameterValue": value} for key, value in (hyperparameters or {}).items()
            ],
            "datasetList": [
                {"datasetName": key, "dataUri": await uri(value)} for key, value in (datasets or {}).items()
            ],
            "checkPointInputUri": None if checkpoint_input is None else await uri(checkpoint_input),
            "checkPointUploadUri": None if checkpoint_upload is None else await uri(checkpoint_upload),
            "modelUploadUri": await uri(model_upload),
            "timeoutMinutes": timeout_minutes,
            "useLog": use_log,
            "useTorchrun": use_torchrun,
            "nprocPerNode": nproc_per_node,
            "maxRestartCount": max_restart_count,
        }
        return await self._create(TrainingCreate, fields, idempotency_key)

    async def list(
        self, *, page: int = 1, limit: int | None = None, **wanted: Unpack[TrainingFilters]
    ) -> Sequence[TrainingOut]:
        """Trainings, newest first or as `sort` says; all of them, or `limit` of them a page."""
        items, _ = await self._page(await self._filters(wanted), page, limit)
        return items

    async def iterate(self, **wanted: Unpack[TrainingFilters]) -> AsyncIterator[TrainingOut]:
        """All trainings, fetched page by page; what comes and goes meanwhile makes none appear twice."""
        async for training in self._each(await self._filters(wanted)):
            yield training

    async def request_of(self, key: str, *, same_source: bool = False) -> TrainingCreate:
        """The request that would create the training again; with `same_source` from the source that it ran with.

        Raises `Conflict` where that source was not kept.
        """
        params: Params = {"sameSource": "true"} if same_source else {}
        answer = await self._api.ask(TrainingCopy, "GET", self._at(await self.id_of(key), "/copy"), params=params)
        return answer.training_request

    async def copy(
        self,
        key: str,
        *,
        name: str | None = None,
        description: str | None = None,
        experiment: str | None = None,
        image: str | None = None,
        flavor: str | None = None,
        hyperparameters: Mapping[str, str | int | float | bool] | None = None,
        model_upload: str | None = None,
        timeout_minutes: int | None = None,
        tags: Mapping[str, str] | None = None,
        same_source: bool = False,
        idempotency_key: str | None = None,
    ) -> TrainingOut:
        """Create a training with the settings of another one, but for what is given. `hyperparameters` are added to its own or replace them.

        Whatever else is to differ: change what `request_of` gives, and `submit` it.
        """
        request = await self.request_of(key, same_source=same_source)
        known = {item.parameter_name: item.parameter_value for item in request.hyperparameter_list}
        changes = {
            "trainingName": name,
            "description": description,
            "experimentId": None if experiment is None else await self._experiments.id_of(experiment),
            "imageId": None if image is None else await self._images.id_of(image),
            "flavorId": None if flavor is None else await self._flavors.id_of(flavor),
            "hyperparameterList": None
            if hyperparameters is None
            else [
                {"parameterName": key, "parameterValue": value} for key, value in (known | {**hyperparameters}).items()
            ],
            "modelUploadUri": None if model_upload is None else await self._places.uri(model_upload),
            "timeoutMinutes": timeout_minutes,
            "tagList": tag_list(tags),
        }
        fields = request.model_dump(by_alias=True, exclude_none=True)
        return await self._create(
            TrainingCreate, fields | {k: v for k, v in changes.items() if v is not None}, idempotency_key
        )

    async def submit(self, request: TrainingCreate, *, idempotency_key: str | None = None) -> TrainingOut:
        """Create a training from a whole request."""
        return await self._create(TrainingCreate, request.model_dump(by_alias=True, exclude_none=True), idempotency_key)

    async def delete_many(self, keys: Sequence[str]) -> Sequence[DeletionOut]:
        """Delete several (100 at most) that have ended, and say of each what became of it: a refused one refuses no other."""
        return await self._delete_many(keys, lambda ids: TrainingDeletion(training_id_list=list(ids)))

    async def update(
        self,
        key: str,
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> TrainingOut:
        """Change what is given; the rest stays."""
        fields = {"trainingName": name, "description": description, "tagList": tag_list(tags)}
        return await self._change(key, TrainingChange, fields)

    async def stop(self, key: str) -> None:
        """Stop a training. It ends as STOPPED a little later."""
        await self._api.ask(Empty, "PUT", self._at(await self.id_of(key), "/stop"))

    def logs(
        self, key: str, *, instance: int = 0, attempt: int | None = None, offset: int = 0, follow: bool = False
    ) -> AsyncIterator[str]:
        """The output of an instance from byte `offset` on, in pieces of text; with `follow`, until the training has ended.

        `attempt` counts from 0; without it the newest is read, and with `follow` those that come after it too.
        """
        return self._output(key, instance, offset, follow, attempt)

    async def metrics(
        self,
        key: str,
        *names: str,
        instance: int | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
        max_points: int = 1000,
    ) -> Sequence[MetricOut]:
        """What the metrics of a training come to; of those that are named, with their history of at most `max_points` points each.

        A longer history is sampled by the platform so that no peak is lost. Steps are inclusive.
        """
        params: Params = {
            "name": list(names),
            "instance": instance,
            "fromStep": from_step,
            "toStep": to_step,
            "maxPoints": max_points,
        }
        answer = await self._api.ask(MetricList, "GET", self._at(await self.id_of(key), "/metrics"), params=params)
        return answer.metric_list

    async def log_metrics(
        self,
        key: str,
        values: Mapping[str, float],
        *,
        step: int = 0,
        time: datetime | None = None,
        instance: int = 0,
    ) -> None:
        """Write a value of each metric at a step. In a script, the training is `os.environ["EM_TRAINING_ID"]`.

        `time` is now when absent. A point is known by its metric, step and time: sent again it changes nothing.
        """
        moment = time or datetime.now(UTC)
        points = [MetricPoint(name=name, value=value, step=step, time=moment) for name, value in values.items()]
        body = MetricWrite(metric_list=points, instance=instance)
        await self._api.ask(MetricWritten, "POST", self._at(await self.id_of(key), "/metrics"), body=body)

    async def usage(
        self,
        key: str,
        *,
        instance: int | None = None,
        begin_at: datetime | None = None,
        end_at: datetime | None = None,
        resolution_seconds: int | None = None,
        max_points: int = 1000,
    ) -> UsageList:
        """What the instances of a training use: cores, memory, disk and GPUs over time. `resolution_seconds` is 10, 60 or 3600."""
        params: Params = {
            "instance": instance,
            "from": None if begin_at is None else begin_at.isoformat(),
            "to": None if end_at is None else end_at.isoformat(),
            "resolutionSeconds": resolution_seconds,
            "maxPoints": max_points,
        }
        return await self._api.ask(UsageList, "GET", self._at(await self.id_of(key), "/usage"), params=params)

    async def _filters(self, wanted: TrainingFilters) -> dict[str, str | Sequence[str] | None]:
        experiment, image, flavor = wanted.get("experiment"), wanted.get("image"), wanted.get("flavor")
        created_from, created_to = wanted.get("created_from"), wanted.get("created_to")
        tags = wanted.get("tags") or {}
        return {
            "experimentId": None if experiment is None else await self._experiments.id_of(experiment),
            "imageIdList": None if image is None else await self._images.id_of(image),
            "flavorIdList": None if flavor is None else await self._flavors.id_of(flavor),
            "trainingNameList": one_or_many(wanted.get("name")),
            "trainingStatusCodeList": one_or_many(wanted.get("state")),
            "tag": [key if value is None else f"{key}={value}" for key, value in tags.items()],
            "nameContains": wanted.get("name_contains"),
            "search": wanted.get("search"),
            "createdFrom": None if created_from is None else created_from.isoformat(),
            "createdTo": None if created_to is None else created_to.isoformat(),
            "sort": wanted.get("sort"),
        }
