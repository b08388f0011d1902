"""Trainings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from modelyard.resources.trainings.schemas import (
    TrainingChange,
    TrainingCreate,
    TrainingList,
    TrainingOne,
    TrainingOut,
)
from modelyard.sdk.api import Api
from modelyard.sdk.groups.catalogue import AsyncFlavors, AsyncImages
from modelyard.sdk.groups.experiments import AsyncExperiments
from modelyard.sdk.groups.resource import Kind, LongLived, one_or_many, tag_list
from modelyard.sdk.places import Places
from modelyard.wire import Empty

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
        return await self._create(TrainingCreate, fields)

    async def list(
        self,
        *,
        experiment: str | None = None,
        name: str | Sequence[str] | None = None,
        state: str | Sequence[str] | None = None,
        page: int = 1,
        limit: int | None = None,
    ) -> Sequence[TrainingOut]:
        """Trainings, newest first; all of them, or `limit` of them a page."""
        items, _ = await self._page(await self._filters(experiment, name, state), page, limit)
        return items

    async def iterate(
        self,
        *,
        experiment: str | None = None,
        name: str | Sequence[str] | None = None,
        state: str | Sequence[str] | None = None,
    ) -> AsyncIterator[TrainingOut]:
        """All trainings, fetched page by page."""
        async for training in self._each(await self._filters(experiment, name, state)):
            yield training

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

    def logs(self, key: str, *, instance: int = 0, offset: int = 0, follow: bool = False) -> AsyncIterator[str]:
        """The output of an instance from byte `offset` on, in pieces of text; with `follow`, until the training has ended."""
        return self._output(key, instance, offset, follow)

    async def _filters(
        self, experiment: str | None, name: str | Sequence[str] | None, state: str | Sequence[str] | None
    ) -> dict[str, str | Sequence[str] | None]:
        return {
            "experimentId": None if experiment is None else await self._experiments.id_of(experiment),
            "trainingNameList": one_or_many(name),
            "trainingStatusCodeList": one_or_many(state),
        }
