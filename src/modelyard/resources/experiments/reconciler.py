"""Brings experiments to ACTIVE, and what they stood on away when they are deleted.

Two steps, each seen in the state: the resource is the directory in which the trainings leave their TensorBoard logs; the experiment stands when
files can be kept in it. A step that fails leaves the reason and waits for somebody to try again.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

from modelyard.control.events import forget_events
from modelyard.control.reconciler import Done, Outcome
from modelyard.control.transitions import move
from modelyard.control.work import Lease, forget
from modelyard.db.engine import Database
from modelyard.kit.errors import RetryLater
from modelyard.resources.experiments import repository
from modelyard.resources.experiments.lifecycle import LIFECYCLE, ExperimentState
from modelyard.resources.experiments.service import KIND
from modelyard.resources.metrics.model import EventFiles

_S = ExperimentState
_PROBE = ".writable"


class ExperimentReconciler:
    """Reconciles experiments."""

    kind = KIND

    def __init__(self, database: Database, event_files: EventFiles) -> None:
        self._database = database
        self._event_files = event_files

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Go on where the state says, step by step."""
        async with self._database.read() as session:
            row = await repository.by_key(session, key)
        if row is None:
            return Done()
        if row.desired == "delete":
            await self._delete(key, lease)
            return Done()
        place = self._event_files.of_experiment(key)
        state: ExperimentState | None = _S(row.state)
        if state is _S.CREATE_IN_PROGRESS:
            state = await self._record(key, lease, _S.CREATE_RESOURCE_IN_PROGRESS)
        if state is _S.CREATE_RESOURCE_IN_PROGRESS:
            fault = await asyncio.to_thread(_make, place)
            if fault is not None:
                message = f"The directory for TensorBoard logs can't be made: {fault}."
                await self._record(key, lease, _S.FAILED_TO_CREATE_RESOURCE, "NO_LOG_DIRECTORY", message)
                return Done()
            state = await self._record(key, lease, _S.CREATE_EXPERIMENT_IN_PROGRESS)
        if state is _S.CREATE_EXPERIMENT_IN_PROGRESS:
            fault = await asyncio.to_thread(_probe, place)
            if fault is not None:
                message = f"No file can be kept in the directory for TensorBoard logs: {fault}."
                await self._record(key, lease, _S.FAILED_TO_CREATE_EXPERIMENT, "LOG_DIRECTORY_UNUSABLE", message)
                return Done()
            await self._record(key, lease, _S.ACTIVE)
        return Done()

    async def _record(
        self, key: str, lease: Lease, state: ExperimentState, reason: str | None = None, message: str | None = None
    ) -> ExperimentState | None:
        """Write the state down; None when the experiment is gone meanwhile."""
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_key(session, key)
            if row is None:
                return None
            move(session, LIFECYCLE, row, state, reason=reason, message=message)
        return state

    async def _delete(self, key: str, lease: Lease) -> None:
        """Remove the directory first, then the row."""
        async with self._database.read() as session:
            await lease.check(session)
        fault = await asyncio.to_thread(_remove, self._event_files.of_experiment(key))
        if fault is not None:
            raise RetryLater(f"the TensorBoard logs of experiment {key} can't be removed: {fault}")
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_key(session, key)
            if row is not None:
                await session.delete(row)
            await forget_events(session, KIND, key)
            await forget(session, KIND, key)


def _make(place: Path) -> str | None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _probe(place: Path) -> str | None:
    """Whether a file can be written there: the disk may be full, or the directory read-only."""
    probe = place / _PROBE
    try:
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        with suppress(OSError):
            probe.unlink()
        return error.strerror or str(error)
    return None


def _remove(place: Path) -> str | None:
    try:
        shutil.rmtree(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return error.strerror or str(error)
    return None
