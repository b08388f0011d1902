"""How a notebook becomes a workload: the session's plan, the user's variables, storage and mounts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from modelyard.compute.port import ROOT, RUN
from modelyard.notebook.hearing import Told
from modelyard.notebook.plan import Plan
from modelyard.resources.flavors.model import Flavor
from modelyard.resources.notebooks.model import NotebookSpec
from modelyard.resources.projects.model import Project
from modelyard.resources.routes.model import AccessSpec, RouteSpec, RuleSpec, UpstreamSpec
from modelyard.resources.sessions.origins import Origins
from modelyard.resources.storages.model import DOOR, VolumeLocation
from modelyard.resources.workloads.model import (
    TOKEN,
    CommandSpec,
    EnvironmentSpec,
    LimitsSpec,
    MountSpec,
    VolumeSpec,
    WorkloadSpec,
)

HOME = "/root"
DATA = f"{HOME}/easymaker"
NAS = f"{HOME}/nas"
BASE = "/opt/conda"
KIND = "notebook"
SPARE_ROLE = "spare-notebook"
PAGE = "/lab"
SOCKET = "jupyter"
_GIB = 2**30
_GRACE_SECONDS = 15.0
_READY_SECONDS = 1800.0  # start-up scripts may take their time


@dataclass(frozen=True, slots=True)
class NotebookSite:
    """What an installation tells every notebook.

    Attributes:
        origins: where browsers find it.
        authority: PEM of the certificate authority to trust; empty for none of its own.
        cpu_share: with what part of its cores a notebook is counted where cores are promised.
        silence_seconds: after how long without an answer Jupyter is started again.
    """

    region: str
    origins: Origins
    authority: str = ""
    silence_seconds: float = 60.0
    cpu_share: float = 0.25

    def base_url(self, notebook_id: str) -> str:
        """Below which path Jupyter serves."""
        return f"{self.origins.place(KIND, notebook_id).prefix}/"


def notebook_workload(
    notebook_id: str,
    name: str | None,
    spec: NotebookSpec,
    project: Project,
    flavor: Flavor,
    environment: EnvironmentSpec,
    mounts: dict[str, VolumeLocation],
    site: NotebookSite,
) -> WorkloadSpec:
    """The workload of one start of a notebook. `mounts` are the NAS paths by directory name.

    Without a name it is a spare: all is as in the notebook that it may become, but what that is told when it is given (`told_of`).
    """
    plan = Plan(
        home=ROOT + HOME,
        data=ROOT + DATA,
        base=ROOT + BASE,
        image=f"{ROOT}/opt/environment",
        run=RUN,
        title=f"{environment.name}",
        variables=_variables(notebook_id, spec, project, flavor, site),
        token=TOKEN,
        authority=site.authority,
        idle_minutes=spec.idle_minutes,
        grace_seconds=_GRACE_SECONDS,
        has_own_network=True,
        silence_seconds=site.silence_seconds,
        base_url=site.base_url(notebook_id),
        skips_scripts=spec.skips_scripts,
    )
    return WorkloadSpec(
        owner_kind=KIND,
        owner_id=notebook_id,
        role=SPARE_ROLE if name is None else KIND,
        title=f"spare notebook '{environment.name}'" if name is None else title_of(name),
        limits=LimitsSpec(
            cpus=flavor.vcpus, memory_bytes=flavor.memory_bytes, pids=flavor.pids, gpus=flavor.gpus, storage_bytes=None
        ),
        environment=environment,
        command=CommandSpec(
            argv=("{python}", "-m", "modelyard.notebook", f"{RUN}/plan.json"), files={"plan.json": plan.to_json()}
        ),
        mounts=tuple(
            MountSpec(source=_source(location), target=f"{NAS}/{name}") for name, location in sorted(mounts.items())
        ),
        socket=SOCKET,
        ready_path=f"{site.base_url(notebook_id)}api",
        grace_seconds=_GRACE_SECONDS + 10.0,
        ready_seconds=_READY_SECONDS,
        restart="always",
        volumes=(VolumeSpec(id=notebook_id, target=DATA, size_bytes=spec.data_gib * _GIB),),
        boot_bytes=spec.boot_gib * _GIB,
        has_own_network=True,
        account=notebook_id,
        is_spare=name is None,
        cpu_share=site.cpu_share,
    )


def title_of(name: str) -> str:
    """How messages call a notebook."""
    return f"notebook '{name}'"


def told_of(spec: NotebookSpec, now: datetime) -> str:
    """What a notebook that runs already is told when it is given to its user, and when its settings change."""
    return Told(spec.idle_minutes, now.timestamp()).to_json()


def notebook_route(notebook_id: str, name: str, project_id: str, address: str, site: NotebookSite) -> RouteSpec:
    """The way of browsers to the Jupyter server: members of the project alone, on an origin of its own, without a time limit."""
    place = site.origins.place(KIND, notebook_id)
    return RouteSpec(
        owner_kind=KIND,
        owner_id=notebook_id,
        title=title_of(name),
        host=place.host,
        prefix=place.prefix,
        rules=(RuleSpec(path="/", upstreams=(SOCKET,), is_prefix=True),),
        upstreams=(UpstreamSpec(name=SOCKET, addresses=(address,)),),
        timeout_seconds=0.0,
        labels={"notebook": notebook_id},
        access=AccessSpec(project_id=project_id, kind=KIND, target_id=notebook_id),
    )


def _variables(
    notebook_id: str, spec: NotebookSpec, project: Project, flavor: Flavor, site: NotebookSite
) -> dict[str, str]:
    """What the official client and the platform's own need to work without `init()`, in kernels, terminals and start-up scripts."""
    threads = str(max(1, round(flavor.vcpus)))
    return {
        "EM_REGION": site.region,
        "EM_APPKEY": project.app_key,
        "EM_API_URL": DOOR,
        "EM_TOKEN": TOKEN,
        "EM_GROUP_ID": project.tenant_id,
        "EM_NOTEBOOK_ID": notebook_id,
        "MODELYARD_API_URL": DOOR,
        "MODELYARD_APP_KEY": project.app_key,
        "MODELYARD_ACCESS_TOKEN": TOKEN,
        # Frameworks count the machine's cores, not the notebook's; more threads than cores only wait for each other.
        "OMP_NUM_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
    }


def _source(location: VolumeLocation) -> str:
    relative = location.path.removeprefix(location.mount_point).strip("/")
    return f"{location.root}/{relative}".rstrip("/")
