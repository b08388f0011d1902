"""How a model on a stage becomes a workload, and a stage a route. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from modelyard.compute.port import CACHE, LIBRARY, ROOT, RUN, RUNNER, WORKSPACE
from modelyard.resources.endpoints.model import (
    DEFAULT_RESOURCE_PATH,
    DEFAULT_STAGE_NAME,
    ENDPOINT_KIND,
    STAGE_KIND,
    EndpointModelSpec,
)
from modelyard.resources.endpoints.resource_option import ResourceOption, cpus_of, memory_of
from modelyard.resources.flavors.model import Flavor
from modelyard.resources.models.schemas import MAX_WORKERS, ServingOptions
from modelyard.resources.routes.model import RouteSpec, RuleSpec, UpstreamSpec
from modelyard.resources.storages.model import Location, ObjectLocation
from modelyard.resources.workloads.model import (
    TOKEN,
    CommandSpec,
    EnvironmentSpec,
    LimitsSpec,
    LogSpec,
    MountSpec,
    Workload,
    WorkloadSpec,
)
from modelyard.runner.plan import PYTHON, Fetch, Main, Plan

_SOCKET = "http"
_READY_PATH = "/v2/health/ready"
_DRAIN_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """How model servers run.

    Attributes:
        max_body_bytes: a larger request is answered 413.
        deadline_seconds: a slower prediction is answered 504.
        start_seconds: a server that has never been ready after so long is given up.
        silent_seconds: one that was ready and has not been for so long is started again.
    """

    max_body_bytes: int = 64 * 2**20
    deadline_seconds: float = 60.0
    start_seconds: float = 3600.0
    silent_seconds: float = 60.0


def serving_workload(
    stage_id: str,
    spec: EndpointModelSpec,
    title: str,
    replicas: int,
    flavor: Flavor,
    environment: EnvironmentSpec,
    image_digest: str,
    artifact: Location,
    settings: ServingSettings,
    log: LogSpec | None = None,
) -> WorkloadSpec:
    """The workload whose instances are the replicas of a model server; with `log` inferences are logged too."""
    model_dir, fetches, mounts = _artifact(artifact)
    cpus, memory_bytes = part_of(flavor, spec.share)
    workers = _worker_count(spec.serving, cpus)
    config = {
        **_serving(spec.serving, settings, is_logged=log is not None),
        "model_dir": model_dir,
        "model_name": spec.model_name,
        "format": spec.format_code,
        "listen": f"{RUN}/{_SOCKET}.sock",
        "cpus": cpus,
        "workers": workers,
        "memory_bytes": memory_bytes,
        "drain_seconds": _DRAIN_SECONDS,
        "report_path": f"{RUN}/report.json",
        "work_dir": WORKSPACE,
        "cache_dir": CACHE,
        "parameters": dict(spec.parameters),
    }
    plan = Plan(
        main=Main(
            argv=(PYTHON, "-m", "modelyard.serving", "--config", f"{RUN}/serving.json"),
            env={"PYTHONPATH": LIBRARY, **{_variable(name): value for name, value in spec.parameters}},
            cwd=WORKSPACE,
        ),
        fetches=fetches,
        image_digest=image_digest,
        cache_dir=CACHE,
        token=TOKEN,
        report_path=f"{RUN}/report.json",
        replace_process=True,
    )
    return WorkloadSpec(
        owner_kind=STAGE_KIND,
        owner_id=stage_id,
        role="model-server",
        title=title,
        instances=replicas,
        limits=LimitsSpec(cpus=cpus, memory_bytes=memory_bytes, pids=flavor.pids, gpus=flavor.gpus),
        environment=environment,
        command=CommandSpec(
            argv=(*RUNNER, f"{RUN}/plan.json"),
            files={"plan.json": plan.to_json(), "serving.json": json.dumps(config, ensure_ascii=False)},
        ),
        mounts=mounts,
        socket=_SOCKET,
        more_sockets=tuple(f"{_SOCKET}{index}" for index in range(1, workers)),
        ready_path=_READY_PATH,
        ready_seconds=settings.start_seconds,
        silent_seconds=settings.silent_seconds,
        grace_seconds=_DRAIN_SECONDS + 10.0,
        restart="always",
        ends_as_one=not spec.serving.converts_to_onnx,  # a conversion that takes too much memory goes alone
        log=log,
    )


def addresses_of(workload: Workload | None, count: int, waiting: str | None) -> tuple[str, ...]:
    """Where a model's requests go: to the first `count` model servers as far as they are ready, else to where they wait, where they may."""
    ready = () if workload is None else workload.ready_addresses_of(count)
    return ready or (() if waiting is None else (waiting,))


