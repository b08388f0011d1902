"""The clients: `Client` for ordinary programs, `AsyncClient` for asyncio. Both have the same groups with the same methods.

with Client.from_environment() as client:
    training = client.trainings.create("first", image="…", flavor="…", source="demo/iris", …)
    client.trainings.wait(training.id)
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import httpx

from modelyard.sdk.api import Api, Patience
from modelyard.sdk.asynchronous import AsyncDoor
from modelyard.sdk.blocking import BlockingDoor
from modelyard.sdk.connection import Connection
from modelyard.sdk.door import Door
from modelyard.sdk.facade import (
    Endpoints,
    Experiments,
    Flavors,
    Images,
    Logs,
    Members,
    Models,
    NasVolumes,
    Notebooks,
    Sessions,
    Stages,
    Storage,
    TensorBoards,
    Trainings,
)
from modelyard.sdk.groups.catalogue import AsyncFlavors, AsyncImages
from modelyard.sdk.groups.endpoints import AsyncEndpoints, AsyncStages
from modelyard.sdk.groups.experiments import AsyncExperiments
from modelyard.sdk.groups.logs import AsyncLogs
from modelyard.sdk.groups.models import AsyncModels
from modelyard.sdk.groups.nas_volumes import AsyncNasVolumes
from modelyard.sdk.groups.notebooks import AsyncNotebooks
from modelyard.sdk.groups.people import AsyncMembers, AsyncSessions
from modelyard.sdk.groups.storage import AsyncStorage
from modelyard.sdk.groups.tensorboards import AsyncTensorBoards
from modelyard.sdk.groups.trainings import AsyncTrainings
from modelyard.sdk.places import Places


class AsyncGroups:
    """All groups of coroutines over one door, whichever it is."""

    def __init__(self, connection: Connection, door: Door, patience: Patience | None) -> None:
        api = Api(connection, door, patience)
        places = Places(api)
        self.flavors = AsyncFlavors(api)
        self.images = AsyncImages(api)
        self.experiments = AsyncExperiments(api)
        self.trainings = AsyncTrainings(api, self.experiments, self.images, self.flavors, places)
        self.notebooks = AsyncNotebooks(api, self.images, self.flavors)
        self.tensorboards = AsyncTensorBoards(api, self.trainings, self.experiments)
        self.models = AsyncModels(api, self.trainings, places)
        self.endpoints = AsyncEndpoints(api, self.models, self.flavors)
        self.stages = AsyncStages(api, self.models, self.flavors)
        self.nas_volumes = AsyncNasVolumes(api)
        self.storage = AsyncStorage(api, places)
        self.logs = AsyncLogs(api)
        self.members = AsyncMembers(api)
        self.sessions = AsyncSessions(api)


class AsyncClient(AsyncGroups):
    """The platform's API for asyncio programs. Use it in `async with`, or call `close`."""

    def __init__(
        self,
        connection: Connection,
        *,
        patience: Patience | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.connection = connection
        self._door = AsyncDoor(connection.ca_file, transport)
        super().__init__(connection, self._door, patience)

    @classmethod
    def from_environment(cls, *, home: Path | str | None = None, patience: Patience | None = None) -> AsyncClient:
        """A client for the platform that the environment, or the home of a platform on this machine, names. Raises `NotConfigured`."""
        return cls(Connection.find(home=home), patience=patience)

    async def close(self) -> None:
        """Close all connections."""
        await self._door.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Client:
    """The platform's API for ordinary programs. Use it in `with`, or call `close`; threads may share it."""

    def __init__(
        self,
        connection: Connection,
        *,
        patience: Patience | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.connection = connection
        self._door = BlockingDoor(connection.ca_file, transport)
        self._groups = groups = AsyncGroups(connection, self._door, patience)
        self.flavors = Flavors(groups.flavors)
        self.images = Images(groups.images)
        self.experiments = Experiments(groups.experiments)
        self.trainings = Trainings(groups.trainings)
        self.notebooks = Notebooks(groups.notebooks)
        self.tensorboards = TensorBoards(groups.tensorboards)
        self.models = Models(groups.models)
        self.endpoints = Endpoints(groups.endpoints)
        self.stages = Stages(groups.stages)
        self.nas_volumes = NasVolumes(groups.nas_volumes)
        self.storage = Storage(groups.storage)
        self.logs = Logs(groups.logs)
        self.members = Members(groups.members)
        self.sessions = Sessions(groups.sessions)

    @classmethod
    def from_environment(cls, *, home: Path | str | None = None, patience: Patience | None = None) -> Client:
        """A client for the platform that the environment, or the home of a platform on this machine, names. Raises `NotConfigured`."""
        return cls(Connection.find(home=home), patience=patience)

    @staticmethod
    def groups_of(client: Client) -> AsyncGroups:
        """The coroutines behind a client's plain methods, for what is written once over both."""
        return client._groups

    def close(self) -> None:
        """Close all connections."""
        self._door.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
