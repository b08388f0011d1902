"""All tables of the platform, for the migrations and their tests."""

from __future__ import annotations

from sqlalchemy import MetaData

from modelyard.control import tables as control
from modelyard.db.columns import Table
from modelyard.objectstore.backends.local.tables import metadata as objects
from modelyard.resources.endpoints import table as endpoints
from modelyard.resources.experiments import table as experiments
from modelyard.resources.images import table as images
from modelyard.resources.metrics import table as metrics
from modelyard.resources.models import table as models
from modelyard.resources.notebooks import table as notebooks
from modelyard.resources.projects import table as projects
from modelyard.resources.routes import table as routes
from modelyard.resources.sessions import table as sessions
from modelyard.resources.snapshots import table as snapshots
from modelyard.resources.storages import table as storages
from modelyard.resources.tensorboards import table as tensorboards
from modelyard.resources.trainings import table as trainings
from modelyard.resources.usage import table as usage
from modelyard.resources.users import table as users
from modelyard.resources.workloads import table as workloads

_MAPPED = (
    control,
    endpoints,
    experiments,
    images,
    metrics,
    models,
    notebooks,
    projects,
    routes,
    snapshots,
    sessions,
    storages,
    tensorboards,
    trainings,
    usage,
    users,
    workloads,
)
"""Importing these maps their tables; the name keeps the imports from looking idle."""


def all_metadata() -> list[MetaData]:
    """The metadata of the mapped tables, and of the object store's."""
    return [Table.metadata, objects]
