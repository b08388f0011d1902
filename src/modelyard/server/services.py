"""The services of all resources, put together once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from modelyard.activator.room import WaitingRoom
from modelyard.compute.port import Environment
from modelyard.control.reconciler import Reconciler
from modelyard.db.engine import Database
from modelyard.easymaker import vendor_hosts
from modelyard.resources.endpoints.autoscaler import Autoscaler
from modelyard.resources.endpoints.endpoint_reconciler import EndpointReconciler
from modelyard.resources.endpoints.gatekeeping import Gatekeeping
from modelyard.resources.endpoints.instances import ServingSettings
from modelyard.resources.endpoints.preflight import GatewayQuota, StagePreflight
from modelyard.resources.endpoints.reconciler import StageReconciler
from modelyard.resources.endpoints.service import Endpoints
from modelyard.resources.endpoints.statistics import Statistics
from modelyard.resources.endpoints.traffic import Traffic
from modelyard.resources.endpoints.views import Views
from modelyard.resources.experiments.reconciler import ExperimentReconciler
from modelyard.resources.experiments.service import Experiments
from modelyard.resources.flavors.service import Flavors
from modelyard.resources.images.reconciler import EnvironmentReconciler
from modelyard.resources.images.service import PLATFORM_PROJECT, Images
from modelyard.resources.logs.service import Logs
from modelyard.resources.members.service import Members
from modelyard.resources.metrics.model import EventFiles
from modelyard.resources.metrics.model import Limits as MetricLimits
from modelyard.resources.metrics.service import Metrics
from modelyard.resources.models.reconciler import InspectionSettings, ModelReconciler
from modelyard.resources.models.service import Models
from modelyard.resources.notebooks.instances import NotebookSite
from modelyard.resources.notebooks.model import SpareSettings
from modelyard.resources.notebooks.reconciler import NotebookReconciler
from modelyard.resources.notebooks.service import Notebooks
from modelyard.resources.notebooks.spare_reconciler import SpareReconciler
from modelyard.resources.projects.service import Projects
from modelyard.resources.projects.tokens import TokenSigner
from modelyard.resources.routes.reconciler import RouteReconciler
from modelyard.resources.routes.service import Routes
from modelyard.resources.sessions.access import Visits
from modelyard.resources.sessions.model import SessionLimits
from modelyard.resources.sessions.service import Sessions
from modelyard.resources.snapshots.service import Snapshots, SnapshotSettings
from modelyard.resources.storages.model import DOOR
from modelyard.resources.storages.service import Storages
from modelyard.resources.tensorboards.model import KIND as TENSORBOARD_KIND
from modelyard.resources.tensorboards.reconciler import TensorBoardReconciler
from modelyard.resources.tensorboards.service import TensorBoards
from modelyard.resources.trainings.instances import Site
from modelyard.resources.trainings.preflight import Preflight
from modelyard.resources.trainings.reconciler import TrainingReconciler, TrainingSettings
from modelyard.resources.trainings.service import Trainings
from modelyard.resources.usage.model import Retention as UsageRetention
from modelyard.resources.usage.service import Usage
from modelyard.resources.users.service import Users
from modelyard.resources.workloads.admission import AdmissionSettings
from modelyard.resources.workloads.instances import FrontDoor
from modelyard.resources.workloads.model import Workload
from modelyard.resources.workloads.reconciler import WorkloadReconciler
from modelyard.resources.workloads.service import Workloads
from modelyard.resources.workloads.sweeper import IsProject
from modelyard.resources.workloads.volumes import VolumeReconciler
from modelyard.server.backends import Backends
from modelyard.server.home import Home, secret_key
from modelyard.server.settings import Settings

_MODEL_PATIENCE_SECONDS = 2.0  # most artifacts are looked at within it


@dataclass(frozen=True, slots=True)
class Services:
    """Use cases of every resource."""

    users: Users
    projects: Projects
    flavors: Flavors
    images: Images
    storages: Storages
    workloads: Workloads
    routes: Routes
    members: Members
    sessions: Sessions
    visits: Visits
    logs: Logs
    snapshots: Snapshots
    metrics: Metrics
    usage: Usage
    experiments: Experiments
    trainings: Trainings
    notebooks: Notebooks
    tensorboards: TensorBoards
    models: Models
    endpoints: Endpoints
    traffic: Traffic
    statistics: Statistics
    waiting_room: WaitingRoom
    autoscaler: Autoscaler
    gatekeeping: Gatekeeping


def make_services(home: Home, settings: Settings, database: Database, backends: Backends, *, has_gpu: bool) -> Services:
    """All services, with the deletion rules across them."""
    workloads = Workloads(database, backends.compute, _admission(settings))
    projects = Projects(database, TokenSigner(secret_key(home, "tokens")), is_alive=workloads.is_alive)
    flavors = Flavors(home.flavors_file, has_gpu=has_gpu)
    images = Images(database, home.images_file, _presence(backends), has_gpu=has_gpu)
    storages = Storages(database, backends.hosts, door_url=settings.http_url, volumes_root=home.volumes)
    users = Users(database)
    routes = Routes(backends.gateway)
    room = waiting_room_of(home)
    limits = SessionLimits(
        idle=timedelta(hours=settings.access.session_idle_hours), whole=timedelta(hours=settings.access.session_hours)
    )
    sessions = Sessions(database, users, projects, limits)
    visits = Visits(database, sessions, projects, routes)
    experiments = Experiments(database, limit=settings.quotas.experiments)
    kept = settings.source_snapshots
    snapshots = Snapshots(
        database,
        storages,
        home.snapshots,
        SnapshotSettings(kept.is_enabled, int(kept.max_mib * 2**20), kept.max_files),
    )
    preflight = Preflight(
        experiments,
        images,
        flavors,
        storages,
        workloads,
        snapshots,
        deadline_seconds=settings.objectstore.check_seconds,
    )
    trainings = Trainings(
        database,
        experiments,
        images,
        flavors,
        workloads,
        preflight,
        snapshots,
        active_limit=settings.quotas.active_trainings,
    )
    models = Models(
        database,
        trainings,
        storages,
        keeps_copies=settings.models.keep_copies,
        patience_seconds=_MODEL_PATIENCE_SECONDS,
    )
    views = Views(workloads, routes, models, flavors, public_host=settings.public_host, region=settings.region)
    quota = GatewayQuota(
        settings.gateway.services_per_project,
        settings.gateway.stages_per_service,
        settings.gateway.resources_per_service,
    )
    stage_preflight = StagePreflight(database, models, images, flavors, storages, workloads, _serving(settings))
    endpoints = Endpoints(database, models, workloads, stage_preflight, views, quota)
    notebooks = Notebooks(
        database, images, flavors, storages, workloads, backends.origins, spares=_spare_settings(settings)
    )
    visits.targets["notebook"] = notebooks
    storages.volume_users.append(trainings.on_volume)
    tensorboards = TensorBoards(database, trainings, experiments, backends.origins)
    visits.targets[TENSORBOARD_KIND] = tensorboards
    experiments.tensorboard_address = trainings.tensorboard_address = tensorboards.address
    experiments.deletion_guards += [trainings.guard_experiment, tensorboards.owner_goes]
    trainings.deletion_guards += [models.guard_training, tensorboards.owner_goes]
    models.deletion_guards.append(endpoints.guard_model)
    return Services(
        users=users,
        projects=projects,
        flavors=flavors,
        images=images,
        storages=storages,
        workloads=workloads,
        routes=routes,
        members=Members(projects, users),
        sessions=sessions,
        visits=visits,
        logs=Logs(backends.logs),
        snapshots=snapshots,
        metrics=Metrics(database, _metric_limits(settings)),
        usage=Usage(database, workloads, UsageRetention.of_days(settings.metrics.usage_days)),
        experiments=experiments,
        trainings=trainings,
        notebooks=notebooks,
        tensorboards=tensorboards,
        models=models,
        endpoints=endpoints,
        traffic=Traffic(database, routes),
        statistics=Statistics(database, routes),
        waiting_room=room,
        autoscaler=Autoscaler(database, workloads, routes, room),
        gatekeeping=Gatekeeping(database, workloads, routes, _serving(settings), secret=secret_key(home, "api-keys")),
    )


def make_reconcilers(
    home: Home, settings: Settings, database: Database, backends: Backends, services: Services
) -> list[Reconciler]:
    """One for each kind of resource that lives long."""
    bundle = backends.certificates.bundle
    site = Site(settings.region, DOOR, trust_directory=None if bundle is None else str(bundle.parent))
    serving = _serving(settings)
    shared = (
        database,
        services.projects,
        services.images,
        services.flavors,
        services.storages,
        services.workloads,
    )
    event_files = EventFiles(home.tensorboard)
    grace = settings.compute
    training_settings = TrainingSettings(site, event_files, grace.training_grace_seconds, grace.project_grace_seconds)
    return [
        WorkloadReconciler(
            database,
            backends.compute,
            _token_source(services.projects),
            _admission(settings),
            door=_front_door(settings, backends),
            followers={TrainingReconciler.kind: TrainingReconciler.follow},
        ),
        VolumeReconciler(backends.compute),
        RouteReconciler(
            database,
            backends.gateway,
            repairs=settings.gateway.repairs_routes,
            before_removal=services.statistics.collect,
        ),
        EnvironmentReconciler(database, services.workloads),
        ExperimentReconciler(database, event_files),
        TrainingReconciler(*shared, services.snapshots, services.metrics, services.usage, training_settings),
        NotebookReconciler(*shared, services.routes, _notebook_site(backends, settings)),
        SpareReconciler(
            database,
            services.projects,
            services.images,
            services.flavors,
            services.workloads,
            _notebook_site(backends, settings),
            _spare_settings(settings),
        ),
        ModelReconciler(
            database,
            services.projects,
            services.storages,
            InspectionSettings(copy_bytes=settings.models.copy_limit_gib * 2**30),
        ),
        TensorBoardReconciler(
            database,
            services.images,
            services.trainings,
            services.workloads,
            services.routes,
            event_files,
            backends.origins,
            timedelta(minutes=settings.access.tensorboard_idle_minutes),
        ),
        StageReconciler(*shared, services.routes, serving, services.waiting_room.socket_of),
        EndpointReconciler(database, services.workloads, services.routes, serving, services.waiting_room.socket_of),
    ]


def waiting_room_of(home: Home) -> WaitingRoom:
    """Where requests wait for models that rest."""
    return WaitingRoom(home.waiting_room, home.log_file.with_name("activator.log"))


def _serving(settings: Settings) -> ServingSettings:
    return ServingSettings(
        max_body_bytes=settings.serving.max_body_mib * 2**20,
        deadline_seconds=settings.serving.deadline_seconds,
        start_seconds=60 * settings.serving.start_minutes,
        silent_seconds=settings.serving.silent_seconds,
    )


def _front_door(settings: Settings, backends: Backends) -> FrontDoor:
    http, https = (urlsplit(url).netloc for url in (settings.http_url, settings.https_url))
    # With a certificate of the user's own nobody vouches for the names of others.
    names = vendor_hosts(settings.region) if backends.certificates.authority is not None else ()
    remotes = {group.host.lower() for group in settings.objectstore.remotes}
    return FrontDoor(settings.http_url, (http, https), {name: https for name in names if name not in remotes})


def _notebook_site(backends: Backends, settings: Settings) -> NotebookSite:
    return NotebookSite(
        settings.region,
        backends.origins,
        _authority(backends),
        silence_seconds=settings.notebooks.silence_seconds,
        cpu_share=settings.notebooks.cpu_share,
    )


def _spare_settings(settings: Settings) -> SpareSettings:
    return SpareSettings(count=settings.notebooks.spares, hours=settings.notebooks.spare_hours)


def _authority(backends: Backends) -> str:
    """What clients inside have to trust beside the world's authorities."""
    authority = backends.certificates.authority
    return "" if authority is None else authority.read_text(encoding="ascii")


def _presence(backends: Backends):
    def _is_present(environment: Environment) -> bool:
        return backends.environments.is_built(environment)

    return _is_present


def _metric_limits(settings: Settings) -> MetricLimits:
    return MetricLimits(settings.metrics.series_per_run, settings.metrics.points_per_series)


def _admission(settings: Settings) -> AdmissionSettings:
    return AdmissionSettings(settings.compute.cpu_overcommit, settings.compute.memory_overcommit)


def is_project_of(projects: Projects) -> IsProject:
    """Whether a workload's project is there; the platform's own workloads have a project without a row."""

    async def _is_project(project_id: str) -> bool:
        return project_id == PLATFORM_PROJECT or await projects.get(project_id) is not None

    return _is_project


def _token_source(projects: Projects):
    async def _token(workload: Workload) -> str:
        if workload.project_id == PLATFORM_PROJECT:
            return ""
        project = await projects.get(workload.project_id)
        if project is None:
            return ""
        return projects.sign_workload(project, workload.id)

    return _token
