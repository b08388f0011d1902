"""Envoy, as the product runs it, keeps the contract of the gateway port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelyard.gateway.backends.envoy.gateway import EnvoyGateway
from modelyard.gateway.backends.envoy.settings import EnvoySettings, ListenAddress
from modelyard.gateway.certificates import ensure_certificates
from modelyard.testing.conformance.gateway import GatewayContract
from modelyard.testing.ports import free_port


@pytest.mark.slow
class TestEnvoyGateway(GatewayContract):
    @pytest.fixture
    async def gateway(self, tmp_path: Path) -> AsyncIterator[EnvoyGateway]:
        certificates = ensure_certificates(tmp_path / "tls")
        settings = EnvoySettings(
            tmp_path / "gw",
            http=(ListenAddress(port=free_port()),),
            https=(ListenAddress(port=free_port()),),
            certificate=certificates.certificate,
            key=certificates.key,
            guards=(tmp_path / "guard.sock",),
            worker_count=1,
            linger_seconds=0.2,
        )
        gateway = EnvoyGateway(settings)
        await gateway.start()
        try:
            yield gateway
        finally:
            await gateway.stop()
