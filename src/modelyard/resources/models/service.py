"""Use cases of models."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.events import Event, events_of, forget_events
from modelyard.control.guards import DeletionGuard
from modelyard.control.idempotency import claim, recall, remember
from modelyard.control.transitions import born, move
from modelyard.control.work import enqueue, forget
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import MAX_BLOCKERS, Fault, Invalid, NotFound
from modelyard.kit.ids import new_id
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.models import repository
from modelyard.resources.models.errors import (
    ModelHasAliases,
    ModelNotUsable,
    NameOfArchive,
    NoSuchAlias,
    TrainingNotComplete,
)
from modelyard.resources.models.lifecycle import LIFECYCLE, ModelState
from modelyard.resources.models.model import Model, ModelSpec, ModelStatus, Parameter
from modelyard.resources.models.repository import ModelFilter
from modelyard.resources.models.schemas import FORMATS, ModelChange, ModelCreate, ModelOut, alias_fault
from modelyard.resources.models.table import ModelRow
from modelyard.resources.models.views import model_out
from modelyard.resources.projects.model import Caller, Project
from modelyard.resources.storages.errors import StoragePathFault
from modelyard.resources.storages.model import COPY_SCHEME
from modelyard.resources.storages.service import Storages
from modelyard.resources.trainings.errors import TrainingHasModels
from modelyard.resources.trainings.model import Finished
from modelyard.resources.trainings.service import Trainings

KIND = "model"

_LOOK_SECONDS = 0.03
_UNUSABLE = (ModelState.CREATE_FAILED.value, ModelState.DELETE_IN_PROGRESS.value)


class Models:
    """Creates, finds, changes and deletes models.

    Args:
        keeps_copies: whether the platform keeps a copy of an artifact where the request does not say.
        patience_seconds: how long a creation waits for what the inspection says, so that most answers have it.
    """

    def __init__(
        self,
        database: Database,
        trainings: Trainings,
        storages: Storages,
        *,
        keeps_copies: bool = False,
        patience_seconds: float = 0.0,
    ) -> None:
        self._database = database
        self._trainings = trainings
        self._storages = storages
        self._keeps_copies = keeps_copies
        self._patience_seconds = patience_seconds
        self.deletion_guards: list[DeletionGuard] = []

    async def create(self, caller: Caller, request: ModelCreate) -> ModelOut:
        """A new model. Its artifact must be there and readable now; what it is, is looked at by the reconciler."""
        project_id, key = caller.project.id, caller.idempotency_key
        async with self._database.read() as session:
            known_id = await recall(session, project_id, KIND, key)
        if known_id is not None:
            return await self.get(caller, known_id)
        training = await self._training(caller, request)
        spec = _spec(request, training, keeps_copies=self._keeps_copies)
        try:
            await self._storages.check_readable(caller.project, spec.artifact_uri)
        except StoragePathFault as fault:
            raise Invalid([Fault("modelUploadUri", fault.message)]) from None
        now = utc_now()
        row = ModelRow(
            id=new_id(),
            project_id=caller.project.id,
            name=request.model_name,
            description=request.description,
            tags=[tag.model_dump(by_alias=True) for tag in request.tag_list],
            spec=spec.model_dump(mode="json"),
            status=ModelStatus().model_dump(mode="json"),
            desired="run",
            state=LIFECYCLE.initial.value,
            created_by=caller.actor,
            created_at=now,
            updated_at=now,
            training_id=spec.training_id,
        )
        async with self._database.write() as session:
            known_id = await claim(session, project_id, KIND, key)
            if known_id is not None:
                return (await self._out(session, caller.project, [await _found(session, caller, known_id)]))[0]
            if spec.training_id is not None:
                await self._trainings.hold(session, caller, spec.training_id)
            row.version = await repository.next_version(session, project_id, row.name)
            born(session, LIFECYCLE, row, actor=caller.actor)
            session.add(row)
            remember(session, project_id, KIND, key, row.id)
            await enqueue(session, KIND, row.id)
            model_id = row.id
        return await self._once_looked_at(caller, model_id)

    async def list(self, caller: Caller, wanted: ModelFilter, request: PageRequest) -> Page[ModelOut]:
        """Models of the project, newest first."""
        async with self._database.read() as session:
            page = await repository.page(session, caller.project.id, wanted, request)
            return Page(await self._out(session, caller.project, page.items), page.total_count, request)

    async def get(self, caller: Caller, model_id: str) -> ModelOut:
        """One model."""
        async with self._database.read() as session:
            row = await _found(session, caller, model_id)
            return (await self._out(session, caller.project, [row]))[0]

    async def get_many(self, session: AsyncSession, project: Project, ids: Sequence[str]) -> Mapping[str, ModelOut]:
        """Several models by id, in wire form."""
        rows = await repository.by_ids(session, ids)
        return {model.model_id: model for model in await self._out(session, project, rows)}

    async def events(self, caller: Caller, model_id: str) -> Sequence[Event]:
        """What happened to the model."""
        async with self._database.read() as session:
            row = await _found(session, caller, model_id)
            return await events_of(session, KIND, row.id)

    async def find(self, session: AsyncSession, project_id: str, model_id: str) -> Model | None:
        """A model of the project, for endpoints."""
        row = await repository.by_id(session, project_id, model_id)
        if row is None:
            return None
        spec, status = ModelSpec.model_validate(row.spec), ModelStatus.model_validate(row.status)
        seen = None if status.artifact is None else status.artifact.framework_version
        return Model(
            id=row.id,
            project_id=row.project_id,
            name=row.name,
            state=row.state,
            message=row.message,
            spec=spec,
            source_uri=f"{COPY_SCHEME}{row.id}" if status.has_copy else spec.artifact_uri,
            framework_version=spec.framework_version or seen,
        )

    async def change(self, caller: Caller, model_id: str, change: ModelChange) -> ModelOut:
        """Change name, description or tags."""
        async with self._database.write() as session:
            row = await _held(session, caller, model_id)
            if change.model_name is not None and change.model_name != row.name:
                await self._rename(session, row, change.model_name, caller.actor)
            if "description" in change.model_fields_set:
                row.description = change.description
            if change.tag_list is not None:
                row.tags = [tag.model_dump(by_alias=True) for tag in change.tag_list]
            row.updated_at = utc_now()
            return (await self._out(session, caller.project, [row]))[0]

    async def set_alias(self, caller: Caller, model_id: str, alias: str) -> ModelOut:
        """Let an alias mean this model of its name; another model of the name that had it loses it."""
        fault = alias_fault(alias)
        if fault is not None:
            raise Invalid([Fault("alias", fault)])
        async with self._database.write() as session:
            row = await _held(session, caller, model_id)
            if row.state in _UNUSABLE:
                raise ModelNotUsable(row.name, row.state, row.message)
            await repository.set_alias(session, row, alias)
            return (await self._out(session, caller.project, [row]))[0]

    async def drop_alias(self, caller: Caller, model_id: str, alias: str) -> ModelOut:
        """Take an alias away. Raises `NoSuchAlias`."""
        async with self._database.write() as session:
            row = await _held(session, caller, model_id)
            if not await repository.drop_aliases(session, row.id, alias):
                raise NoSuchAlias(alias)
            return (await self._out(session, caller.project, [row]))[0]

    async def delete(self, caller: Caller, model_id: str) -> None:
        """Delete it; its artifact stays where it is. Raises `Conflict` while an endpoint uses it."""
        async with self._database.write() as session:
            row = await _held(session, caller, model_id)
            if row.desired == "delete":
                return
            for guard in self.deletion_guards:
                await guard(session, row.id)
            await repository.drop_aliases(session, row.id)
            if not ModelSpec.model_validate(row.spec).keeps_copy:
                await session.delete(row)
                await forget_events(session, KIND, row.id)
                await forget(session, KIND, row.id)
                return
            row.desired = "delete"
            row.generation += 1
            move(session, LIFECYCLE, row, ModelState.DELETE_IN_PROGRESS, actor=caller.actor)
            await enqueue(session, KIND, row.id)

    async def hold(self, session: AsyncSession, project_id: str, model_id: str) -> None:
        """Keep a model from being deleted until the caller's transaction ends. Raises `NotFound`, `ModelNotUsable`."""
        row = await repository.held(session, project_id, model_id)
        if row is None:
            raise NotFound("model", model_id)
        if row.state in _UNUSABLE:
            raise ModelNotUsable(row.name, row.state, row.message)

    async def guard_training(self, session: AsyncSession, training_id: str) -> None:
        """Raise `TrainingHasModels` while models stand that were made from the training."""
        models = await repository.of_training(session, training_id, MAX_BLOCKERS + 1)
        if models:
            raise TrainingHasModels(models)

    async def _once_looked_at(self, caller: Caller, model_id: str) -> ModelOut:
        """The model with what the inspection says, or as it is when patience ends."""
        deadline = monotonic() + self._patience_seconds
        while True:
            model = await self.get(caller, model_id)
            if model.model_status_code != ModelState.CREATE_IN_PROGRESS or monotonic() >= deadline:
                return model
            await asyncio.sleep(_LOOK_SECONDS)

    async def _rename(self, session: AsyncSession, row: ModelRow, name: str, actor: str) -> None:
        artifact = ModelStatus.model_validate(row.status).artifact
        if artifact is not None and artifact.kind == "TORCH_ARCHIVE" and row.state == ModelState.ACTIVE.value:
            raise NameOfArchive(row.name)
        aliases = (await repository.aliases_of(session, [row.id])).get(row.id)
        if aliases:
            raise ModelHasAliases(aliases)
        row.version = await repository.next_version(session, row.project_id, name)
        row.name = name
        if row.state == ModelState.CREATE_FAILED.value:
            move(session, LIFECYCLE, row, ModelState.CREATE_IN_PROGRESS, actor=actor)
        if row.state == ModelState.CREATE_IN_PROGRESS.value:  # what was found under the other name does not count
            await enqueue(session, KIND, row.id)

    async def _training(self, caller: Caller, request: ModelCreate) -> Finished | None:
        if request.training_id is None:
            return None
        async with self._database.read() as session:
            training = await self._trainings.finished(session, caller.project.id, request.training_id)
        if training is None:
            raise Invalid([Fault("trainingId", f"there is no training '{request.training_id}' in this project")])
        if training.state != "COMPLETE":
            raise TrainingNotComplete(training.name, training.state)
        return training

    async def _out(self, session: AsyncSession, project: Project, rows: Sequence[ModelRow]) -> list[ModelOut]:
        trainings: dict[str, Finished] = {}
        for training_id in {row.training_id for row in rows if row.training_id is not None}:
            training = await self._trainings.finished(session, project.id, training_id)
            if training is not None:
                trainings[training_id] = training
        aliases = await repository.aliases_of(session, [row.id for row in rows])
        return [
            model_out(row, project.app_key, trainings.get(row.training_id or ""), aliases.get(row.id, ()))
            for row in rows
        ]