def inference_log(endpoint_id: str, stage_id: str, model_name: str) -> LogSpec:
    """Under which fields a model server's output goes to the log store."""
    fields = {"endpointId": endpoint_id, "endpointStageId": stage_id, "modelName": model_name}
    return LogSpec(category="easymaker.inference", fields=fields)


def stage_route(
    stage_id: str,
    title: str,
    prefix: str,
    models: Sequence[tuple[str, EndpointModelSpec]],
    addresses: Mapping[str, tuple[str, ...]],
    settings: ServingSettings,
    labels: dict[str, str],
    waiting_seconds: float = 0.0,
) -> RouteSpec:
    """The route of one stage; `waiting_seconds` is how long a request may wait for a model that rests."""
    return RouteSpec(
        owner_kind=STAGE_KIND,
        owner_id=stage_id,
        title=title,
        prefix=prefix,
        rules=_rules([models]),
        upstreams=tuple(UpstreamSpec(name=model_id, addresses=addresses[model_id]) for model_id, _ in models),
        timeout_seconds=max(_deadline_seconds(spec.serving, settings) for _, spec in models) + 5.0 + waiting_seconds,
        max_body_bytes=settings.max_body_bytes,
        labels=labels,
    )


def _serving(options: ServingOptions, settings: ServingSettings, *, is_logged: bool) -> dict[str, object]:
    """The options as the model server's configuration has them."""
    return {
        "max_body_bytes": settings.max_body_bytes,
        "deadline_seconds": _deadline_seconds(options, settings),
        "queue_size": options.queue_size,
        "max_batch_size": options.max_batch_size,
        "max_batch_delay_ms": options.max_batch_delay_milliseconds,
        "log_sample_rate": options.log_sample_rate if is_logged else 0,
        "log_max_bytes": options.log_max_bytes,
        "converts_to_onnx": options.converts_to_onnx,
    }


def part_of(flavor: Flavor, share: ResourceOption | None) -> tuple[float, int]:
    """Cores, and bytes of memory, that a model server gets of an instance type."""
    cpus = flavor.vcpus if share is None or share.cpu is None else cpus_of(share.cpu)
    memory_bytes = flavor.memory_bytes if share is None or share.memory is None else memory_of(share.memory)
    return cpus, memory_bytes


def _worker_count(options: ServingOptions, cpus: float) -> int:
    """How many processes a model server may have: one for each core, unless requests are to be joined, which is done within one."""
    if options.worker_count is not None:
        return options.worker_count
    return 1 if options.max_batch_size > 1 else max(1, min(MAX_WORKERS, int(cpus)))


def _deadline_seconds(options: ServingOptions, settings: ServingSettings) -> float:
    return options.deadline_seconds or settings.deadline_seconds


@dataclass(frozen=True, slots=True)
class Part:
    """A stage's part of an endpoint's requests: its models, the addresses that answer for each, and how long a request may wait for one that
    rests."""

    weight: int
    models: Sequence[tuple[str, EndpointModelSpec]]
    addresses: Mapping[str, tuple[str, ...]]
    waiting_seconds: float = 0.0


