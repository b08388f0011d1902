"""Use cases of trainings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.deletions import Deleted, delete_each
from modelyard.control.events import Event, events_of
from modelyard.control.guards import DeletionGuard
from modelyard.control.idempotency import claim, recall, remember
from modelyard.control.transitions import born, move
from modelyard.control.turns import take_turn
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.errors import MAX_BLOCKERS, Blocker, Fault, Invalid, NotFound
from modelyard.kit.ids import new_id
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.experiments.errors import ExperimentInUse
from modelyard.resources.experiments.service import Experiments
from modelyard.resources.flavors.model import Flavor
from modelyard.resources.flavors.service import Flavors
from modelyard.resources.images.catalog import CatalogImage
from modelyard.resources.images.service import Images
from modelyard.resources.logs.output import AttemptOutput
from modelyard.resources.metrics.model import Owner, Run
from modelyard.resources.projects.model import Caller
from modelyard.resources.snapshots.service import Snapshots
from modelyard.resources.trainings import repository
from modelyard.resources.trainings.errors import (
    SourceNotKept,
    TrainingHasEnded,
    TrainingQuotaExceeded,
    TrainingStillRuns,
)
from modelyard.resources.trainings.lifecycle import LIFECYCLE, TrainingState
from modelyard.resources.trainings.model import DataPath, Finished, Parameter, TrainingSpec, TrainingStatus
from modelyard.resources.trainings.preflight import Preflight
from modelyard.resources.trainings.repository import TrainingFilter
from modelyard.resources.trainings.schemas import TrainingChange, TrainingCreate, TrainingDraft, TrainingOut
from modelyard.resources.trainings.table import TrainingRow
from modelyard.resources.trainings.terms import terms_of
from modelyard.resources.trainings.views import metrics_owner, request_of, run_from, run_of, training_out, uris_of
from modelyard.resources.workloads.service import Workloads

KIND = "training"
_MAX_COMPARED = 10_000


class Trainings:
    """Creates, finds, changes, stops and deletes trainings."""

    def __init__(
        self,
        database: Database,
        experiments: Experiments,
        images: Images,
        flavors: Flavors,
        workloads: Workloads,
        preflight: Preflight,
        snapshots: Snapshots,
        *,
        active_limit: int | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._experiments = experiments
        self._images = images
        self._flavors = flavors
        self._workloads = workloads
        self._preflight = preflight
        self._snapshots = snapshots
        self._active_limit = active_limit
        self._clock = clock
        self.deletion_guards: list[DeletionGuard] = []
        self.tensorboard_address: Callable[[str], str] | None = None

    async def create(self, caller: Caller, request: TrainingCreate) -> TrainingOut:
        """A new training. Everything that can be known to be wrong is told now, all at once, and nothing is stored then."""
        project_id, key = caller.project.id, caller.idempotency_key
        if key is not None:
            async with self._database.read() as session:
                known_id = await recall(session, project_id, KIND, key)
            if known_id is not None:
                return await self.get(caller, known_id)
        found = await self._preflight.look(caller, TrainingDraft.of(request))
        quota_fault = await self._quota_fault(caller)
        if quota_fault is not None and not found.faults:
            raise quota_fault
        if quota_fault is not None:
            raise Invalid([*found.faults, *quota_fault.faults])
        spec = _spec(request, *found.chosen())
        async with self._database.write() as session:
            known_id = await claim(session, project_id, KIND, key)
            if known_id is None:
                row = await self._add(session, caller, request, spec)
                remember(session, project_id, KIND, key, row.id)
            else:
                row = await _found(session, caller, known_id)
        return (await self._out(caller, [row]))[0]

    async def faults_of(self, caller: Caller, body: Any, known: Sequence[Fault]) -> Sequence[Fault]:
        """All that is wrong with a body whose form is wrong (`known`) already."""
        draft = TrainingDraft.salvaged(body)
        if draft is None:
            return known
        found = await self._preflight.look(caller, draft)
        quota_fault = await self._quota_fault(caller)
        return [*known, *found.faults, *(() if quota_fault is None else quota_fault.faults)]

    async def list(self, caller: Caller, wanted: TrainingFilter, request: PageRequest) -> Page[TrainingOut]:
        """Trainings of the project, without their last log lines."""
        async with self._database.read() as session:
            page = await repository.page(session, caller.project.id, wanted, request)
        return page.showing(_without_lines(await self._out(caller, page.items)))

    async def ids(self, caller: Caller, wanted: TrainingFilter, request: PageRequest) -> Sequence[str]:
        """The ids of a list that may be too long to be made at once; `some` shows pieces of it."""
        async with self._database.read() as session:
            return await repository.ids(session, caller.project.id, wanted, request)

    async def some(self, caller: Caller, ids: Sequence[str]) -> Sequence[TrainingOut]:
        """Some trainings of such a list, without those that went meanwhile."""
        async with self._database.read() as session:
            rows = await repository.some(session, ids)
        return _without_lines(await self._out(caller, rows))

    async def get(self, caller: Caller, training_id: str) -> TrainingOut:
        """One training."""
        async with self._database.read() as session:
            row = await _found(session, caller, training_id)
        return (await self._out(caller, [row]))[0]

    async def copy(self, caller: Caller, training_id: str, *, has_same_source: bool = False) -> TrainingCreate:
        """A request that would create the same training again.

        It reads the source from its path as it is now; with `has_same_source` what the training ran with, or raises `SourceNotKept`.
        """
        async with self._database.read() as session:
            row = await _found(session, caller, training_id)
        request = request_of(row)
        if not has_same_source or request.source_snapshot_id is not None:
            return request
        known = TrainingStatus.model_validate(row.status).provenance
        if known is None or known.source_snapshot_id is None:
            raise SourceNotKept(row.name, None if known is None else known.snapshot_note)
        return request.model_copy(update={"source_snapshot_id": known.source_snapshot_id})

    async def change(self, caller: Caller, training_id: str, change: TrainingChange) -> TrainingOut:
        """Change name, description or tags."""
        async with self._database.write() as session:
            row = await _found(session, caller, training_id)
            if change.training_name is not None:
                row.name = change.training_name
            if "description" in change.model_fields_set:
                row.description = change.description
            if change.tag_list is not None:
                row.tags = [tag.model_dump(by_alias=True) for tag in change.tag_list]
            await _index(session, row)
            row.updated_at = self._clock()
        return (await self._out(caller, [row]))[0]

    async def stop(self, caller: Caller, training_id: str) -> TrainingOut:
        """Ask for it to stop. Asking again is fine; asking one that has ended raises `TrainingHasEnded`."""
        async with self._database.write() as session:
            row = await _found(session, caller, training_id)
            state = TrainingState(row.state)
            if LIFECYCLE.is_final(state):
                if state is not TrainingState.STOPPED:
                    raise TrainingHasEnded(row.name, row.state)
            elif row.desired != "stop":
                row.desired = "stop"
                row.generation += 1
                move(
                    session,
                    LIFECYCLE,
                    row,
                    TrainingState.STOP_IN_PROGRESS,
                    reason="STOP_REQUESTED",
                    message="A stop was asked for.",
                    actor=caller.actor,
                )
                await enqueue(session, KIND, row.id)
        return (await self._out(caller, [row]))[0]

    async def delete(self, caller: Caller, training_id: str) -> None:
        """Delete one that has ended. Raises `TrainingStillRuns`, or `Blocked` while a model was made from it."""
        async with self._database.write() as session:
            await self._delete(session, caller, training_id)

    async def delete_many(self, caller: Caller, training_ids: Sequence[str]) -> Sequence[Deleted]:
        """Delete those that can be deleted; what became of each, in the order of the request."""
        async with self._database.write() as session:
            return await delete_each(
                session, caller.project.id, KIND, caller.idempotency_key, training_ids, self._deleter(caller)
            )

    async def whereabouts(self, training_id: str) -> tuple[str, str, str | None] | None:
        """Project, name and experiment of a training, whatever its project."""
        async with self._database.read() as session:
            row = await repository.by_key(session, training_id)
        return None if row is None or row.desired == "delete" else (row.project_id, row.name, row.experiment_id)

    async def names_in(self, experiment_id: str) -> dict[str, str]:
        """The names of an experiment's trainings, by their ids."""
        async with self._database.read() as session:
            return await repository.names_in(session, experiment_id, _MAX_COMPARED)

    async def hold(self, session: AsyncSession, caller: Caller, training_id: str) -> None:
        """Keep a training from being deleted until the caller's transaction ends. Raises `NotFound`."""
        await _found(session, caller, training_id, is_held=True)

    async def read_output(
        self, caller: Caller, training_id: str, index: int, attempt: int | None, offset: int, limit_bytes: int
    ) -> AttemptOutput:
        """A piece of what an instance has printed in an attempt, the newest for None. Raises `Invalid` for an instance that there is not."""
        async with self._database.read() as session:
            row = await _found(session, caller, training_id)
        count = TrainingSpec.model_validate(row.spec).instance_count
        if index >= count:
            raise Invalid([Fault("instance", f"must be less than {count}, the number of the training's instances")])
        chosen, chunk = await self._workloads.read_attempt(row.id, index, attempt, offset, limit_bytes)
        # The newest attempt is at its end only when the training is: another one may follow.
        is_end = chunk.is_end if attempt is not None else LIFECYCLE.is_final(TrainingState(row.state)) and chunk.is_end
        return AttemptOutput(chunk.offset, chunk.data, chunk.next_offset, is_end, chosen)

    async def events(self, caller: Caller, training_id: str) -> Sequence[Event]:
        """What has happened to it, oldest first."""
        async with self._database.read() as session:
            row = await _found(session, caller, training_id)
            return await events_of(session, KIND, row.id)

    async def finished(self, session: AsyncSession, project_id: str, training_id: str) -> Finished | None:
        """What others need to know of a training of the project."""
        row = await repository.by_id(session, project_id, training_id)
        if row is None:
            return None
        spec = TrainingSpec.model_validate(row.spec)
        return Finished(
            id=row.id,
            name=row.name,
            state=row.state,
            framework=spec.framework,
            framework_version=spec.framework_version,
            image_id=spec.image_id,
            model_uri=spec.model_uri,
        )

    async def guard_experiment(self, session: AsyncSession, experiment_id: str) -> None:
        """Raise `ExperimentInUse` while trainings belong to the experiment."""
        trainings = await repository.in_experiment(session, experiment_id, MAX_BLOCKERS + 1)
        if trainings:
            raise ExperimentInUse(trainings)

    async def on_volume(self, session: AsyncSession, project_id: str, volume_id: str) -> Sequence[Blocker]:
        """Trainings that have not ended and that read from a NAS volume or write to it."""
        found = [
            Blocker("training", row.id, row.name)
            for row in await repository.active(session, project_id)
            if any(uri.startswith(f"nas://{volume_id}:") for uri in uris_of(TrainingSpec.model_validate(row.spec)))
        ]
        return found[: MAX_BLOCKERS + 1]

    def _deleter(self, caller: Caller) -> Callable[[AsyncSession, str], Awaitable[None]]:
        async def _one(session: AsyncSession, training_id: str) -> None:
            await self._delete(session, caller, training_id)

        return _one

    async def _delete(self, session: AsyncSession, caller: Caller, training_id: str) -> None:
        row = await _found(session, caller, training_id, is_held=True)
        if not LIFECYCLE.is_final(TrainingState(row.state)):
            raise TrainingStillRuns(row.name, row.state)
        for guard in self.deletion_guards:
            await guard(session, row.id)
        row.desired = "delete"
        row.generation += 1
        await enqueue(session, KIND, row.id)

    async def _quota_fault(self, caller: Caller) -> TrainingQuotaExceeded | None:
        if self._active_limit is None:
            return None
        async with self._database.read() as session:
            return await self._quota_fault_in(session, caller)

    async def _quota_fault_in(self, session: AsyncSession, caller: Caller) -> TrainingQuotaExceeded | None:
        limit = self._active_limit
        if limit is None or await repository.count_active(session, caller.project.id, limit) < limit:
            return None
        return TrainingQuotaExceeded(limit)

    async def find_run(self, caller: Caller, run_id: str) -> Run:
        """A training as metrics see it. Raises `NotFound`."""
        async with self._database.read() as session:
            return run_of(await _found(session, caller, run_id))

    async def hold_run(self, session: AsyncSession, caller: Caller, run_id: str) -> Owner:
        """A training as an owner of metrics, kept from being deleted until the transaction ends. Raises `NotFound`."""
        return metrics_owner(await _found(session, caller, run_id, is_held=True))

    async def runs_of_experiment(self, caller: Caller, experiment_id: str) -> Sequence[Run]:
        """The newest trainings of an experiment as metrics see them. Raises `NotFound`."""
        await self._experiments.get(caller, experiment_id)
        async with self._database.read() as session:
            rows = await repository.run_columns(session, caller.project.id, experiment_id, _MAX_COMPARED)
        return [run_from(*row) for row in rows]

    async def _add(
        self, session: AsyncSession, caller: Caller, request: TrainingCreate, spec: TrainingSpec
    ) -> TrainingRow:
        if self._active_limit is not None:
            await take_turn(session, KIND, caller.project.id)
        quota_fault = await self._quota_fault_in(session, caller)
        if quota_fault is not None:  # others were created since the first look
            raise quota_fault
        experiment_id = request.experiment_id
        if experiment_id is not None:
            await self._experiments.hold(session, caller, experiment_id)
        elif request.experiment_name is not None:
            experiment = await self._experiments.find_or_create(
                session, caller, request.experiment_name, request.experiment_description
            )
            experiment_id = experiment.experiment_id
        now = self._clock()
        training_id = new_id(now)
        snapshot_id = spec.source_snapshot_id
        if snapshot_id is not None and not await self._snapshots.hold(
            session, caller.project.id, snapshot_id, training_id
        ):
            raise Invalid([Fault("sourceSnapshotId", "it was removed just now, with the last training that used it")])
        row = TrainingRow(
            id=training_id,
            project_id=caller.project.id,
            name=request.training_name,
            description=request.description,
            tags=[tag.model_dump(by_alias=True) for tag in request.tag_list],
            spec=spec.model_dump(mode="json"),
            status=TrainingStatus().model_dump(mode="json"),
            desired="run",
            state=LIFECYCLE.initial.value,
            created_by=caller.actor,
            created_at=now,
            updated_at=now,
            experiment_id=experiment_id,
            image_id=spec.image_id,
            flavor_id=spec.flavor_id,
        )
        born(session, LIFECYCLE, row, actor=caller.actor)
        session.add(row)
        await _index(session, row)
        await enqueue(session, KIND, row.id)
        return row

    async def _out(self, caller: Caller, rows: Sequence[TrainingRow]) -> list[TrainingOut]:
        experiment_ids = [row.experiment_id for row in rows if row.experiment_id is not None]
        app_key = caller.project.app_key
        async with self._database.read() as session:
            experiments = await self._experiments.get_many(session, app_key, experiment_ids)
        used = {row.image_id for row in rows}
        known = tuple(image for image in self._images.list() if image.id in used)
        images = {image.image_id: image for image in await self._images.show(known)}
        now = self._clock()
        address = self.tensorboard_address
        return [
            training_out(row, app_key, experiments, images, self._flavors, now, address and address(row.id))
            for row in rows
        ]


