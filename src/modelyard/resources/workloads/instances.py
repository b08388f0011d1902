"""From a workload to the instances that compute is to launch. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from modelyard.compute.port import TOLD, Build, Command, Environment, Instance, Limits, Mount, Network, Peer, Volume
from modelyard.resources.storages.model import DOOR
from modelyard.resources.workloads.model import ATTEMPT, INDEX, TOKEN, InstanceSeen, Workload


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """Where instances find the platform.

    Attributes:
        url: of its REST API.
        addresses, names: see `doors` and `door_names` of `modelyard.compute.port.Instance`.
    """

    url: str = ""
    addresses: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict[str, str])


def instance_of(workload: Workload, item: InstanceSeen, token: str, door: FrontDoor) -> Instance:
    """The instance to launch, with all that is known only now filled in."""
    spec = workload.spec
    environment = None
    if spec.environment is not None:
        environment = Environment(
            spec.environment.name, spec.environment.python, spec.environment.requirements, spec.environment.core_type
        )
    task: Command | Build = Build()
    if spec.command is not None:
        fill = _filler({TOKEN: token, DOOR: door.url, INDEX: str(item.index), ATTEMPT: str(item.attempt)})
        files = {name: fill(text) for name, text in spec.command.files.items()}
        task = Command(
            argv=tuple(fill(argument) for argument in spec.command.argv),
            env={name: fill(value) for name, value in spec.command.env.items()},
            files=files if spec.told is None else {**files, TOLD: spec.told},
        )
    return Instance(
        id=item.id,
        workload_id=workload.id,
        index=item.index,
        attempt=item.attempt,
        project_id=workload.project_id,
        role=spec.role,
        task=task,
        limits=Limits(**spec.limits.model_dump()),
        environment=environment,
        mounts=tuple(Mount(mount.source, mount.target, mount.read_only) for mount in spec.mounts),
        sockets=(spec.socket, *spec.more_sockets) if spec.socket else (),
        ports=spec.ports,
        grace_seconds=spec.grace_seconds,
        timeout_seconds=_seconds_left(workload),
        volumes=tuple(Volume(volume.id, volume.target, volume.size_bytes) for volume in spec.volumes),
        boot_bytes=spec.boot_bytes,
        has_own_network=spec.has_own_network,
        doors=door.addresses,
        door_names=door.names,
        ends_as_one=spec.ends_as_one,
        account=spec.account,
        title=spec.title,
    )


def peers_of(items: Sequence[InstanceSeen]) -> list[Peer]:
    """Where the instances are, for each other."""
    return [
        Peer(item.index, Network(item.network.host, item.network.ports, item.network.interface))
        for item in items
        if item.network is not None
    ]


def _seconds_left(workload: Workload) -> float | None:
    """The time limit is that of all attempts together."""
    limit_seconds = workload.spec.timeout_seconds
    return None if limit_seconds is None else max(1.0, limit_seconds - workload.status.used_seconds)


def _filler(values: Mapping[str, str]) -> Callable[[str], str]:
    def _fill(text: str) -> str:
        for name, value in values.items():
            text = text.replace(name, value)
        return text

    return _fill
