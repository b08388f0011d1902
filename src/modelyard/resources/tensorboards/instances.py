"""How a TensorBoard becomes a workload and a route. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from modelyard.compute.port import LIBRARY, ROOT, RUN, Environment
from modelyard.resources.metrics.model import EventFiles
from modelyard.resources.routes.model import AccessSpec, RouteSpec, RuleSpec, UpstreamSpec
from modelyard.resources.sessions.origins import Place
from modelyard.resources.tensorboards.model import KIND, Owner, OwnerKind
from modelyard.resources.workloads.model import CommandSpec, EnvironmentSpec, LimitsSpec, MountSpec, WorkloadSpec

VIEW = "view"
"""The directory in an experiment's event files that has a link for each training, under the training's name."""

_SOCKET = "http"
_READY_PATH = "/data/environment"
_MOUNT = "/mnt/runs"
_LIMITS = LimitsSpec(cpus=1.0, memory_bytes=2**30, pids=256)
_MAX_NAME_BYTES = 200


@cache
def environment() -> Environment:
    """TensorBoard and nothing else."""
    lines = Path(__file__).with_name("lock.txt").read_text().splitlines()
    return Environment(name="TensorBoard 2.21", python="3.11", requirements=tuple(line for line in lines if line))


def view_workload(id: str, owner: Owner, files: EventFiles, path_prefix: str) -> WorkloadSpec:
    """The workload: sees the event files of its owner, and can't write there."""
    known = environment()
    if owner.kind is OwnerKind.TRAINING:
        source, target = (
            files.of_training(owner.experiment_id, owner.id),
            f"{_MOUNT}/{run_names({owner.id: owner.name})[owner.id]}",
        )
        logdir = _MOUNT
    else:
        source, target = files.of_experiment(owner.id), _MOUNT
        logdir = f"{_MOUNT}/{VIEW}"
    argv = ("{python}", "-m", "modelyard.serving.tensorboard", f"{RUN}/{_SOCKET}.sock", f"{ROOT}{logdir}", path_prefix)
    return WorkloadSpec(
        owner_kind=KIND,
        owner_id=id,
        role=KIND,
        title=owner.title,
        limits=_LIMITS,
        environment=EnvironmentSpec(
            name=known.name, python=known.python, requirements=known.requirements, core_type=known.core_type
        ),
        command=CommandSpec(argv=argv, env={"PYTHONPATH": LIBRARY, "PYTHONUNBUFFERED": "1"}),
        mounts=(MountSpec(source=str(source), target=target, read_only=True),),
        socket=_SOCKET,
        ready_path=path_prefix + _READY_PATH,
        ready_seconds=120.0,
        grace_seconds=2.0,
        restart="always",
    )


def view_route(id: str, owner: Owner, place: Place, addresses: tuple[str, ...]) -> RouteSpec:
    """The route, for signed-in members of the project alone."""
    return RouteSpec(
        owner_kind=KIND,
        owner_id=id,
        title=owner.title,
        host=place.host,
        prefix=place.prefix,
        rules=(RuleSpec(path="/", upstreams=("main",), is_prefix=True),),
        upstreams=(UpstreamSpec(name="main", addresses=addresses),),
        timeout_seconds=0.0,
        labels={"tensorboard": owner.id},
        access=AccessSpec(project_id=owner.project_id, kind=KIND, target_id=owner.id),
    )


def run_names(trainings: Mapping[str, str]) -> dict[str, str]:
    """For each training's id the name of its run: its own name as far as a file can have it, made unique where two would be the same."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for id, name in sorted(trainings.items()):
        plain = name.replace("/", "\N{FRACTION SLASH}").replace("\0", "")
        short = plain.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
        safe = short if short.strip(".") else f"_{short}"
        names[id] = safe if safe not in taken else f"{safe} ({id[-6:]})"
        taken.add(names[id])
    return names
