"""TensorBoards of trainings and experiments."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from urllib.parse import quote

from modelyard.resources.sessions.schemas import AccessCodeCreate, AccessCodeOne
from modelyard.resources.tensorboards.schemas import TensorBoardOne, TensorBoardOut
from modelyard.sdk.api import Api
from modelyard.sdk.errors import WaitFailed, WaitTimedOut
from modelyard.sdk.groups.experiments import AsyncExperiments
from modelyard.sdk.groups.trainings import AsyncTrainings
from modelyard.wire import Empty

_POLL_SECONDS = 0.2
_KIND = "tensorboard"


class AsyncTensorBoards:
    """`client.tensorboards`. Each method takes either a training or an experiment, by its id or its name."""

    def __init__(self, api: Api, trainings: AsyncTrainings, experiments: AsyncExperiments) -> None:
        self._api = api
        self._trainings = trainings
        self._experiments = experiments

    async def start(self, *, training: str | None = None, experiment: str | None = None) -> TensorBoardOut:
        """Have it run; asking again tells how far it is. An experiment's shows all its trainings side by side."""
        return (await self._api.ask(TensorBoardOne, "POST", await self._path(training, experiment))).tensorboard

    async def get(self, *, training: str | None = None, experiment: str | None = None) -> TensorBoardOut:
        """How it is: STOPPED, STARTING, ACTIVE, FAILED or STOPPING."""
        return (await self._api.ask(TensorBoardOne, "GET", await self._path(training, experiment))).tensorboard

    async def stop(self, *, training: str | None = None, experiment: str | None = None) -> None:
        """End it; its address stays good."""
        await self._api.ask(Empty, "DELETE", await self._path(training, experiment))

    async def open(
        self,
        *,
        training: str | None = None,
        experiment: str | None = None,
        timeout_seconds: float = 600.0,
        progress: Callable[[TensorBoardOut], object] | None = None,
    ) -> str:
        """Start it, wait until it is ACTIVE, and answer an address that lets one browser in, once, within a minute.

        The first one on a platform installs TensorBoard, which takes its time. Raises `WaitFailed` and `WaitTimedOut`.
        """
        path = await self._path(training, experiment)
        started = monotonic()
        while True:
            seen = (await self._api.ask(TensorBoardOne, "POST", path)).tensorboard
            if progress is not None:
                progress(seen)
            if seen.tensorboard_status_code == "ACTIVE":
                break
            name = training or experiment or seen.owner_id
            if seen.tensorboard_status_code == "FAILED":
                raise WaitFailed(_KIND, seen.owner_id, name, "FAILED", message=seen.status_message)
            if monotonic() - started > timeout_seconds:
                raise WaitTimedOut(_KIND, seen.owner_id, name, seen.tensorboard_status_code, timeout_seconds)
            await self._api.door.sleep(_POLL_SECONDS)
        wanted = AccessCodeCreate(kind=_KIND, id=seen.owner_id)
        return (await self._api.ask(AccessCodeOne, "POST", "/access-codes", body=wanted)).access_code.url

    async def _path(self, training: str | None, experiment: str | None) -> str:
        if (training is None) == (experiment is None):
            raise ValueError("name either a training or an experiment")
        if training is not None:
            return f"/trainings/{quote(await self._trainings.id_of(training), safe='')}/tensorboard"
        return f"/experiments/{quote(await self._experiments.id_of(experiment or ''), safe='')}/tensorboard"
