"""What runs inside notebooks, with the smallest of their images."""

from __future__ import annotations

import pytest

from modelyard.compute.backends.local.build import build_environment
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.resources.images.catalog import load_catalog, to_environment


@pytest.fixture
def image(environment_store: EnvironmentStore) -> str:
    """The directory of the built environment."""
    environment = to_environment(
        next(each for each in load_catalog() if each.name == "Ubuntu 22.04 CPU Python Notebook")
    )
    build_environment(environment, environment_store.root, lambda step, message, progress: None)
    return str(environment_store.path(environment))
