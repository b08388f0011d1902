"""Takes a sample of every running instance every ten seconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from modelyard.compute.port import Phase, Use
from modelyard.resources.usage.model import SAMPLE_SECONDS, Sample
from modelyard.resources.usage.service import Usage
from modelyard.resources.workloads.service import Workloads

log = logging.getLogger(__name__)

_TRIM_SECONDS = 600.0


class Recorder:
    """Records what instances of all kinds use. Processor time is told as cores: its growth since the sample before."""

    def __init__(
        self,
        usage: Usage,
        workloads: Workloads,
        *,
        sample_seconds: float = SAMPLE_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._usage = usage
        self._workloads = workloads
        self._sample_seconds = sample_seconds
        self._clock = clock
        self._last: dict[str, tuple[float, float]] = {}

    async def run(self) -> None:
        """Record until cancelled."""
        trim_at = self._clock()
        while True:
            begun_at = self._clock()
            try:
                live_ids = await self.record()
                if begun_at >= trim_at:
                    trim_at = begun_at + _TRIM_SECONDS
                    await self._usage.trim(live_ids)
            except Exception:
                log.exception("What instances use can't be recorded; trying again")
            await asyncio.sleep(max(1.0, self._sample_seconds - (self._clock() - begun_at)))

    async def record(self) -> list[str]:
        """Take one sample of each; the workloads that are live."""
        live = await self._workloads.live()
        running = {
            seen.id: (workload.id, seen.index)
            for workload in live
            if not workload.spec.is_spare  # nobody asks for what nobody has asked for
            for seen in workload.status.instances
            if seen.phase == Phase.RUNNING.value
        }
        measured = await self._workloads.measure([*running])
        now = self._clock()
        samples = [self._sample(use, *running[use.id], now) for use in measured]
        self._last = {use.id: (now, use.cpu_seconds) for use in measured if use.cpu_seconds is not None}
        if samples:
            await self._usage.record(samples)
        return [workload.id for workload in live]

    def _sample(self, use: Use, workload_id: str, index: int, now: float) -> Sample:
        # An instance that was not seen before has begun since; all it used, it used in at most one round.
        since, before = self._last.get(use.id, (now - self._sample_seconds, 0.0))
        cores = 0.0
        if use.cpu_seconds is not None and (use.id in self._last or use.cpu_seconds <= self._sample_seconds):
            cores = max(0.0, use.cpu_seconds - before) / max(now - since, 1e-3)
        return Sample(
            owner_id=workload_id,
            instance=index,
            cpu_cores=cores,
            memory_bytes=use.memory_bytes or 0,
            disk_bytes=use.disk_bytes or 0,
            gpu_percent=use.gpu_percent,
            gpu_memory_bytes=use.gpu_memory_bytes,
        )
