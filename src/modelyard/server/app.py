"""The HTTP application: routers behind access control, the doors beside them, errors in the envelope."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from modelyard import __version__
from modelyard.resources.endpoints.router import create_router as endpoint_router
from modelyard.resources.experiments.router import create_router as experiment_router
from modelyard.resources.flavors.router import create_router as flavor_router
from modelyard.resources.images.router import create_router as image_router
from modelyard.resources.logs.router import create_router as log_router
from modelyard.resources.members.router import create_router as member_router
from modelyard.resources.metrics.router import create_router as metric_router
from modelyard.resources.models.router import create_router as model_router
from modelyard.resources.notebooks.router import create_router as notebook_router
from modelyard.resources.projects.access import project_access
from modelyard.resources.sessions.router import create_admin_router as session_router
from modelyard.resources.sessions.router import create_router as access_code_router
from modelyard.resources.storages.router import create_router as storage_router
from modelyard.resources.tensorboards.router import create_router as tensorboard_router
from modelyard.resources.trainings.router import create_router as training_router
from modelyard.resources.usage.router import create_router as usage_router
from modelyard.server.backends import Backends
from modelyard.server.body_limit import BodyLimit
from modelyard.server.doors.absent import create_router as absent_router
from modelyard.server.doors.front_page import create_router as front_page_router
from modelyard.server.doors.guard import ENTER
from modelyard.server.doors.log_sender import create_router as log_sender_router
from modelyard.server.doors.objects import ObjectDoor, object_routes
from modelyard.server.doors.objects_request import DoorSettings
from modelyard.server.doors.sign_in import create_router as sign_in_router
from modelyard.server.doors.tokens import ObjectAccess
from modelyard.server.doors.tokens import create_router as token_router
from modelyard.server.problems import add_problem_handlers
from modelyard.server.services import Services
from modelyard.server.settings import Settings
from modelyard.server.workload_hosts import WorkloadHosts

_MAX_BODY_BYTES = 48 * 2**20  # the log sender's 40 MB buffer is the largest JSON that clients send


def create_app(settings: Settings, services: Services, backends: Backends) -> FastAPI:
    """The application."""
    # The pages that draw openapi.json come with their scripts: browsers of a closed network reach no content network.
    app = FastAPIOffline(
        title="Modelyard",
        version=__version__,
        summary="Notebooks, training, models and endpoints on your own machines.",
        redoc_url=None,
        static_url="/docs/static",
        favicon_url="/favicon.svg",
    )
    add_problem_handlers(app)
    access = project_access(services.projects)
    for router in (
        flavor_router(services.flavors, access),
        image_router(services.images, access),
        storage_router(services.storages, access),
        log_router(services.logs, access),
        experiment_router(services.experiments, access),
        training_router(services.trainings, access),
        metric_router(services.metrics, services.trainings, access),
        notebook_router(services.notebooks, access),
        usage_router(services.usage, services.trainings, access),
        model_router(services.models, access),
        endpoint_router(
            services.endpoints,
            services.traffic,
            services.statistics,
            services.autoscaler,
            services.gatekeeping,
            access,
        ),
        absent_router(access),
        tensorboard_router(services.tensorboards, access),
        access_code_router(services.visits, backends.origins, access, enter=ENTER),
        member_router(services.members, access),
        session_router(services.sessions),
        sign_in_router(services.sessions, services.visits, backends.origins),
        front_page_router(),
        token_router(services.projects, services.sessions, access, object_store_base=settings.http_url),
        log_sender_router(services.projects, services.logs, hears_app_keys=settings.logs.hears_app_keys),
    ):
        app.router.routes.extend(router.routes)  # not `include_router`: it would build each route once more
    door = ObjectDoor(
        backends.objects,
        ObjectAccess(services.projects),
        hosts=backends.hosts,
        settings=DoorSettings(implicit_system_grants=settings.objectstore.implicit_system_grants),
    )
    app.router.routes.extend(object_routes(door))

    @app.get("/health", include_in_schema=False)
    async def health() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]  # the decorator uses it
        """Whether the server answers; tells nothing else, since anybody may ask."""
        return {"header": {"isSuccessful": True, "resultCode": 0, "resultMessage": "SUCCESS"}}

    app.add_middleware(WorkloadHosts, origins=backends.origins)
    app.add_middleware(BodyLimit, max_body_bytes=_MAX_BODY_BYTES, exempt_prefix="/v1/")
    return app
