"""Deletes volumes that nobody wants any more. The wish is the work item itself: it stays until the volume is gone."""

from __future__ import annotations

from modelyard.compute.port import Compute, KeepsVolumes
from modelyard.control.reconciler import Done, Outcome
from modelyard.control.work import Lease
from modelyard.resources.workloads.service import VOLUME_KIND


class VolumeReconciler:
    """Carries out `Workloads.discard_volume`."""

    kind = VOLUME_KIND

    def __init__(self, compute: Compute) -> None:
        self._compute = compute

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Delete it. Raises `RetryLater` while an instance uses it."""
        del lease  # there is nothing to write
        if isinstance(self._compute, KeepsVolumes):
            await self._compute.remove_volume(key)
        return Done()
