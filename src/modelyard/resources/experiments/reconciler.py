"""Brings experiments to ACTIVE: makes the directory in which their trainings leave TensorBoard logs."""

from __future__ import annotations

import asyncio

from modelyard.control.reconciler import Done, Outcome
from modelyard.control.transitions import move
from modelyard.control.work import Lease
from modelyard.db.engine import Database
from modelyard.resources.experiments import repository
from modelyard.resources.experiments.lifecycle import LIFECYCLE, ExperimentState
from modelyard.resources.experiments.service import KIND
from modelyard.resources.metrics.model import EventFiles


class ExperimentReconciler:
    """Reconciles experiments."""

    kind = KIND

    def __init__(self, database: Database, event_files: EventFiles) -> None:
        self._database = database
        self._event_files = event_files

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Make what the experiment stands on."""
        async with self._database.read() as session:
            row = await repository.by_key(session, key)
        if row is None or row.state != ExperimentState.CREATE_IN_PROGRESS.value:
            return Done()
        fault: str | None = None
        try:
            await asyncio.to_thread(self._event_files.of_experiment(key).mkdir, parents=True, exist_ok=True)
        except OSError as error:
            fault = f"The directory for TensorBoard logs can't be made: {error.strerror or error}."
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_key(session, key)
            if row is None:
                return Done()
            if fault is None:
                move(session, LIFECYCLE, row, ExperimentState.ACTIVE)
            else:
                move(
                    session,
                    LIFECYCLE,
                    row,
                    ExperimentState.FAILED_TO_CREATE_RESOURCE,
                    reason="NO_LOG_DIRECTORY",
                    message=fault,
                )
        return Done()
