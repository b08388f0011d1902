"""Brings experiments to ACTIVE: makes the directory in which their trainings leave TensorBoard logs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from modelyard.control.reconciler import Done, Outcome
from modelyard.control.transitions import move
from modelyard.control.work import Lease
from modelyard.db.engine import Database
from modelyard.resources.experiments import repository
from modelyard.resources.experiments.lifecycle import LIFECYCLE, ExperimentState
from modelyard.resources.experiments.service import KIND


class ExperimentReconciler:
    """Reconciles experiments."""

    kind = KIND

    def __init__(self, database: Database, tensorboard_root: Path) -> None:
        self._database = database
        self._tensorboard_root = tensorboard_root

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Make what the experiment stands on."""
        async with self._database.read() as session:
            row = await repository.by_key(session, key)
        if row is None or row.state != ExperimentState.CREATE_IN_PROGRESS.value:
            return Done()
        fault: str | None = None
        try:
            await asyncio.to_thread(
                experiment_directory(self._tensorboard_root, key).mkdir, parents=True, exist_ok=True
            )
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


def experiment_directory(root: Path, experiment_id: str) -> Path:
    """Where the TensorBoard logs of an experiment's trainings lie, one directory each."""
    return root / experiment_id
