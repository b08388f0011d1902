"""`modelyard stage …`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli import options
from modelyard.cli.endpoints import Log, Models, Nodes, ServingOption, models_of
from modelyard.cli.keys import rate_of
from modelyard.cli.options import names_of, pairs
from modelyard.cli.session import Session, say, session_of
from modelyard.cli.trainings import EVENT_COLUMNS

if TYPE_CHECKING:
    from modelyard.resources.endpoints.schemas import EndpointStageOut

app = typer.Typer(help="Stages of endpoints.", no_args_is_help=True)

COLUMNS = (
    ("ID", "endpointStageId"),
    ("NAME", "apigwStageName"),
    ("STATE", "endpointStageStatusCode"),
    ("GATEWAY", "deployStatus"),
    ("DEFAULT", "isDefaultStage"),
    ("FLAVOR", "flavor.name"),
    ("RUNNING", "runningPodCount"),
    ("URL", "apigwStageUrl"),
)
MODEL_COLUMNS = (
    ("ID", "endpointModelId"),
    ("MODEL", "model.modelName"),
    ("STATE", "endpointModelStatusCode"),
    ("RUNNING", "runningPodCount"),
    ("URL", "apigwEndpointUri"),
)
OfEndpoint = Annotated[str, typer.Option("--endpoint", help="Name or id.", autocompletion=names_of("endpoints"))]


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Its name: up to 30 characters of a-z, 0-9 and '-'.")],
    endpoint: OfEndpoint,
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
    """Add a stage to an endpoint."""
    session = session_of(context)
    made = session.client.stages.create(
        name,
        endpoint=endpoint,
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
def list_(
    context: typer.Context,
    endpoint: Annotated[
        str | None, typer.Option(help="Only of this endpoint.", autocompletion=names_of("endpoints"))
    ] = None,
) -> None:
    """List stages."""
    session = session_of(context)
    session.show_many(session.client.stages.list(endpoint=endpoint), COLUMNS)


@app.command()
def deploy(context: typer.Context, stage: options.Stage) -> None:
    """Deploy a stage at the gateway anew."""
    session = session_of(context)
    session.show_one(session.client.stages.deploy(stage))


@app.command()
def scale(
    context: typer.Context,
    stage: options.Stage,
    least: Annotated[int, typer.Option("--min", min=0, max=10, help="0 lets models rest that nobody asks.")] = 1,
    most: Annotated[int, typer.Option("--max", min=1, max=10, help="At most so many model servers of each model.")] = 1,
    metric: Annotated[
        str, typer.Option(help="CONCURRENCY, REQUESTS_PER_SECOND, CPU_UTILIZATION or MEMORY_UTILIZATION.")
    ] = "CONCURRENCY",
    target: Annotated[float | None, typer.Option(help="What one model server is to have of it.")] = None,
    idle: Annotated[int, typer.Option(min=1, help="With --min 0: rest after so many seconds without a request.")] = 300,
    off: Annotated[bool, typer.Option("--off", help="Keep the number that there is now.")] = False,
) -> None:
    """Let the number of a stage's model servers follow its load. What is not said is as by default."""
    from modelyard.resources.endpoints.schemas import AutoScaler
    from modelyard.sdk.api import checked

    session = session_of(context)
    fields = {
        "enable": not off,
        "minNodeCount": min(least, most) if off else least,
        "maxNodeCount": most,
        "metricCode": metric,
        "metricTarget": target,
        "idleSeconds": idle,
    }
    session.show_one(session.client.stages.scale(stage, checked(AutoScaler, fields)))


@app.command()
def settings(context: typer.Context, stage: options.Stage) -> None:
    """Show what is deployed at the gateway for a stage, in words and in the gateway's own language."""
    session = session_of(context)
    session.show_one(session.client.stages.gateway_settings(stage))