def endpoint_route(
    endpoint_id: str, title: str, prefix: str, parts: Sequence[Part], settings: ServingSettings
) -> RouteSpec:
    """The route of an endpoint, which stays when its default stage changes.

    It answers at `{prefix}` and, since that is the address that clients were given for the first stage, at `{prefix}/default`. `parts` are
    the stages that share the requests, the default one first: what no resource path or model name decides goes there.
    """
    stages = [part.models for part in parts]
    return RouteSpec(
        owner_kind=ENDPOINT_KIND,
        owner_id=endpoint_id,
        title=title,
        prefix=prefix,
        rules=(*_rules(stages, f"/{DEFAULT_STAGE_NAME}"), *_rules(stages)),
        upstreams=tuple(
            UpstreamSpec(name=model_id, addresses=part.addresses[model_id], weight=part.weight)
            for part in parts
            for model_id, _ in part.models
        ),
        timeout_seconds=max(_deadline_seconds(spec.serving, settings) for models in stages for _, spec in models)
        + 5.0
        + max(part.waiting_seconds for part in parts),
        max_body_bytes=settings.max_body_bytes,
        labels={"endpoint": endpoint_id},
    )


def resource_path(spec: EndpointModelSpec, models_count: int) -> str | None:
    """The path that a model answers on, on a stage with so many models; None when it is only found by its name."""
    return spec.resource_path or (DEFAULT_RESOURCE_PATH if models_count == 1 else None)


def _rules(stages: Sequence[Sequence[tuple[str, EndpointModelSpec]]], base: str = "") -> tuple[RuleSpec, ...]:
    """Each model's own resource path, and the paths that every client version uses (sdk-contract §8.5)."""
    by_path: dict[str, list[str]] = {}
    by_name: dict[str, list[str]] = {}
    for models in stages:
        for endpoint_model_id, spec in models:
            path = resource_path(spec, len(models))
            if path is not None:
                by_path.setdefault(path, []).append(endpoint_model_id)
            by_name.setdefault(quote(spec.model_name, safe=""), []).append(endpoint_model_id)
    # A model server has one model, so its `/predict` needs no name: stages that share a path may serve models of different names.
    rules = [RuleSpec(path=base + path, upstreams=tuple(ids), rewrite="/predict") for path, ids in by_path.items()]
    rest = (stages[0][0][0],)
    for name, ids in by_name.items():
        if tuple(ids) == rest:
            continue  # the rule for the rest leads there just so, and each rule costs the gateway time with every change
        exact = (f"/v1/models/{name}:predict", f"/v1/models/{name}:explain")
        below = _own_paths(name)
        rules.extend(RuleSpec(path=base + path, upstreams=tuple(ids), rewrite=path) for path in exact)
        rules.extend(RuleSpec(path=base + path, upstreams=tuple(ids), is_prefix=True, rewrite=path) for path in below)
    if len(by_name) > 1:  # each model server knows of its own model alone
        names = sorted({spec.model_name for models in stages for _, spec in models})
        answer = json.dumps({"models": names}, ensure_ascii=False, separators=(",", ":"))
        rules.append(RuleSpec(path=base + "/v1/models", upstreams=(), methods=("GET", "HEAD"), answer=answer))
    rules.append(RuleSpec(path=base + "/", upstreams=rest, is_prefix=True, rewrite="/"))
    return tuple(rules)


def model_paths(name: str) -> tuple[str, ...]:
    """The paths that a model has at its stage by its name, whatever its resource path; what is below them is its too."""
    return _own_paths(quote(name, safe=""))


def _own_paths(quoted: str) -> tuple[str, ...]:
    return f"/v1/models/{quoted}", f"/v2/models/{quoted}", f"/{quoted}/v1", f"/{quoted}/v2"


def _artifact(location: Location) -> tuple[str, tuple[Fetch, ...], tuple[MountSpec, ...]]:
    """Where the artifact is inside, and what brings it there."""
    if isinstance(location, ObjectLocation):
        target = f"{WORKSPACE}/model"
        fetch = Fetch(target=target, label=location.label, container_url=location.container_url, prefix=location.prefix)
        return target, (fetch,), ()
    mount = MountSpec(source=location.root, target=location.mount_point, read_only=True)
    return ROOT + location.path, (), (mount,)


def _variable(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name).upper()
