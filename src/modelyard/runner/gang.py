"""How the processes of one script find each other: the wait for all instances, and the variables that frameworks read.

PyTorch's are those of `torch.distributed.init_process_group("env://")` and of torchrun; TensorFlow's is TF_CONFIG, as
`tf.distribute.MultiWorkerMirroredStrategy` reads it.
"""

from __future__ import annotations

import os
import time

from modelyard.runner import jsons
from modelyard.runner.light import NamedTuple
from modelyard.runner.outcomes import INTERNAL, StepFailed
from modelyard.runner.plan import PYTHON, Gang, Main
from modelyard.runner.stop import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MASTER, WORKER = "master", "worker"
"""The ports that each instance has: one for PyTorch's store, in use on the first instance alone, and one for TensorFlow's server."""

_POLL_SECONDS = 0.02
_INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")


class Address(NamedTuple):
    """Where an instance is."""

    host: str
    master_port: int
    worker_port: int
    interface: str | None


def meet(gang: Gang, stop: Stop) -> list[Address]:
    """Wait until the platform says that all are ready; where they are, in order. Raises `Stopped`, and `StepFailed` for what can't be read."""
    while True:
        stop.check()
        try:
            with open(gang.peers_path, encoding="utf-8") as file:
                return _addresses(file.read(), gang)
        except FileNotFoundError:
            time.sleep(_POLL_SECONDS)


def joined(main: Main, gang: Gang, addresses: list[Address]) -> Main:
    """The process as a part of the gang: through torchrun where that is wanted, and with the variables that tell it its place."""
    index, first = int(gang.node), addresses[0]
    env = {**main.env, "MASTER_ADDR": first.host, "MASTER_PORT": str(first.master_port), "NODE_RANK": gang.node}
    if index:
        env.update({name: f"{env[name]}/instance-{index}" for name in gang.shared})
    if addresses[index].interface is not None:
        env = {**dict.fromkeys(_INTERFACE_VARIABLES, addresses[index].interface), **env}
    if gang.processes:  # torchrun gives each of its processes the rest
        return main._replace(argv=_torchrun(main.argv, gang, first), env=env)
    cluster = [f"{address.host}:{address.worker_port}" for address in addresses]
    env.update(
        RANK=gang.node,
        WORLD_SIZE=str(gang.size),
        LOCAL_RANK="0",
        LOCAL_WORLD_SIZE="1",
        TF_CONFIG=jsons.dumps({"cluster": {"worker": cluster}, "task": {"type": "worker", "index": index}}),
    )
    return main._replace(env=env)


def _torchrun(argv: tuple[str, ...], gang: Gang, first: Address) -> tuple[str, ...]:
    """Static rendezvous: the platform has chosen address and port, and all instances start together."""
    script = argv[1:] if argv[0] == PYTHON else ("--no-python", *argv)
    return (
        *(PYTHON, "-m", "torch.distributed.run"),
        *("--nnodes", str(gang.size), "--node-rank", gang.node, "--nproc-per-node", str(gang.processes)),
        *("--master-addr", first.host, "--master-port", str(first.master_port)),
        *script,
    )


def _addresses(text: str, gang: Gang) -> list[Address]:
    try:
        addresses = [_address(peer) for peer in sorted(jsons.loads(text), key=lambda peer: peer["index"])]
    except (ValueError, KeyError, TypeError) as error:
        raise StepFailed(f"The file that says where the instances are can't be read: {error!r}", INTERNAL) from error
    if len(addresses) != gang.size:
        name = os.path.basename(gang.peers_path)
        raise StepFailed(f"{name} tells of {len(addresses)} instances, not of {gang.size}.", INTERNAL)
    return addresses


def _address(peer: dict[str, Any]) -> Address:
    ports = peer["ports"]
    return Address(str(peer["host"]), int(ports[MASTER]), int(ports[WORKER]), peer.get("interface"))
