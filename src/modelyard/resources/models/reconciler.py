"""Looks at the artifacts of new models, keeps copies of them where asked for, and takes the copies away again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from modelyard.control.events import forget_events
from modelyard.control.reconciler import Done, Outcome
from modelyard.control.transitions import move
from modelyard.control.work import Lease, forget
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import RetryLater
from modelyard.resources.models import repository
from modelyard.resources.models.inspection.files import Files
from modelyard.resources.models.inspection.findings import Findings, InspectionFailed
from modelyard.resources.models.inspection.look import inspect
from modelyard.resources.models.lifecycle import LIFECYCLE, ModelState
from modelyard.resources.models.model import ArtifactSeen, FileSeen, ModelSpec, ModelStatus
from modelyard.resources.models.service import KIND
from modelyard.resources.models.table import ModelRow
from modelyard.resources.projects.model import Project
from modelyard.resources.projects.service import Projects
from modelyard.resources.storages.errors import StoragePathFault
from modelyard.resources.storages.model import PathReader, StoredFile
from modelyard.resources.storages.service import Storages

_MAX_FILES = 10_000
_SHOWN_FILES = 100
_HASHED_BYTES = 1024**3


@dataclass(frozen=True, slots=True)
class InspectionSettings:
    """How long artifacts are looked at.

    Attributes:
        seconds: an inspection that takes longer is given up; the model can be used without what it would have shown.
        outage_seconds: a store that does not answer for so long makes the creation fail.
        copy_bytes: larger artifacts are not copied.
    """

    seconds: float = 60.0
    outage_seconds: float = 300.0
    copy_bytes: int = 64 * 1024**3


@dataclass
class _Verdict:
    """What to write: the state, why, and what was seen."""

    state: ModelState
    status: ModelStatus = field(default_factory=ModelStatus)
    reason: str | None = None
    message: str | None = None


class ModelReconciler:
    """Reconciles models."""

    kind = KIND

    def __init__(
        self, database: Database, projects: Projects, storages: Storages, settings: InspectionSettings | None = None
    ) -> None:
        self._database = database
        self._projects = projects
        self._storages = storages
        self._settings = settings or InspectionSettings()

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Bring one model to ACTIVE or to the reason why not, or see it off."""
        async with self._database.read() as session:
            row = await repository.by_key(session, key)
        if row is None:
            return Done()
        if row.desired == "delete":
            await self._see_off(row, lease)
        elif row.state == ModelState.CREATE_IN_PROGRESS.value:
            await self._bring_up(row, lease)
        return Done()

    async def _bring_up(self, seen: ModelRow, lease: Lease) -> None:
        verdict = await self._judge(seen)
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_key(session, seen.id)
            if row is None or row.state != ModelState.CREATE_IN_PROGRESS.value or row.name != seen.name:
                gone = row is None
            else:
                gone = False
                row.status = verdict.status.model_dump(mode="json")
                move(session, LIFECYCLE, row, verdict.state, reason=verdict.reason, message=verdict.message)
        if gone:
            await self._storages.remove_copy(seen.project_id, seen.id)

    async def _judge(self, row: ModelRow) -> _Verdict:
        project = await self._projects.get(row.project_id)
        assert project is not None  # a project is never deleted while it has models
        try:
            return await self._look(project, row)
        except InspectionFailed as fault:
            return _Verdict(ModelState.CREATE_FAILED, reason="BAD_ARTIFACT", message=_sentence(str(fault)))
        except StoragePathFault as fault:
            return _Verdict(ModelState.CREATE_FAILED, reason="ARTIFACT_UNREADABLE", message=_sentence(fault.message))
        except RetryLater as problem:
            if utc_now() - row.created_at < timedelta(seconds=self._settings.outage_seconds):
                raise
            return _Verdict(ModelState.CREATE_FAILED, reason="STORE_UNREACHABLE", message=_sentence(str(problem)))

    async def _look(self, project: Project, row: ModelRow) -> _Verdict:
        spec = ModelSpec.model_validate(row.spec)
        reader = await self._storages.reader(project, spec.artifact_uri)
        files, is_complete = await reader.list(_MAX_FILES)
        if not files:
            raise InspectionFailed(f"there is nothing at {spec.artifact_uri}")
        findings = await self._inspect(reader, files, spec, row.name)
        size = sum(file.size for file in files)
        if not is_complete:
            findings.notes.append(f"it has more than {_MAX_FILES} files; only these were looked at")
        digest = await self._digest(row, spec, reader, files, size, is_complete=is_complete)
        if digest is None:
            findings.notes.append("it has no digest: too much would have to be read")
        artifact = ArtifactSeen(
            kind=findings.kind,
            path=findings.path,
            size_bytes=size,
            file_count=len(files),
            digest=digest,
            files=tuple(FileSeen(name=file.name, size=file.size) for file in files[:_SHOWN_FILES]),
            signatures=tuple(findings.signatures),
            framework_version=findings.framework_version,
            facts=findings.facts,
            notes=tuple(_sentence(note) for note in findings.notes),
        )
        return _Verdict(ModelState.ACTIVE, ModelStatus(artifact=artifact, has_copy=spec.keeps_copy))

    async def _inspect(
        self, reader: PathReader, files: Sequence[StoredFile], spec: ModelSpec, model_name: str
    ) -> Findings:
        """In a thread, since parsing computes; it asks this loop for the bytes."""
        loop = asyncio.get_running_loop()
        seconds = self._settings.seconds

        def read(name: str, offset: int, length: int) -> bytes:
            asked = asyncio.run_coroutine_threadsafe(reader.read(name, offset, length), loop)
            try:
                return asked.result(seconds)
            except TimeoutError as error:  # not an error of the file, as which a parser would take it
                raise RetryLater(f"the store has not answered for {seconds:g} s") from error

        contents = Files({file.name: file.size for file in files}, read)
        looking = asyncio.to_thread(inspect, contents, spec.format_code, model_name)
        try:
            return await asyncio.wait_for(looking, seconds)
        except TimeoutError:
            note = f"looking into it took longer than {seconds:g} s; an endpoint will tell whether it can be served"
            return Findings(spec.format_code, ".", notes=[note])

    async def _digest(
        self,
        row: ModelRow,
        spec: ModelSpec,
        reader: PathReader,
        files: Sequence[StoredFile],
        size: int,
        *,
        is_complete: bool,
    ) -> str | None:
        if spec.keeps_copy:
            if not is_complete or size > self._settings.copy_bytes:
                limit = f"{self._settings.copy_bytes / 1024**3:g} GiB and {_MAX_FILES} files"
                raise InspectionFailed(
                    f"the artifact is too large for a copy (at most {limit}); make the model without one"
                )
            return await self._storages.keep_copy(row.project_id, row.id, reader, files)
        return await self._storages.digest(reader, files, max_read_bytes=_HASHED_BYTES)

    async def _see_off(self, seen: ModelRow, lease: Lease) -> None:
        await self._storages.remove_copy(seen.project_id, seen.id)
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_key(session, seen.id)
            if row is not None:
                await session.delete(row)
                await forget_events(session, KIND, row.id)
                await forget(session, KIND, row.id)


def _sentence(text: str) -> str:
    """With a capital letter, unless it begins with the name of a file, and a full stop."""
    text = text.strip()
    is_name = any(character in text.partition(" ")[0] for character in "./:_")
    return (text if is_name else text[:1].upper() + text[1:]) + ("" if text.endswith((".", "…")) else ".")