def _spec(request: ModelCreate, training: Finished | None, *, keeps_copies: bool) -> ModelSpec:
    format_code = request.model_format_code
    artifact_uri = request.model_upload_uri
    version = request.framework_version
    if training is not None:
        artifact_uri = artifact_uri or training.model_uri
        if format_code is None and training.framework in FORMATS:
            format_code = training.framework
        if version is None and format_code == training.framework:
            version = training.framework_version
    faults: list[Fault] = []
    if format_code is None:
        faults.append(Fault("modelFormatCode", f"must be given: one of {', '.join(FORMATS)}"))
    if not artifact_uri:
        faults.append(Fault("modelUploadUri", "must be given, or a trainingId whose output is the model"))
    if faults or format_code is None or not artifact_uri:
        raise Invalid(faults)
    return ModelSpec(
        format_code=format_code,
        framework_version=version,
        artifact_uri=artifact_uri,
        training_id=None if training is None else training.id,
        training_name=None if training is None else training.name,
        parameters=tuple(
            Parameter(name=item.parameter_name, value=item.parameter_value) for item in request.parameter_list
        ),
        keeps_copy=keeps_copies if request.keeps_copy is None else request.keeps_copy,
    )


async def _found(session: AsyncSession, caller: Caller, model_id: str) -> ModelRow:
    row = await repository.by_id(session, caller.project.id, model_id)
    if row is None:
        raise NotFound("model", model_id)
    return row


async def _held(session: AsyncSession, caller: Caller, model_id: str) -> ModelRow:
    row = await repository.held(session, caller.project.id, model_id)
    if row is None:
        raise NotFound("model", model_id)
    return row
