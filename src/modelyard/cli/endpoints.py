"""`modelyard endpoint …` and predictions."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli import keys, options
from modelyard.cli.options import names_of, pairs
from modelyard.cli.session import Session, say, session_of
from modelyard.cli.trainings import EVENT_COLUMNS

if TYPE_CHECKING:
    from modelyard.resources.endpoints.schemas import EndpointOut
    from modelyard.sdk.groups.endpoints import Served

app = typer.Typer(help="Endpoints: models behind a URL.", no_args_is_help=True)
app.add_typer(keys.app, name="key")

COLUMNS = (
    ("ID", "endpointId"),
    ("NAME", "endpointName"),
    ("STATE", "endpointStatusCode"),
    ("GATEWAY", "apigwStatusCode"),
    ("STAGES", "endpointStageList"),
    ("URL", "defaultStageUrl"),
    ("CREATED", "createdDatetime"),
)
TRAFFIC_COLUMNS = (
    ("SINCE", "since"),
    ("STAGES", "stageList"),
    ("WEIGHTS", "stageList.weight"),
    ("MODELS", "stageList.modelList.modelName"),
    ("ARTIFACTS", "stageList.modelList.modelUploadUri"),
)
CALL_COLUMNS = (
    ("TIME", "time"),
    ("CALLS", "callsCount"),
    ("2XX", "successCount"),
    ("4XX", "clientErrorCount"),
    ("5XX", "serverErrorCount"),
    ("P50 MS", "latencyP50Milliseconds"),
    ("P99 MS", "latencyP99Milliseconds"),
    ("AT ONCE", "activeMax"),
    ("MIRRORED", "mirroredCount"),
    ("NO KEY", "keyRefusedCount"),
    ("OVER RATE", "rateRefusedCount"),
    ("TOO LARGE", "sizeRefusedCount"),
    ("ADDRESS", "addressRefusedCount"),
)
Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        metavar="MODEL[=PATH]",
        help="Model (name or id) and the path that it answers on, e.g. iris=/inference; may be repeated.",
        autocompletion=names_of("models"),
    ),
]
ServingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--serving-option",
        metavar="KEY=VALUE",
        help="How the models of the stage answer: max_batch_size, max_batch_delay_milliseconds, queue_size, deadline_seconds, "
        "log_sample_rate, log_max_bytes, worker_count, converts_to_onnx; may be repeated.",
    ),
]
Nodes = Annotated[int, typer.Option("--nodes", min=1, max=10, help="How many model servers share the requests.")]
Log = Annotated[bool, typer.Option("--log", help="Keep requests and answers searchable in the log service.")]


@app.command()
def create(
    context: typer.Context,
    name: options.Name,
    model: Models,
    flavor: options.Flavor,
    nodes: Nodes = 1,
    serving_option: ServingOption = None,
    log: Log = False,
    description: options.Description = None,
    tag: options.Tags = None,
    idempotency_key: options.IdempotencyKey = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
) -> None:
    """Create an endpoint with its default stage."""
    session = session_of(context)
    made = session.client.endpoints.create(
        name,
        models=models_of(model, serving_option),
        flavor=flavor,
        node_count=nodes,
        use_log=log,
        description=description,
        tags=pairs(tag, "--tag"),
        idempotency_key=idempotency_key,
    )
    session.show_one(_waited(session, made.id, name, timeout) if wait else made)


@app.command("list")
def list_(context: typer.Context, page: options.Page = 1, limit: options.Limit = None) -> None:
    """List endpoints, newest first."""
    session = session_of(context)
    session.show_many(session.client.endpoints.list(page=page, limit=limit), COLUMNS)


@app.command()
def get(context: typer.Context, endpoint: options.Endpoint) -> None:
    """Show an endpoint."""
    session = session_of(context)
    session.show_one(session.client.endpoints.get(endpoint))


@app.command()
def update(
    context: typer.Context,
    endpoint: options.Endpoint,
    name: options.NewName = None,
    description: options.Description = None,
    tag: options.Tags = None,
) -> None:
    """Change name, description or tags."""
    session = session_of(context)
    tags = pairs(tag, "--tag")
    session.show_one(session.client.endpoints.update(endpoint, name=name, description=description, tags=tags))


@app.command()
def delete(
    context: typer.Context, endpoint: options.Endpoint, wait: options.WaitGone = False, timeout: options.Timeout = None
) -> None:
    """Delete an endpoint that has only its default stage."""
    session_of(context).client.endpoints.delete(endpoint, wait=wait, timeout_seconds=timeout)
    say(f"endpoint '{endpoint}' is {'' if wait else 'being '}deleted")


@app.command()
def wait(context: typer.Context, endpoint: options.Endpoint, timeout: options.Timeout = None) -> None:
    """Wait until an endpoint and its default stage are ACTIVE."""
    session = session_of(context)
    session.show_one(_waited(session, endpoint, endpoint, timeout))


@app.command()
def events(context: typer.Context, endpoint: options.Endpoint) -> None:
    """Show how an endpoint came to its state."""
    session = session_of(context)
    session.show_many(session.client.endpoints.events(endpoint), EVENT_COLUMNS)


@app.command()
def predict(
    context: typer.Context,
    endpoint: options.Endpoint,
    data: Annotated[str, typer.Option("--data", "-d", help="The request: JSON, @FILE, or - for stdin.")],
    stage: Annotated[str | None, typer.Option(help="Another stage than the default one.")] = None,
    model: Annotated[str | None, typer.Option(help="Which model, where the stage has several.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the answer.")] = 60.0,
    api_key: Annotated[
        str | None, typer.Option("--api-key", help="The API key, or @FILE, where the stage asks for one.")
    ] = None,
) -> None:
    """Call a model, e.g. --data '{"instances": [[5.1, 3.5, 1.4, 0.2]]}'."""
    session = session_of(context)
    body = _request_of(data)
    answer = session.client.endpoints.predict(
        endpoint, body, stage=stage, model=model, timeout_seconds=timeout, api_key=_key_of(api_key)
    )
    session.show_json(answer)


@app.command("default-stage")
def default_stage(
    context: typer.Context,
    endpoint: options.Endpoint,
    stage: Annotated[str, typer.Argument(help="Name or id of the stage that takes over.")],
    keep: Annotated[
        int,
        typer.Option("--keep-minutes", min=0, help="Keep the old one so long, so that `revert` can take this back."),
    ] = 0,
    weaker: Annotated[
        bool,
        typer.Option("--allow-weaker", help="Also when it asks for no API key or listed address, as the old one does."),
    ] = False,
) -> None:
    """Make another stage the default one, without a failed request; the old one is deleted."""
    session = session_of(context)
    changed = session.client.endpoints.change_default_stage(endpoint, stage, keep_minutes=keep, allow_weaker=weaker)
    session.show_one(changed)


@app.command()
def revert(context: typer.Context, endpoint: options.Endpoint) -> None:
    """Take the last change of the default stage back, while the former one is kept."""
    session = session_of(context)
    session.show_one(session.client.endpoints.revert_default_stage(endpoint))


@app.command()
def split(
    context: typer.Context,
    endpoint: options.Endpoint,
    share: Annotated[list[str] | None, typer.Argument(help="STAGE=WEIGHT, e.g. default=90 candidate=10.")] = None,
) -> None:
    """Spread an endpoint's requests over stages by weight; without any, all go to the default stage."""
    session = session_of(context)
    session.show_one(session.client.endpoints.split_traffic(endpoint, _weights_of(share or [])))


