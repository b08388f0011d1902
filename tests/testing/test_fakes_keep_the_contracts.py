"""The shipped fakes keep the contracts of the ports that they stand for."""

from __future__ import annotations

import itertools

import pytest

from modelyard.compute.port import Cause, Command, Exit, Instance, Limits
from modelyard.testing.compute import FakeCompute, Script
from modelyard.testing.conformance.compute import ComputeContract
from modelyard.testing.conformance.gateway import GatewayContract
from modelyard.testing.gateway import FakeGateway


class FakeSubject:
    def __init__(self) -> None:
        self.compute = FakeCompute()
        self._numbers = itertools.count()

    def runs(self) -> Instance:
        workload_id = f"w{next(self._numbers)}"
        command = Command(("{python}", "-c", "pass"))
        return Instance(
            f"{workload_id}.0.0",
            workload_id,
            0,
            0,
            "project",
            "training",
            command,
            Limits(cpus=1.0, memory_bytes=2**28),
        )

    def ends(self, code: int, printed: str = "") -> Instance:
        instance = self.runs()
        ended = Exit(Cause.EXITED, f"Ended with exit code {code}.", code=code)
        self.compute.scripts[instance.id] = Script(exit_at_once=ended, printed=printed)
        return instance

    def reopened(self) -> FakeCompute:
        return self.compute


class TestFakeCompute(ComputeContract):
    @pytest.fixture
    def subject(self) -> FakeSubject:
        return FakeSubject()


class TestFakeGateway(GatewayContract):
    @pytest.fixture
    def gateway(self) -> FakeGateway:
        return FakeGateway()