@app.command("set")
def set_(
    context: typer.Context,
    stage: options.Stage,
    max_body: Annotated[int | None, typer.Option(min=1, help="Bytes that a request body may have.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that an answer may take.")] = None,
    idle_timeout: Annotated[float | None, typer.Option(help="Seconds in which something must arrive.")] = None,
    api_key: Annotated[
        bool | None, typer.Option("--api-key/--no-api-key", help="Whether requests need an API key.")
    ] = None,
    rate: Annotated[str | None, typer.Option(help="REQUESTS[/SECONDS] of all together, e.g. 100 or 1000/60.")] = None,
    key_rate: Annotated[str | None, typer.Option(help="REQUESTS[/SECONDS] of one API key.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Network that clients may come from; may be repeated.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin whose pages may call, e.g. https://app.example.com; may be repeated."),
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(help="STAGE[=PERCENT] of the endpoint that gets copies of requests.")
    ] = None,
    clear: Annotated[
        list[str] | None, typer.Option(help="Setting to take away, e.g. rate or cors-origin; may be repeated.")
    ] = None,
) -> None:
    """Change what a stage's address asks of requests. What is not named stays; no request fails."""
    session = session_of(context)
    settings = _cleared(clear or [])
    given: dict[str, Any] = {
        "max_body_bytes": max_body,
        "timeout_seconds": timeout,
        "idle_timeout_seconds": idle_timeout,
        "is_api_key_required": api_key,
        "rate_limit": None if rate is None else rate_of(rate, "--rate"),
        "key_rate_limit": None if key_rate is None else rate_of(key_rate, "--key-rate"),
        "allow_address_list": allow or None,
        "cors": {"allow_origin_list": cors_origin} if cors_origin else None,
        "mirror": None if mirror is None else _mirror_of(session, stage, mirror),
    }
    settings |= {name: value for name, value in given.items() if value is not None}
    changed = session.client.stages.change_settings(stage, **settings)
    session.show_one(changed.settings)


@app.command()
def get(context: typer.Context, stage: options.Stage) -> None:
    """Show a stage."""
    session = session_of(context)
    session.show_one(session.client.stages.get(stage))


@app.command()
def delete(
    context: typer.Context, stage: options.Stage, wait: options.WaitGone = False, timeout: options.Timeout = None
) -> None:
    """Delete a stage other than the default one."""
    session_of(context).client.stages.delete(stage, wait=wait, timeout_seconds=timeout)
    say(f"stage '{stage}' is {'' if wait else 'being '}deleted")


@app.command()
def wait(context: typer.Context, stage: options.Stage, timeout: options.Timeout = None) -> None:
    """Wait until a stage is ACTIVE."""
    session = session_of(context)
    session.show_one(_waited(session, stage, stage, timeout))


@app.command()
def events(context: typer.Context, stage: options.Stage) -> None:
    """Show how a stage came to its state."""
    session = session_of(context)
    session.show_many(session.client.stages.events(stage), EVENT_COLUMNS)


@app.command()
def logs(
    context: typer.Context,
    stage: options.Stage,
    model: Annotated[
        str | None, typer.Option("--model", help="Which of the stage's models: name or id; the first one if absent.")
    ] = None,
    follow: options.Follow = False,
    instance: options.Instance = 0,
) -> None:
    """Print a model server's output; of one that could not be started its last lines."""
    for text in session_of(context).client.stages.logs(stage, model=model, instance=instance, follow=follow):
        sys.stdout.write(text)
        sys.stdout.flush()


@app.command()
def models(context: typer.Context, stage: options.Stage) -> None:
    """List the models on a stage, with their URLs."""
    session = session_of(context)
    session.show_many(session.client.stages.models(stage=stage), MODEL_COLUMNS)


_CLEARED = {
    "max-body": "max_body_bytes",
    "timeout": "timeout_seconds",
    "idle-timeout": "idle_timeout_seconds",
    "api-key": "is_api_key_required",
    "rate": "rate_limit",
    "key-rate": "key_rate_limit",
    "allow": "allow_address_list",
    "cors-origin": "cors",
    "mirror": "mirror",
}


def _cleared(names: list[str]) -> dict[str, Any]:
    if unknown := [name for name in names if name not in _CLEARED]:
        raise typer.BadParameter(f"'{unknown[0]}' is not one of {', '.join(_CLEARED)}", param_hint="--clear")
    return {_CLEARED[name]: None for name in names}


def _mirror_of(session: Session, stage: str, text: str) -> dict[str, Any]:
    name, sign, percent = text.rpartition("=")
    wanted = name if sign else text
    endpoint_id = session.client.stages.get(stage).endpoint_id
    for item in session.client.stages.list(endpoint=endpoint_id):
        if wanted in {item.id, item.apigw_stage_name}:
            try:
                return {"endpoint_stage_id": item.id, **({"percent": float(percent)} if sign else {})}
            except ValueError:
                break
    raise typer.BadParameter(
        f"'{text}' is not STAGE[=PERCENT] with a stage of the same endpoint", param_hint="--mirror"
    )


def _waited(session: Session, key: str, name: str, timeout: float | None) -> EndpointStageOut:
    def state(stage: EndpointStageOut) -> str:
        return stage.endpoint_stage_status_code

    with session.waiting(f"stage '{name}'", state) as tell:
        return session.client.stages.wait(key, timeout_seconds=timeout, progress=tell)
