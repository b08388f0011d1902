"""Use cases of notebooks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.compute.port import LogChunk
from modelyard.control.events import Event, events_of
from modelyard.control.idempotency import claim, recall, remember
from modelyard.control.transitions import born, move
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.errors import Fault, Invalid, NotFound
from modelyard.kit.ids import new_id
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.flavors.errors import UnknownFlavor
from modelyard.resources.flavors.model import Flavor
from modelyard.resources.flavors.service import Flavors
from modelyard.resources.images.catalog import CatalogImage
from modelyard.resources.images.service import Images
from modelyard.resources.notebooks import repository
from modelyard.resources.notebooks.errors import (
    NotebookCantStart,
    NotebookCantStop,
    NotebookNotRunning,
    NotebookNotStopped,
)
from modelyard.resources.notebooks.instances import KIND, PAGE, told_of
from modelyard.resources.notebooks.lifecycle import ACTIVE, LIFECYCLE, STARTING, NotebookState
from modelyard.resources.notebooks.model import NasMount, NotebookSpec, NotebookStatus, SpareSettings
from modelyard.resources.notebooks.repository import NotebookFilter
from modelyard.resources.notebooks.schemas import (
    NotebookChange,
    NotebookCreate,
    NotebookOut,
    NotebookResize,
    NotebookUsage,
    storage_use,
)
from modelyard.resources.notebooks.spares import Spares
from modelyard.resources.notebooks.table import NotebookRow
from modelyard.resources.notebooks.views import notebook_out
from modelyard.resources.projects.model import Caller
from modelyard.resources.sessions.model import Opening, Target
from modelyard.resources.sessions.origins import Origins
from modelyard.resources.storages.errors import StoragePathFault
from modelyard.resources.storages.service import Storages
from modelyard.resources.workloads.errors import NeverFits
from modelyard.resources.workloads.service import Workloads

_GROUP = "NOTEBOOK"
_USAGE_SECONDS = 0.25
_S = NotebookState
_RESIZABLE = (_S.STOPPED, _S.START_FAILED)


class Notebooks:
    """Creates, finds, changes, stops, starts, resizes and deletes notebooks."""

    def __init__(
        self,
        database: Database,
        images: Images,
        flavors: Flavors,
        storages: Storages,
        workloads: Workloads,
        origins: Origins,
        clock: Clock = utc_now,
        spares: SpareSettings | None = None,
    ) -> None:
        self._database = database
        self._images = images
        self._flavors = flavors
        self._storages = storages
        self._workloads = workloads
        self._origins = origins
        self._clock = clock
        self._spares = Spares(workloads, spares or SpareSettings(), clock)

    async def create(self, caller: Caller, request: NotebookCreate) -> NotebookOut:
        """A new notebook, which starts by itself. All that can be known to be wrong is told now, at once, and nothing is stored then."""
        project_id, key = caller.project.id, caller.idempotency_key
        async with self._database.read() as session:
            known_id = await recall(session, project_id, KIND, key)
        if known_id is not None:
            return await self.get(caller, known_id)
        spec = await self._checked(caller, request)
        async with self._database.write() as session:
            known_id = await claim(session, project_id, KIND, key)
            if known_id is None:
                row = await self._add(session, caller, request, spec)
                remember(session, project_id, KIND, key, row.id)
            else:
                row = await _found(session, caller, known_id)
        return (await self._out(caller, [row]))[0]

    async def list(self, caller: Caller, wanted: NotebookFilter, request: PageRequest) -> Page[NotebookOut]:
        """Notebooks of the project, newest first."""
        async with self._database.read() as session:
            page = await repository.page(session, caller.project.id, wanted, request)
        return Page(await self._out(caller, page.items), page.total_count, request)

    async def get(self, caller: Caller, notebook_id: str) -> NotebookOut:
        """One notebook."""
        async with self._database.read() as session:
            row = await _found(session, caller, notebook_id)
        return (await self._out(caller, [row]))[0]

    async def change(self, caller: Caller, notebook_id: str, change: NotebookChange) -> NotebookOut:
        """Change name, description, tags or the idle stop, at once, whether it runs or not."""
        async with self._database.write() as session:
            row = await _found(session, caller, notebook_id, is_held=True)
            if change.notebook_name is not None:
                row.name = change.notebook_name
            if "description" in change.model_fields_set:
                row.description = change.description
            if change.tag_list is not None:
                row.tags = [tag.model_dump(by_alias=True) for tag in change.tag_list]
            if change.idle_stop_minutes is not None:
                _respecify(row, idle_minutes=change.idle_stop_minutes or None)
                spec = NotebookSpec.model_validate(row.spec)
                await self._workloads.tell(session, spec.run_id, told_of(spec, self._clock()))
            row.updated_at = self._clock()
        return (await self._out(caller, [row]))[0]

    async def stop(self, caller: Caller, notebook_id: str) -> NotebookOut:
        """Ask for it to stop, also while it starts. Asking again is fine. Raises `NotebookCantStop`."""
        async with self._database.write() as session:
            row = await _found(session, caller, notebook_id, is_held=True)
            state = NotebookState(row.state)
            if row.desired == "delete" or state is _S.CREATE_FAILED:
                raise NotebookCantStop(row.name, row.state)
            if state is not _S.STOPPED and not (row.desired == "stop" and state is _S.STOP_IN_PROGRESS):
                await self._ask(session, row, "stop", _S.STOP_IN_PROGRESS, "STOP_REQUESTED", caller.actor)
        return (await self._out(caller, [row]))[0]

    async def start(self, caller: Caller, notebook_id: str, *, skips_scripts: bool = False) -> NotebookOut:
        """Start one that is stopped, with fresh boot storage; without its start-up scripts, if asked. One that runs or is about to is left
        alone. Raises `NotebookCantStart`."""
        async with self._database.write() as session:
            row = await _found(session, caller, notebook_id, is_held=True)
            state = NotebookState(row.state)
            if row.desired != "run" or (state not in ACTIVE and state not in STARTING):
                if row.desired == "delete" or state not in (_S.STOPPED, _S.START_FAILED):
                    raise NotebookCantStart(row.name, row.state)
                _respecify(row, run_id=new_id(), skips_scripts=skips_scripts)
                await self._ask(session, row, "run", _S.START_IN_PROGRESS, "START_REQUESTED", caller.actor)
        return (await self._out(caller, [row]))[0]

    async def resize(self, caller: Caller, notebook_id: str, request: NotebookResize) -> NotebookOut:
        """Give it another instance type of the same core type. Raises `NotebookNotStopped`, `Invalid`."""
        async with self._database.read() as session:
            row = await _found(session, caller, notebook_id)
        flavor = await self._other_flavor(NotebookSpec.model_validate(row.spec), request.flavor_id)
        async with self._database.write() as session:
            row = await _found(session, caller, notebook_id, is_held=True)
            if row.desired == "delete" or NotebookState(row.state) not in _RESIZABLE:
                raise NotebookNotStopped(row.name, row.state)
            _respecify(row, flavor_id=flavor.id, flavor_name=flavor.name)
            row.generation += 1
            row.updated_at = self._clock()
        return (await self._out(caller, [row]))[0]

    async def delete(self, caller: Caller, notebook_id: str) -> None:
        """Delete it with both storages, whatever it is doing. NAS content stays. Asking again is fine."""
        async with self._database.write() as session:
            row = await _found(session, caller, notebook_id, is_held=True)
            if row.desired == "delete" and row.state == _S.DELETE_IN_PROGRESS.value:
                return
            await self._ask(session, row, "delete", _S.DELETE_IN_PROGRESS, "DELETE_REQUESTED", caller.actor)

    async def usage(self, caller: Caller, notebook_id: str) -> NotebookUsage:
        """What it takes now. Raises `NotebookNotRunning`."""
        async with self._database.read() as session:
            row = await _found(session, caller, notebook_id)
            workload = await self._workloads.get(session, NotebookSpec.model_validate(row.spec).run_id)
        before = None if workload is None else await self._workloads.usage(workload)
        await asyncio.sleep(_USAGE_SECONDS)
        now = None if workload is None else await self._workloads.usage(workload)
        if workload is None or before is None or now is None:
            raise NotebookNotRunning(row.name, row.state)
        status = NotebookStatus.model_validate(row.status)
        limits = workload.spec.limits
        return NotebookUsage(
            memory_bytes=now.memory_bytes,
            memory_limit_bytes=limits.memory_bytes,
            cpu_seconds=round(now.cpu_seconds, 3),
            cpu_cores=round(max(0.0, now.cpu_seconds - before.cpu_seconds) / _USAGE_SECONDS, 2),
            cpu_limit_cores=limits.cpus,
            boot_storage=storage_use(status.disk.get("boot")),
            data_storage=storage_use(status.disk.get("data")),
            last_activity_datetime=status.last_activity_at,
        )

    async def find_target(self, id: str) -> Target | None:
        """See `Openable`."""
        async with self._database.read() as session:
            row = await repository.by_key(session, id)
        return None if row is None else Target(KIND, row.id, row.project_id, f"notebook '{row.name}'")

    async def open_target(self, target: Target, actor: str) -> Opening:
        """See `Openable`. Opening one that is stopped does not start it: that is its owner's to decide."""
        del actor
        async with self._database.read() as session:
            row = await repository.by_key(session, target.id)
        state = None if row is None else NotebookState(row.state)
        if row is None or state is None:
            return Opening(is_ready=False, message="The notebook is gone.")
        if state in ACTIVE:
            return Opening(is_ready=True)
        if state in STARTING:
            return Opening(is_ready=False, is_coming=True, message=row.message or "The notebook is starting.")
        advice = "" if row.desired == "delete" or state is _S.CREATE_FAILED else " Start it first."
        return Opening(is_ready=False, message=f"The notebook is {row.state.replace('_', ' ').lower()}.{advice}")

    async def read_output(self, caller: Caller, notebook_id: str, offset: int, limit_bytes: int) -> LogChunk:
        """A piece of what its newest start has printed: start-up scripts, and the Jupyter server."""
        async with self._database.read() as session:
            row = await _found(session, caller, notebook_id)
        return await self._workloads.read_output(NotebookSpec.model_validate(row.spec).run_id, 0, offset, limit_bytes)

    async def events(self, caller: Caller, notebook_id: str) -> Sequence[Event]:
        """What has happened to it, oldest first."""
        async with self._database.read() as session:
            row = await _found(session, caller, notebook_id)
            return await events_of(session, KIND, row.id)

    async def _ask(
        self, session: AsyncSession, row: NotebookRow, desired: str, state: NotebookState, reason: str, actor: str
    ) -> None:
        """Write a wish down and show it at once."""
        row.desired = desired
        row.generation += 1
        status = NotebookStatus.model_validate(row.status)
        fresh = (
            status.model_copy(update={"steps": (), "last_lines": (), "given_at": None}) if desired == "run" else status
        )
        row.status = fresh.model_copy(update={"asked_at": self._clock()}).model_dump(mode="json")
        move(session, LIFECYCLE, row, state, reason=reason, message=_ASKED[desired], actor=actor)
        await enqueue(session, KIND, row.id)

    async def _add(
        self, session: AsyncSession, caller: Caller, request: NotebookCreate, spec: NotebookSpec
    ) -> NotebookRow:
        now = self._clock()
        status = NotebookStatus()
        taken = await self._spares.take(session, caller.project.id, request.notebook_name, spec)
        if taken is not None:
            spec = spec.model_copy(update={"run_id": taken.run_id})
            status = NotebookStatus(run_id=taken.run_id, given_at=now)
        row = NotebookRow(
            id=new_id() if taken is None else taken.id,
            project_id=caller.project.id,
            name=request.notebook_name,
            description=request.description,
            tags=[tag.model_dump(by_alias=True) for tag in request.tag_list],
            spec=spec.model_dump(mode="json"),
            status=status.model_dump(mode="json"),
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

    async def _checked(self, caller: Caller, request: NotebookCreate) -> NotebookSpec:
        """Everything that can be known now: catalogues, room, NAS paths. Raises `Invalid` with all that is wrong."""
        faults: list[Fault] = []
        image = self._image(request.image_id, faults)
        flavor = self._flavor(request.flavor_id, faults)
        if image is not None and flavor is not None and image.core_type != flavor.core_type:
            sentence = f"the image is for {image.core_type}, the instance type '{flavor.name}' is {flavor.core_type}"
            faults.append(Fault("imageId", sentence))
        for index, mount in enumerate(request.nas_mount_list):
            field = f"nasMountList[{index}].nasUri"
            if not mount.nas_uri.startswith("nas://"):
                faults.append(Fault(field, "must be of the form nas://{NAS ID}:/{path}"))
                continue
            try:
                await self._storages.check_writable(caller.project, mount.nas_uri)
            except StoragePathFault as fault:
                faults.append(Fault(field, fault.message))
        if flavor is not None:
            try:
                await self._workloads.check_ever_fits(flavor.vcpus, flavor.memory_bytes, flavor.gpus, 1)
            except NeverFits as never:
                faults.extend(never.faults)
        if faults or image is None or flavor is None:
            raise Invalid(faults)
        return NotebookSpec(
            image_id=image.id,
            image_name=image.name,
            framework=image.framework,
            framework_version=image.framework_version,
            flavor_id=flavor.id,
            flavor_name=flavor.name,
            boot_gib=request.boot_storage_size,
            data_gib=request.data_storage_size,
            mounts=tuple(NasMount(name=item.mount_directory_name, uri=item.nas_uri) for item in request.nas_mount_list),
            idle_minutes=request.idle_stop_minutes,
            run_id=new_id(),
        )

    def _image(self, image_id: str, faults: list[Fault]) -> CatalogImage | None:
        try:
            return self._images.get_for(_GROUP, image_id)
        except Invalid as unfit:
            faults.extend(unfit.faults)
            return None

    def _flavor(self, flavor_id: str, faults: list[Fault]) -> Flavor | None:
        try:
            return self._flavors.get(flavor_id)
        except UnknownFlavor as unknown:
            faults.extend(unknown.faults)
            return None

    async def _other_flavor(self, spec: NotebookSpec, flavor_id: str) -> Flavor:
        flavor = self._flavors.get(flavor_id)
        image = self._images.find(spec.image_id)
        old = self._flavors.find(spec.flavor_id)
        core_type = old.core_type if old is not None else image.core_type if image is not None else flavor.core_type
        if flavor.core_type != core_type:
            sentence = f"'{flavor.name}' is {flavor.core_type}; the notebook can only get a {core_type} instance type"
            raise Invalid([Fault("flavorId", sentence)])
        await self._workloads.check_ever_fits(flavor.vcpus, flavor.memory_bytes, flavor.gpus, 1)
        return flavor

    async def _out(self, caller: Caller, rows: Sequence[NotebookRow]) -> list[NotebookOut]:
        used = {NotebookSpec.model_validate(row.spec).image_id for row in rows}
        known = tuple(image for image in self._images.list() if image.id in used)
        images = {image.image_id: image for image in await self._images.show(known)}
        app_key = caller.project.app_key
        return [notebook_out(row, app_key, images, self._flavors, self._url(row)) for row in rows]

    def _url(self, row: NotebookRow) -> str | None:
        return self._origins.opening_url(KIND, row.id, PAGE) if NotebookState(row.state) in ACTIVE else None


_ASKED = {
    "run": "A start was asked for.",
    "stop": "A stop was asked for.",
    "delete": "The deletion was asked for.",
}


def _respecify(row: NotebookRow, **changes: object) -> None:
    row.spec = NotebookSpec.model_validate(row.spec).model_copy(update=changes).model_dump(mode="json")


async def _found(session: AsyncSession, caller: Caller, notebook_id: str, *, is_held: bool = False) -> NotebookRow:
    find = repository.held if is_held else repository.by_id
    row = await find(session, caller.project.id, notebook_id)
    if row is None:
        raise NotFound("notebook", notebook_id)
    return row
