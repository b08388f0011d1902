"""What a request may ask of torchrun."""

from __future__ import annotations

import pytest

from modelyard.resources.flavors.model import Flavor
from modelyard.resources.images.catalog import choose_image, load_catalog
from modelyard.resources.trainings.launch import process_limit, torchrun_faults

CPU = Flavor(name="c2.c2m2", vcpus=2, ram=2048)
GPU = Flavor(name="g1.c8m32", vcpus=8, ram=32768, gpus=4)
HALF = Flavor(name="half", vcpus=0.5, ram=512)


def image(framework: str):
    found = choose_image([image for image in load_catalog() if image.framework == framework], framework)
    assert found is not None
    return found


@pytest.mark.parametrize(("flavor", "most"), [(CPU, 2), (GPU, 4), (HALF, 1)])
def test_processes_are_limited_by_gpus_or_else_cores(flavor: Flavor, most: int) -> None:
    assert process_limit(flavor) == most
    torch = image("PYTORCH")
    for count in (None, 0, 1, most):
        assert list(torchrun_faults(True, count, torch, flavor)) == []
    for count in (-1, most + 1):
        (fault,) = torchrun_faults(True, count, torch, flavor)
        assert fault.field == "nprocPerNode"
        assert f"must be from 1 to {most}" in fault.message


def test_without_torchrun_nothing_is_looked_at() -> None:
    assert list(torchrun_faults(False, 99, image("TENSORFLOW"), CPU)) == []


def test_other_frameworks_are_refused_also_where_the_flavor_is_unknown() -> None:
    for framework in ("TENSORFLOW", "PYTHON"):
        (fault,) = torchrun_faults(True, 99, image(framework), None)
        assert fault.field == "useTorchrun"
        assert f"is for {framework}; choose a PyTorch image, or leave torchrun off" in fault.message
    assert list(torchrun_faults(True, 1, None, None)) == []
