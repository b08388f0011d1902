"""Makes trainings true: has the image built, asks for the workload, and follows it to its end."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.events import forget_events
from modelyard.control.reconciler import Done, Outcome
from modelyard.control.transitions import CONTROLLER
from modelyard.control.work import Lease, forget
from modelyard.db.engine import Database
from modelyard.kit.errors import RetryLater, UserError
from modelyard.resources.flavors.service import Flavors
from modelyard.resources.images.catalog import CatalogImage, to_environment
from modelyard.resources.images.lifecycle import EnvironmentState
from modelyard.resources.images.service import Images, environment_spec
from modelyard.resources.metrics.model import EventFiles
from modelyard.resources.metrics.service import Metrics
from modelyard.resources.projects.model import Project
from modelyard.resources.projects.service import Projects
from modelyard.resources.snapshots.errors import NoSnapshot
from modelyard.resources.snapshots.model import Snapshot
from modelyard.resources.snapshots.service import Snapshots
from modelyard.resources.storages.service import Storages
from modelyard.resources.trainings import repository
from modelyard.resources.trainings.decision import Verdict, judge
from modelyard.resources.trainings.following import FAILURES, follow, is_shown, show, show_verdict
from modelyard.resources.trainings.instances import Places, Site, training_workload
from modelyard.resources.trainings.lifecycle import LIFECYCLE, TrainingState
from modelyard.resources.trainings.model import Provenance, TrainingSpec, TrainingStatus
from modelyard.resources.trainings.provenance import begun
from modelyard.resources.trainings.service import KIND
from modelyard.resources.trainings.table import TrainingRow
from modelyard.resources.trainings.views import metrics_owner
from modelyard.resources.usage.service import Usage
from modelyard.resources.workloads.lifecycle import LIFECYCLE as WORKLOAD_LIFECYCLE
from modelyard.resources.workloads.model import Desired, Workload, WorkloadSpec
from modelyard.resources.workloads.service import Workloads


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How trainings run.

    Attributes:
        event_files: where what trainings write for TensorBoard is kept.
        grace_seconds: from the request to stop until the script is killed.
        project_grace_seconds: the same for single projects, by app key.
    """

    site: Site
    event_files: EventFiles
    grace_seconds: float = 30.0
    project_grace_seconds: Mapping[str, float] = field(default_factory=dict[str, float])


