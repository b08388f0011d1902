"""What a model server is started with."""

from __future__ import annotations

import json

import pytest

from modelyard.kit.clock import utc_now
from modelyard.resources.endpoints.instances import ServingSettings, serving_workload
from modelyard.resources.endpoints.model import EndpointModelSpec
from modelyard.resources.flavors.model import Flavor
from modelyard.resources.models.schemas import ServingOptions
from modelyard.resources.storages.model import VolumeLocation
from modelyard.resources.workloads.instances import FrontDoor, instance_of
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import (
    Desired,
    EnvironmentSpec,
    InstanceSeen,
    Workload,
    WorkloadSpec,
    WorkloadStatus,
)


def spec_of(options: ServingOptions) -> WorkloadSpec:
    model = EndpointModelSpec(
        model_id="m",
        model_name="iris",
        format_code="TENSORFLOW",
        artifact_uri="nas://v:/a",
        image_id="i",
        serving=options,
    )
    return serving_workload(
        "stage", model, "endpoint 'iris'", 1, Flavor(name="c2.c1m1", vcpus=1, ram=1024), EnvironmentSpec(name="e", python="3.11", requirements=()),
        "digest", VolumeLocation("nas://v:/a", "/volumes/v", "/v", "/a"), ServingSettings(),
    )  # fmt: skip


@pytest.mark.parametrize("converts", [True, False])
def test_a_conversion_that_takes_too_much_memory_goes_alone(converts: bool) -> None:
    spec = spec_of(ServingOptions(converts_to_onnx=converts))
    assert spec.command is not None
    assert json.loads(spec.command.files["serving.json"])["converts_to_onnx"] is converts
    item = InstanceSeen(id="w.0.0", index=0, attempt=0)
    workload = Workload(
        id="w", project_id="p", spec=spec, status=WorkloadStatus(), desired=Desired.RUN, state=WorkloadState.STARTING,
        reason=None, message=None, created_at=utc_now(),
    )  # fmt: skip
    assert instance_of(workload, item, "token", FrontDoor()).ends_as_one is not converts
