"""Which ways to launch a training are possible. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.kit.errors import Fault
from modelyard.resources.flavors.model import Flavor
from modelyard.resources.images.catalog import CatalogImage

_TORCHRUN_FRAMEWORK = "PYTORCH"


def torchrun_faults(
    use_torchrun: bool, nproc_per_node: int | None, image: CatalogImage | None, flavor: Flavor | None
) -> Iterator[Fault]:
    """What is wrong about torchrun and its processes; image and flavor as far as they are known.

    Clients before 2.1 send 0 for no number of processes. Without torchrun the number has no effect, and is not looked at.
    """
    if not use_torchrun:
        return
    if image is not None and image.framework != _TORCHRUN_FRAMEWORK:
        yield Fault(
            "useTorchrun",
            f"torchrun is a part of PyTorch, and the image '{image.name}' is for {image.framework}; choose a PyTorch image, or leave torchrun off",
        )
    if not nproc_per_node or flavor is None:
        return
    most = process_limit(flavor)
    if not 1 <= nproc_per_node <= most:
        yield Fault(
            "nprocPerNode",
            f"must be from 1 to {most}, one for each {'GPU' if flavor.gpus else 'core'} of the instance type '{flavor.name}', "
            f"not {nproc_per_node}",
        )


def process_limit(flavor: Flavor) -> int:
    """How many processes of a script an instance of this type runs at most: as many as it has GPUs, else cores."""
    return flavor.gpus or max(1, int(flavor.vcpus))