@app.command()
def traffic(
    context: typer.Context,
    endpoint: options.Endpoint,
    at: Annotated[datetime | None, typer.Option(help="Only what answered at this moment (UTC).")] = None,
) -> None:
    """Show which stages, with which models, answered since when."""
    session = session_of(context)
    moment = None if at is None else at.replace(tzinfo=UTC)
    session.show_many(session.client.endpoints.traffic(endpoint, at=moment), TRAFFIC_COLUMNS)


@app.command()
def statistics(
    context: typer.Context,
    endpoint: options.Endpoint,
    resolution: Annotated[int, typer.Option(help="Seconds: 10, 60 or 3600.")] = 60,
    hours: Annotated[float, typer.Option(min=0.01, help="So far back.")] = 1.0,
) -> None:
    """Show calls, errors and latencies over time."""
    session = session_of(context)
    start = datetime.now(UTC) - timedelta(hours=hours)
    found = session.client.endpoints.statistics(
        endpoint, resolution_seconds=resolution, start=start, series=["ENDPOINT"]
    )
    session.show_many(found.endpoint.point_list, CALL_COLUMNS)


def _weights_of(values: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        stage, sign, weight = value.rpartition("=")
        if not sign or not stage or stage in found or not weight.isdecimal():
            raise typer.BadParameter(f"'{value}' is not STAGE=WEIGHT, or names a stage twice", param_hint="SHARE")
        found[stage] = int(weight)
    return found


def models_of(values: list[str], serving_options: list[str] | None) -> dict[str, Served]:
    """Read `--model MODEL[=PATH]` and `--serving-option KEY=VALUE` options."""
    from modelyard.sdk.api import checked
    from modelyard.sdk.groups.endpoints import Served

    given = pairs(serving_options, "--serving-option") or {}
    known = [name for name in Served.model_fields if name != "path"]
    for key in given:
        if key not in known:
            raise typer.BadParameter(
                f"there is no '{key}'; there are {', '.join(known)}", param_hint="--serving-option"
            )
    shared = checked(Served, given)
    found: dict[str, Served] = {}
    for value in values:
        name, sign, path = value.partition("=")
        if not name or name in found:
            raise typer.BadParameter(f"'{value}' names no model, or one that was named before", param_hint="--model")
        found[name] = shared.model_copy(update={"path": path}) if sign else shared
    return found


def _key_of(text: str | None) -> str | None:
    return Path(text[1:]).read_text(encoding="utf-8").strip() if text is not None and text.startswith("@") else text


def _request_of(data: str) -> Any:
    try:
        if data == "-":
            return json.loads(sys.stdin.buffer.read())
        return json.loads(Path(data[1:]).read_bytes() if data.startswith("@") else data)
    except ValueError as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint="--data") from None


def _waited(session: Session, key: str, name: str, timeout: float | None) -> EndpointOut:
    def state(endpoint: EndpointOut) -> str:
        stages = [stage.endpoint_stage_status_code for stage in endpoint.endpoint_stage_list if stage.is_default_stage]
        return ", default stage ".join([endpoint.endpoint_status_code, *stages])

    with session.waiting(f"endpoint '{name}'", state) as tell:
        return session.client.endpoints.wait(key, timeout_seconds=timeout, progress=tell)
