"""The local backend keeps the contract of the compute port."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelyard.compute.backends.local.backend import LocalCompute
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.compute.backends.local.settings import LocalComputeSettings
from modelyard.compute.port import Command, Instance, Limits, Phase
from modelyard.testing.conformance.compute import ComputeContract


class LocalSubject:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._opened: list[LocalCompute] = []
        self._numbers = itertools.count()
        self.compute = self.reopened()

    def runs(self) -> Instance:
        return self._instance("exec sleep 3600")

    def ends(self, code: int, printed: str = "") -> Instance:
        return self._instance('printf "%s" "$PRINTED"; exit "$CODE"', PRINTED=printed, CODE=str(code))

    def reopened(self) -> LocalCompute:
        environments = EnvironmentStore(self._root / "environments")
        self._opened.append(LocalCompute(self._root / "compute", environments, LocalComputeSettings()))
        return self._opened[-1]

    async def close(self) -> None:
        await self.compute.stop_all(0.0)
        left = [each for each in await self.compute.list_instances() if each.observation.phase is not Phase.EXITED]
        for compute in self._opened:
            compute.close()
        assert left == []

    def _instance(self, script: str, **env: str) -> Instance:
        workload_id = f"w{next(self._numbers)}"
        return Instance(
            f"{workload_id}.0.0",
            workload_id,
            0,
            0,
            "project",
            "training",
            Command(("/bin/sh", "-c", script), env=env),
            Limits(cpus=1.0, memory_bytes=2**28),
            grace_seconds=5.0,
        )


@pytest.mark.slow
class TestLocalCompute(ComputeContract):
    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[LocalSubject]:
        subject = LocalSubject(tmp_path)
        yield subject
        await subject.close()