def _without_lines(shown: Sequence[TrainingOut]) -> Sequence[TrainingOut]:
    return [item.model_copy(update={"last_log_lines": []}) for item in shown]


async def _index(session: AsyncSession, row: TrainingRow) -> None:
    tags = [(tag["tagKey"], tag["tagValue"]) for tag in row.tags]
    await repository.set_terms(session, row, terms_of(row.name, row.description, tags))


async def _found(session: AsyncSession, caller: Caller, training_id: str, *, is_held: bool = False) -> TrainingRow:
    find = repository.held if is_held else repository.by_id
    row = await find(session, caller.project.id, training_id)
    if row is None:
        raise NotFound("training", training_id)
    return row


def _spec(request: TrainingCreate, image: CatalogImage, flavor: Flavor) -> TrainingSpec:
    return TrainingSpec(
        image_id=image.id,
        image_name=image.name,
        framework=image.framework,
        framework_version=image.framework_version,
        flavor_id=flavor.id,
        flavor_name=flavor.name,
        instance_count=request.instance_count,
        data_storage_gib=request.data_storage_size,
        source_uri=request.source_dir_uri or "",
        source_snapshot_id=request.source_snapshot_id or None,
        entry_point=request.entry_point or "",
        parameters=tuple(
            Parameter(name=item.parameter_name, value=item.parameter_value) for item in request.hyperparameter_list
        ),
        datasets=tuple(DataPath(name=item.dataset_name, uri=item.data_uri) for item in request.dataset_list),
        checkpoint_input_uri=request.check_point_input_uri or None,
        checkpoint_uri=request.check_point_upload_uri or None,
        model_uri=request.model_upload_uri,
        timeout_minutes=request.timeout_minutes,
        use_log=request.use_log,
        use_torchrun=request.use_torchrun,
        nproc_per_node=request.nproc_per_node,
        max_restart_count=request.max_restart_count,
    )