class TrainingReconciler:
    """Reconciles trainings."""

    kind = KIND
    follow = staticmethod(follow)

    def __init__(
        self,
        database: Database,
        projects: Projects,
        images: Images,
        flavors: Flavors,
        storages: Storages,
        workloads: Workloads,
        snapshots: Snapshots,
        metrics: Metrics,
        usage: Usage,
        settings: TrainingSettings,
    ) -> None:
        self._database = database
        self._projects = projects
        self._images = images
        self._flavors = flavors
        self._storages = storages
        self._workloads = workloads
        self._snapshots = snapshots
        self._metrics = metrics
        self._usage = usage
        self._settings = settings

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Bring one training a step further."""
        async with self._database.read() as session:
            row = await repository.by_key(session, key)
            workload = await self._workloads.get(session, key)
        if row is None:
            return Done()
        if row.desired == "delete":
            await self._delete(key, lease)
            return Done()
        if LIFECYCLE.is_final(TrainingState(row.state)):
            return Done()
        if workload is not None:
            await self._follow(row, workload, lease)
            return Done()
        if row.desired == "stop":
            await self._record(key, lease, Verdict(TrainingState.STOPPED, "STOPPED", "Stopped before it began."))
            return Done()
        await self._begin(row, lease)
        return Done()

    async def _begin(self, row: TrainingRow, lease: Lease) -> None:
        """Ask for the workload, once the image is there."""
        spec = TrainingSpec.model_validate(row.spec)
        project = await self._projects.get(row.project_id)
        image = self._images.find(spec.image_id)
        if project is None or image is None:
            missing = f"The image '{spec.image_name}' is no longer in the catalogue."
            await self._record(row.id, lease, Verdict(TrainingState.CREATE_FAILED, "UNKNOWN_IMAGE", missing))
            return
        try:
            provenance = TrainingStatus.model_validate(row.status).provenance
            if provenance is None:
                provenance = await self._provenance(row, spec, project, image)
            wanted = await self._workload(row, spec, project, image, provenance)
        except UserError as fault:
            await self._record(row.id, lease, Verdict(TrainingState.CREATE_FAILED, "BAD_REQUEST", fault.message))
            return
        async with self._database.write() as session:
            await lease.guard(session)
            current = await repository.by_key(session, row.id)
            if current is None or current.desired != "run":
                return
            await self._note(session, current, provenance)
            environment = await self._images.need(session, image, KIND, row.id)
            match environment.state:
                case EnvironmentState.READY:
                    await self._workloads.ensure(session, row.id, row.project_id, wanted, actor=CONTROLLER)
                    await self._metrics.open_source(
                        session, metrics_owner(row), str(self._event_directory(row)), spec.instance_count
                    )
                    verdict = Verdict(TrainingState.CREATE_IN_PROGRESS, "STARTING", "The instance is starting.")
                case EnvironmentState.BUILD_FAILED:
                    verdict = Verdict(TrainingState.CREATE_FAILED, "IMAGE_BUILD_FAILED", environment.message)
                case _:
                    verdict = Verdict(TrainingState.CREATE_IN_PROGRESS, "IMAGE_BUILD", environment.message)
            show_verdict(session, current, verdict)

    async def _provenance(
        self, row: TrainingRow, spec: TrainingSpec, project: Project, image: CatalogImage
    ) -> Provenance:
        """What is known of the training's origin, its source kept. A source that can't be kept is no reason not to train."""
        try:
            if spec.source_snapshot_id is not None:
                kept: Snapshot | str = await self._snapshots.find(project, spec.source_snapshot_id)
            else:
                kept = await self._snapshots.take(project, spec.source_uri)
        except NoSnapshot as reason:
            kept = f"The source was not kept: {reason}."
        return begun(spec, row.created_by, to_environment(image).digest, kept)

    async def _note(self, session: AsyncSession, row: TrainingRow, provenance: Provenance) -> None:
        """Write down where the training comes from, and hold its source. Raises `RetryLater` when that has gone meanwhile."""
        if TrainingStatus.model_validate(row.status).provenance is not None:
            return
        snapshot_id = provenance.source_snapshot_id
        if snapshot_id is not None and not await self._snapshots.hold(session, row.project_id, snapshot_id, row.id):
            raise RetryLater(f"The source snapshot '{snapshot_id}' has gone; it is taken again.")
        status = TrainingStatus.model_validate(row.status).model_copy(update={"provenance": provenance})
        row.status = status.model_dump(mode="json")

    async def _workload(
        self, row: TrainingRow, spec: TrainingSpec, project: Project, image: CatalogImage, provenance: Provenance
    ) -> WorkloadSpec:
        flavor = self._flavors.get(spec.flavor_id)
        locate = self._storages.locate
        snapshot = await self._snapshot(spec, project, provenance)
        places = Places(
            source=None if snapshot is not None else await locate(project, spec.source_uri),
            snapshot=snapshot,
            model=await locate(project, spec.model_uri),
            datasets={dataset.name: await locate(project, dataset.uri) for dataset in spec.datasets},
            checkpoint=await locate(project, spec.checkpoint_uri) if spec.checkpoint_uri else None,
            checkpoint_input=await locate(project, spec.checkpoint_input_uri) if spec.checkpoint_input_uri else None,
        )
        return training_workload(
            row.id,
            row.name,
            row.experiment_id,
            spec,
            project,
            flavor,
            environment_spec(image),
            to_environment(image).digest,
            places,
            self._settings.site,
            str(self._event_directory(row)),
            self._settings.project_grace_seconds.get(project.app_key, self._settings.grace_seconds),
        )

    async def _snapshot(self, spec: TrainingSpec, project: Project, provenance: Provenance) -> str | None:
        """The directory to run the source from; None for where the user has it: volumes are mounted, not copied."""
        snapshot_id = provenance.source_snapshot_id
        if snapshot_id is None or (spec.source_snapshot_id is None and not spec.source_uri.startswith("obs://")):
            return None
        return (await self._snapshots.find(project, snapshot_id)).directory

    async def _follow(self, known: TrainingRow, workload: Workload, lease: Lease) -> None:
        """Show what is seen of the workload; pass a wish to stop on to it."""
        verdict = judge(workload)
        last_lines: tuple[str, ...] = ()
        if verdict.state in FAILURES:
            last_lines = await self._workloads.last_lines(workload)
        if known.desired == "run" and is_shown(known, verdict, workload, last_lines):
            return
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.locked(session, known.id)
            if row is None:
                return
            is_newest = await self._workloads.get(session, row.id) == workload
            if row.desired == "stop" and not WORKLOAD_LIFECYCLE.is_final(workload.state):
                await self._workloads.ask(session, row.id, Desired.STOP)
                if verdict.state is not TrainingState.STOP_IN_PROGRESS:
                    return
            if is_newest:  # else what is newer was shown with it, or we are asked again
                show(session, row, workload, verdict, last_lines)

    async def _record(self, key: str, lease: Lease, verdict: Verdict) -> None:
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_key(session, key)
            if row is None:
                return
            show_verdict(session, row, verdict)
            if LIFECYCLE.is_final(verdict.state):
                spec = TrainingSpec.model_validate(row.spec)
                await self._images.release(session, spec.image_id, KIND, key)

    async def _delete(self, key: str, lease: Lease) -> None:
        """Remove the workload first (its removal wakes us), then the training."""
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_key(session, key)
            if row is None or await self._workloads.ask(session, key, Desired.DELETE):
                return
        await self._metrics.forget(key)
        await self._usage.forget(key)
        await asyncio.to_thread(shutil.rmtree, self._event_directory(row), ignore_errors=True)
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_key(session, key)
            if row is not None:
                await session.delete(row)
            unneeded = await self._snapshots.release(session, key)
            await forget_events(session, KIND, key)
            await forget(session, KIND, key)
        await self._snapshots.discard(unneeded)

    def _event_directory(self, row: TrainingRow) -> Path:
        return self._settings.event_files.of_training(row.experiment_id, row.id)
