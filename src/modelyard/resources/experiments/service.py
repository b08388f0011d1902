"""Use cases of experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.deletions import Deleted, delete_each
from modelyard.control.guards import DeletionGuard
from modelyard.control.idempotency import claim, remember
from modelyard.control.transitions import born, move
from modelyard.control.turns import take_turn
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import NotFound
from modelyard.kit.ids import new_id
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.experiments import repository
from modelyard.resources.experiments.errors import (
    ExperimentBusy,
    ExperimentNameTaken,
    ExperimentNotFailed,
    ExperimentNotUsable,
    ExperimentQuotaExceeded,
)
from modelyard.resources.experiments.lifecycle import FAILED, LIFECYCLE, ExperimentState
from modelyard.resources.experiments.repository import ExperimentFilter
from modelyard.resources.experiments.schemas import ExperimentCreate, ExperimentOut
from modelyard.resources.experiments.table import ExperimentRow
from modelyard.resources.projects.model import Caller
from modelyard.wire import Change

KIND = "experiment"


class Experiments:
    """Creates, finds, changes and deletes experiments."""

    def __init__(self, database: Database, *, limit: int | None = None) -> None:
        self._database = database
        self._limit = limit
        self.deletion_guards: list[DeletionGuard] = []
        self.tensorboard_address: Callable[[str], str] | None = None

    async def create(self, caller: Caller, request: ExperimentCreate) -> ExperimentOut:
        """A new experiment. Raises `ExperimentNameTaken`."""
        project_id, key = caller.project.id, caller.idempotency_key
        async with self._database.write() as session:
            known_id = await claim(session, project_id, KIND, key)
            if known_id is not None:
                return self._out(await _found(session, caller, known_id), caller.project.app_key)
            await take_turn(session, KIND, project_id)
            if await repository.by_name(session, project_id, request.experiment_name) is not None:
                raise ExperimentNameTaken(request.experiment_name)
            row = await self._add(session, caller, request)
            remember(session, project_id, KIND, key, row.id)
        return self._out(row, caller.project.app_key)

    async def find_or_create(
        self, session: AsyncSession, caller: Caller, name: str, description: str | None
    ) -> ExperimentOut:
        """The experiment of this name, created if there is none, as part of the caller's transaction, until whose end it stays."""
        row = await repository.by_name(session, caller.project.id, name)
        if row is None:
            await take_turn(session, KIND, caller.project.id)
            row = await repository.by_name(session, caller.project.id, name)
        if row is None or await repository.held(session, caller.project.id, row.id) is None:
            row = await self._add(session, caller, ExperimentCreate(experiment_name=name, description=description))
        return self._out(row, caller.project.app_key)

    async def check_usable(self, caller: Caller, experiment_id: str) -> None:
        """Raise `NotFound` or `ExperimentNotUsable` unless trainings can be put into the experiment."""
        async with self._database.read() as session:
            _check_usable(await _found(session, caller, experiment_id))

    async def check_name_usable(self, caller: Caller, name: str) -> None:
        """Raise `ExperimentNotUsable` or `ExperimentQuotaExceeded` unless there is a usable experiment of this name or one can be added."""
        async with self._database.read() as session:
            row = await repository.by_name(session, caller.project.id, name)
            if row is None:
                await self._check_quota(session, caller)
            else:
                _check_usable(row)

    async def hold(self, session: AsyncSession, caller: Caller, experiment_id: str) -> None:
        """Keep an experiment from being deleted until the caller's transaction ends. Raises `NotFound` or `ExperimentNotUsable`."""
        row = await repository.held(session, caller.project.id, experiment_id)
        if row is None:
            raise NotFound("experiment", experiment_id)
        _check_usable(row)

    async def list(self, caller: Caller, wanted: ExperimentFilter, request: PageRequest) -> Page[ExperimentOut]:
        """Experiments of the project, newest first."""
        async with self._database.read() as session:
            page = await repository.page(session, caller.project.id, wanted, request)
        return page.showing([self._out(row, caller.project.app_key) for row in page.items])

    async def get(self, caller: Caller, experiment_id: str) -> ExperimentOut:
        """One experiment."""
        async with self._database.read() as session:
            row = await _found(session, caller, experiment_id)
        return self._out(row, caller.project.app_key)

    async def get_many(self, session: AsyncSession, app_key: str, ids: Sequence[str]) -> Mapping[str, ExperimentOut]:
        """Several experiments by id."""
        return {row.id: self._out(row, app_key) for row in await repository.by_ids(session, ids)}

    async def change(self, caller: Caller, experiment_id: str, change: Change) -> ExperimentOut:
        """Change name, description or tags."""
        async with self._database.write() as session:
            row = await _found(session, caller, experiment_id)
            if change.name is not None and change.name != row.name:
                await take_turn(session, KIND, caller.project.id)
                if await repository.by_name(session, caller.project.id, change.name) is not None:
                    raise ExperimentNameTaken(change.name)
                row.name = change.name
            if "description" in change.model_fields_set:
                row.description = change.description
            if change.tag_list is not None:
                row.tags = [tag.model_dump(by_alias=True) for tag in change.tag_list]
            row.updated_at = utc_now()
        return self._out(row, caller.project.app_key)

    async def retry(self, caller: Caller, experiment_id: str) -> ExperimentOut:
        """Try a failed creation again."""
        async with self._database.write() as session:
            row = await _found(session, caller, experiment_id)
            if ExperimentState(row.state) not in FAILED:
                raise ExperimentNotFailed(row.name, row.state)
            move(session, LIFECYCLE, row, ExperimentState.CREATE_IN_PROGRESS, actor=caller.actor)
            await enqueue(session, KIND, row.id)
        return self._out(row, caller.project.app_key)

    async def delete(self, caller: Caller, experiment_id: str) -> None:
        """Delete it, and its TensorBoard logs. Raises `ExperimentBusy` while it is being created, `Blocked` while trainings belong to it."""
        async with self._database.write() as session:
            await self._delete(session, caller, experiment_id)

    async def delete_many(self, caller: Caller, experiment_ids: Sequence[str]) -> Sequence[Deleted]:
        """Delete those that can be deleted; what became of each, in the order of the request."""

        async def _one(session: AsyncSession, experiment_id: str) -> None:
            await self._delete(session, caller, experiment_id)

        async with self._database.write() as session:
            return await delete_each(session, caller.project.id, KIND, caller.idempotency_key, experiment_ids, _one)

    async def _delete(self, session: AsyncSession, caller: Caller, experiment_id: str) -> None:
        row = await repository.held(session, caller.project.id, experiment_id)
        if row is None:
            raise NotFound("experiment", experiment_id)
        if ExperimentState(row.state) is not ExperimentState.ACTIVE and ExperimentState(row.state) not in FAILED:
            raise ExperimentBusy(row.name)
        for guard in self.deletion_guards:
            await guard(session, row.id)
        row.desired = "delete"
        row.generation += 1
        await enqueue(session, KIND, row.id)

    async def whereabouts(self, experiment_id: str) -> tuple[str, str] | None:
        """Project and name of an experiment, whatever its project."""
        async with self._database.read() as session:
            row = await repository.by_key(session, experiment_id)
        return None if row is None or row.desired == "delete" else (row.project_id, row.name)

    def _out(self, row: ExperimentRow, app_key: str) -> ExperimentOut:
        address = self.tensorboard_address
        return experiment_out(row, app_key, address and address(row.id))

    async def _check_quota(self, session: AsyncSession, caller: Caller) -> None:
        limit = self._limit
        if limit is not None and await repository.count(session, caller.project.id, limit) >= limit:
            raise ExperimentQuotaExceeded(limit)

    async def _add(self, session: AsyncSession, caller: Caller, request: ExperimentCreate) -> ExperimentRow:
        await self._check_quota(session, caller)
        now = utc_now()
        row = ExperimentRow(
            id=new_id(now),
            project_id=caller.project.id,
            name=request.experiment_name,
            description=request.description,
            tags=[tag.model_dump(by_alias=True) for tag in request.tag_list],
            spec={},
            status={},
            desired="run",
            state=LIFECYCLE.initial.value,
            created_by=caller.actor,
            created_at=now,
            updated_at=now,
        )
        born(session, LIFECYCLE, row, actor=caller.actor)
        session.add(row)
        await enqueue(session, KIND, row.id)
        return row


def experiment_out(row: ExperimentRow, app_key: str, tensorboard_address: str | None = None) -> ExperimentOut:
    """The wire form."""
    return ExperimentOut.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "experiment_id": row.id,
            "experiment_name": row.name,
            "experiment_status_code": row.state,
            "description": row.description,
            "app_key": app_key,
            "tag_list": row.tags,
            "status_reason": row.reason,
            "status_message": row.message,
            "created_datetime": row.created_at,
            "updated_datetime": row.updated_at,
            "tensorboard_access_uri": tensorboard_address,
        }
    )


def _check_usable(row: ExperimentRow) -> None:
    if ExperimentState(row.state) in FAILED:
        raise ExperimentNotUsable(row.name, row.state)


async def _found(session: AsyncSession, caller: Caller, experiment_id: str) -> ExperimentRow:
    row = await repository.by_id(session, caller.project.id, experiment_id)
    if row is None:
        raise NotFound("experiment", experiment_id)
    return row
