"""How a training becomes a workload: the runner's plan, the variables of the script, the mounts.

Pure. The variables are those of the guide's appendix (mission row T18); a script finds everything through them and nothing by a path
that it would have to know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from modelyard.compute.port import CACHE, DATA, ROOT, RUN, RUNNER, WORKSPACE
from modelyard.kit.names import environment_suffix
from modelyard.resources.flavors.model import Flavor
from modelyard.resources.projects.model import Project
from modelyard.resources.storages.model import Location, ObjectLocation
from modelyard.resources.trainings.model import TrainingSpec
from modelyard.resources.trainings.provenance import DATASET, SOURCE
from modelyard.resources.workloads.model import (
    ATTEMPT,
    INDEX,
    TOKEN,
    CommandSpec,
    EnvironmentSpec,
    LimitsSpec,
    LogSpec,
    MountSpec,
    WorkloadSpec,
)
from modelyard.runner.gang import MASTER, WORKER
from modelyard.runner.outcomes import BEFORE_THE_SCRIPT
from modelyard.runner.plan import ALWAYS, ON_SUCCESS, PYTHON, Fetch, Gang, Look, Main, Plan, Required, Resume, Upload

TRUST_MOUNT = "/mnt/trust"
TENSORBOARD_MOUNT = "/mnt/tensorboard"
SNAPSHOT_MOUNT = "/mnt/source"
_CHECKPOINT_SYNC_SECONDS = 10.0
_STORE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Site:
    """What an installation tells every instance: the region, the front door as instances reach it, and the directory with `bundle.pem`,
    by which its certificate is trusted (None: by whatever trusts its issuer)."""

    region: str
    door_url: str
    trust_directory: str | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """Where the storage paths of a training lead. `snapshot` is the directory of the source that the platform has kept, to be used instead."""

    source: Location | None
    model: Location
    datasets: dict[str, Location] = field(default_factory=dict[str, Location])
    checkpoint: Location | None = None
    checkpoint_input: Location | None = None
    snapshot: str | None = None


@dataclass(slots=True)
class _Layout:
    """Collects what places mean for the instance while they are walked."""

    fetches: list[Fetch] = field(default_factory=list[Fetch])
    uploads: list[Upload] = field(default_factory=list[Upload])
    mounts: dict[str, MountSpec] = field(default_factory=dict[str, MountSpec])
    looks: list[Look] = field(default_factory=list[Look])

    def source(self, places: Places, label: str) -> str:
        """The path inside at which the source is found."""
        target = f"{WORKSPACE}/source"
        if places.snapshot is not None:
            self.mount(places.snapshot, SNAPSHOT_MOUNT, read_only=True)
            self.fetches.append(Fetch(target=target, label=label, path=ROOT + SNAPSHOT_MOUNT))
        elif places.source is not None:
            return self.input(places.source, "source", record=SOURCE)
        return target

    def input(self, location: Location, name: str, *, record: str = "", is_required: bool = True) -> str:
        """The path inside at which the content of a place is found."""
        if isinstance(location, ObjectLocation):
            target = f"{WORKSPACE}/{name}"
            self.fetches.append(
                Fetch(
                    target=target,
                    label=location.label,
                    container_url=location.container_url,
                    prefix=location.prefix,
                    is_required=is_required,
                    record=record,
                )
            )
            return target
        self.mount(location.root, location.mount_point, read_only=True)
        if record:
            self.looks.append(Look(record, ROOT + location.path))
        return ROOT + location.path

    def output(self, location: Location, name: str, *, on: str = ON_SUCCESS, sync_seconds: float | None = None) -> str:
        """The path inside whose content ends up at a place."""
        target = f"{WORKSPACE}/{name}"
        if isinstance(location, ObjectLocation):
            upload = Upload(
                source=target,
                label=location.label,
                container_url=location.container_url,
                prefix=location.prefix,
                sync_seconds=sync_seconds,
                on=on,
            )
        else:
            self.mount(location.root, location.mount_point, read_only=False)
            upload = Upload(
                source=target, label=location.label, path=ROOT + location.path, sync_seconds=sync_seconds, on=on
            )
        self.uploads.append(upload)
        return target

    def mount(self, root: str, target: str, *, read_only: bool) -> None:
        """Show a directory of the host inside; writable when anybody needs it so."""
        known = self.mounts.get(target)
        self.mounts[target] = MountSpec(
            source=root, target=target, read_only=read_only and (known is None or known.read_only)
        )


def training_workload(
    training_id: str,
    name: str,
    experiment_id: str | None,
    spec: TrainingSpec,
    project: Project,
    flavor: Flavor,
    environment: EnvironmentSpec,
    image_digest: str,
    places: Places,
    site: Site,
    tensorboard_directory: str,
    grace_seconds: float,
) -> WorkloadSpec:
    """The workload that runs a training."""
    layout = _Layout()
    source_dir = layout.source(places, spec.source_uri or f"source snapshot {spec.source_snapshot_id}")
    dataset_dirs = {
        dataset.name: layout.input(
            places.datasets[dataset.name], f"data/{environment_suffix(dataset.name)}", record=DATASET + dataset.name
        )
        for dataset in spec.datasets
    }
    model_dir = layout.output(places.model, "model")
    env = _identity(project, site, training_id, experiment_id)
    env |= _script_variables(spec, source_dir, dataset_dirs, model_dir)
    # Frameworks count the machine's cores, not the instance's; more threads than cores only wait for each other.
    threads = max(1, round(flavor.vcpus / process_count(spec)))
    env["OMP_NUM_THREADS"] = env["TF_NUM_INTRAOP_THREADS"] = str(threads)
    env["EM_CHECKPOINT_DIR"] = f"{WORKSPACE}/checkpoint"
    if places.checkpoint is not None:
        # What is there already comes first, so that a training that goes on, or is started again, finds its own checkpoints.
        _fetch_checkpoints(layout, places.checkpoint, "checkpoint", is_required=False)
        layout.output(places.checkpoint, "checkpoint", on=ALWAYS, sync_seconds=_CHECKPOINT_SYNC_SECONDS)
    if places.checkpoint_input is not None:
        env["EM_CHECKPOINT_INPUT_DIR"] = _fetch_checkpoints(
            layout, places.checkpoint_input, "checkpoint-input", is_required=True
        )
    if site.trust_directory is not None:
        layout.mounts[TRUST_MOUNT] = MountSpec(source=site.trust_directory, target=TRUST_MOUNT, read_only=True)
        env["REQUESTS_CA_BUNDLE"] = env["SSL_CERT_FILE"] = f"{ROOT}{TRUST_MOUNT}/bundle.pem"
    layout.mounts[TENSORBOARD_MOUNT] = MountSpec(source=tensorboard_directory, target=TENSORBOARD_MOUNT)
    plan = Plan(
        main=Main(argv=_argv(spec, source_dir), env=env, cwd=source_dir),
        fetches=tuple(layout.fetches),
        looks=tuple(layout.looks),
        must_exist=(
            Required(
                f"{source_dir}/{spec.entry_point}", f"the entry point '{spec.entry_point}' is not in {spec.source_uri}"
            ),
        ),
        requirements=f"{source_dir}/requirements.txt",
        directories=(env["EM_CHECKPOINT_DIR"],),
        image_digest=image_digest,
        cache_dir=CACHE,
        data_storage=WORKSPACE,
        data_storage_gib=spec.data_storage_gib or 0,
        data_cache=DATA,
        data_door=f"{RUN}/data.sock",
        uploads=tuple(layout.uploads),
        token=TOKEN,
        report_path=f"{RUN}/report.json",
        grace_seconds=grace_seconds,
        retry_seconds=_STORE_SECONDS,
        gang=_gang(spec),
        resume=None
        if places.checkpoint is None
        else Resume(attempt=ATTEMPT, variable="EM_CHECKPOINT_INPUT_DIR", directory=env["EM_CHECKPOINT_DIR"]),
    )
    return WorkloadSpec(
        owner_kind="training",
        owner_id=training_id,
        role="training",
        title=f"training '{name}'",
        instances=spec.instance_count,
        limits=LimitsSpec(
            cpus=flavor.vcpus,
            memory_bytes=flavor.memory_bytes,
            pids=flavor.pids,
            gpus=flavor.gpus,
            storage_bytes=None if spec.data_storage_gib is None else spec.data_storage_gib * 2**30,
        ),
        environment=environment,
        command=CommandSpec(argv=(*RUNNER, f"{RUN}/plan.json"), files={"plan.json": plan.to_json()}),
        mounts=tuple(layout.mounts.values()),
        # After the script's own grace the runner still saves checkpoints.
        grace_seconds=grace_seconds + _STORE_SECONDS,
        timeout_seconds=spec.timeout_minutes * 60.0,
        failure_restarts=spec.max_restart_count,
        fatal_codes=BEFORE_THE_SCRIPT,
        ports=() if plan.gang is None else (MASTER, WORKER),
        log=LogSpec(category="easymaker.training", fields={"trainingId": training_id}) if spec.use_log else None,
    )


def process_count(spec: TrainingSpec) -> int:
    """How many processes of the script an instance runs."""
    return (spec.nproc_per_node or 1) if spec.use_torchrun else 1


def _gang(spec: TrainingSpec) -> Gang | None:
    """A single process is left alone: variables of a gang of one would make some frameworks start in another way."""
    if spec.instance_count == 1 and not spec.use_torchrun:
        return None
    return Gang(
        node=INDEX,
        size=spec.instance_count,
        peers_path=f"{RUN}/peers.json",
        processes=process_count(spec) if spec.use_torchrun else 0,
        shared=("EM_TENSORBOARD_LOG_DIR",),
    )


def _identity(project: Project, site: Site, training_id: str, experiment_id: str | None) -> dict[str, str]:
    """What the official client needs to work inside without `init()`."""
    env = {
        "EM_REGION": site.region,
        "EM_APPKEY": project.app_key,
        "EM_API_URL": site.door_url,
        "EM_TOKEN": TOKEN,
        "EM_GROUP_ID": project.tenant_id,
        "EM_TRAINING_ID": training_id,
    }
    if experiment_id is not None:
        env["EM_EXPERIMENT_ID"] = experiment_id
    return env


def _script_variables(
    spec: TrainingSpec, source_dir: str, dataset_dirs: dict[str, str], model_dir: str
) -> dict[str, str]:
    hyperparameters = {item.name: item.value for item in spec.parameters}
    env = {
        "EM_SOURCE_DIR": source_dir,
        "EM_ENTRY_POINT": spec.entry_point,
        "EM_MODEL_DIR": model_dir,
        "EM_TENSORBOARD_LOG_DIR": ROOT + TENSORBOARD_MOUNT,
        "EM_DATASETS": json.dumps(dataset_dirs, ensure_ascii=False),
        "EM_HPS": json.dumps(hyperparameters, ensure_ascii=False),
    }
    env |= {f"EM_DATASET_{environment_suffix(name)}": path for name, path in dataset_dirs.items()}
    env |= {f"EM_HP_{environment_suffix(name)}": value for name, value in hyperparameters.items()}
    return env


def _argv(spec: TrainingSpec, source_dir: str) -> tuple[str, ...]:
    interpreter = "/bin/bash" if spec.entry_point.endswith(".sh") else PYTHON
    argv = [interpreter, f"{source_dir}/{spec.entry_point}"]
    for item in spec.parameters:
        argv += [f"--{item.name}", item.value]
    return tuple(argv)


def _fetch_checkpoints(layout: _Layout, location: Location, name: str, *, is_required: bool) -> str:
    """Bring the newest complete checkpoint, also from a volume: what lies there may just be changing. The path inside."""
    target = f"{WORKSPACE}/{name}"
    fetch = Fetch(target=target, label=location.label, is_required=is_required, is_checkpoint=True)
    if isinstance(location, ObjectLocation):
        fetch = fetch._replace(container_url=location.container_url, prefix=location.prefix)
    else:
        layout.mount(location.root, location.mount_point, read_only=True)
        fetch = fetch._replace(path=ROOT + location.path)
    layout.fetches.append(fetch)
    return target
