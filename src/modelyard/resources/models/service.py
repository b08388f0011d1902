"""Use cases of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.guards import DeletionGuard
from modelyard.control.idempotency import claim, recall, remember
from modelyard.control.transitions import born
from modelyard.db.engine import Database
from modelyard.easymaker import newer_format, older_format
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import MAX_BLOCKERS, Fault, Invalid, NotFound
from modelyard.kit.ids import new_id
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.models import repository
from modelyard.resources.models.errors import TrainingNotComplete
from modelyard.resources.models.lifecycle import LIFECYCLE
from modelyard.resources.models.model import Model, ModelSpec, Parameter
from modelyard.resources.models.repository import ModelFilter
from modelyard.resources.models.schemas import (
    FORMATS,
    ModelChange,
    ModelCreate,
    ModelOut,
    ModelTraining,
)
from modelyard.resources.models.table import ModelRow
from modelyard.resources.projects.model import Caller, Project
from modelyard.resources.storages.errors import StoragePathFault
from modelyard.resources.storages.service import Storages
from modelyard.resources.trainings.errors import TrainingHasModels
from modelyard.resources.trainings.model import Finished
from modelyard.resources.trainings.service import Trainings

KIND = "model"


class Models:
    """Creates, finds, changes and deletes models."""

    def __init__(self, database: Database, trainings: Trainings, storages: Storages) -> None:
        self._database = database
        self._trainings = trainings
        self._storages = storages
        self.deletion_guards: list[DeletionGuard] = []

    async def create(self, caller: Caller, request: ModelCreate) -> ModelOut:
        """A new model. Its artifact must be there and readable now."""
        project_id, key = caller.project.id, caller.idempotency_key
        async with self._database.read() as session:
            known_id = await recall(session, project_id, KIND, key)
        if known_id is not None:
            return await self.get(caller, known_id)
        training = await self._training(caller, request)
        spec = _spec(request, training)
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
            status={},
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
            born(session, LIFECYCLE, row, actor=caller.actor)
            session.add(row)
            remember(session, project_id, KIND, key, row.id)
            out = await self._out(session, caller.project, [row])
        return out[0]

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

    async def find(self, session: AsyncSession, project_id: str, model_id: str) -> Model | None:
        """A model of the project, for endpoints."""
        row = await repository.by_id(session, project_id, model_id)
        if row is None:
            return None
        return Model(id=row.id, project_id=row.project_id, name=row.name, spec=ModelSpec.model_validate(row.spec))

    async def change(self, caller: Caller, model_id: str, change: ModelChange) -> ModelOut:
        """Change name, description or tags."""
        async with self._database.write() as session:
            row = await _found(session, caller, model_id)
            if change.model_name is not None:
                row.name = change.model_name
            if "description" in change.model_fields_set:
                row.description = change.description
            if change.tag_list is not None:
                row.tags = [tag.model_dump(by_alias=True) for tag in change.tag_list]
            row.updated_at = utc_now()
            return (await self._out(session, caller.project, [row]))[0]

    async def delete(self, caller: Caller, model_id: str) -> None:
        """Delete it; its artifact stays where it is. Raises `Conflict` while an endpoint uses it."""
        async with self._database.write() as session:
            row = await repository.held(session, caller.project.id, model_id)
            if row is None:
                raise NotFound("model", model_id)
            for guard in self.deletion_guards:
                await guard(session, row.id)
            await session.delete(row)

    async def hold(self, session: AsyncSession, project_id: str, model_id: str) -> None:
        """Keep a model from being deleted until the caller's transaction ends. Raises `NotFound`."""
        if await repository.held(session, project_id, model_id) is None:
            raise NotFound("model", model_id)

    async def guard_training(self, session: AsyncSession, training_id: str) -> None:
        """Raise `TrainingHasModels` while models stand that were made from the training."""
        models = await repository.of_training(session, training_id, MAX_BLOCKERS + 1)
        if models:
            raise TrainingHasModels(models)

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
        return [_model_out(row, project.app_key, trainings.get(row.training_id or "")) for row in rows]


def _spec(request: ModelCreate, training: Finished | None) -> ModelSpec:
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
    )


def _model_out(row: ModelRow, app_key: str, training: Finished | None) -> ModelOut:
    spec = ModelSpec.model_validate(row.spec)
    older = older_format(spec.format_code)
    return ModelOut.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "model_id": row.id,
            "model_name": row.name,
            "model_status_code": row.state,
            "status_reason": row.reason,
            "status_message": row.message,
            "description": row.description,
            "app_key": app_key,
            "tag_list": row.tags,
            "created_datetime": row.created_at,
            "updated_datetime": row.updated_at,
            "model_format_code": newer_format(spec.format_code),
            "model_type_code": older,
            "framework_code": older,
            "framework_version": spec.framework_version,
            "model_upload_uri": spec.artifact_uri,
            "training": None
            if training is None
            else ModelTraining(
                training_id=training.id, training_name=training.name, training_status_code=training.state
            ),
            "parameter_list": [{"parameterName": item.name, "parameterValue": item.value} for item in spec.parameters],
        }
    )


async def _found(session: AsyncSession, caller: Caller, model_id: str) -> ModelRow:
    row = await repository.by_id(session, caller.project.id, model_id)
    if row is None:
        raise NotFound("model", model_id)
    return row
