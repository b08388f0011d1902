"""Compute on this machine, from the settings. Apart from the other backends, so that `modelyard status` needn't load them."""

from __future__ import annotations

from modelyard.compute.backends.local.backend import LocalCompute
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.compute.backends.local.settings import Isolation, LocalComputeSettings
from modelyard.server.home import Home
from modelyard.server.settings import Settings


def make_compute(home: Home, settings: Settings) -> tuple[LocalCompute, EnvironmentStore]:
    """Workloads on this machine."""
    environments = EnvironmentStore(home.environments)
    compute = LocalCompute(
        home.compute,
        environments,
        LocalComputeSettings(
            isolation=Isolation(settings.compute.isolation),
            needs_isolation=settings.compute.needs_isolation,
            memory_reserve_bytes=settings.compute.memory_reserve_mib * 2**20,
            data_cache_bytes=int(settings.compute.data_cache_gib * 2**30),
        ),
    )
    return compute, environments
