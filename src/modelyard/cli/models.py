"""`modelyard model …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli import options
from modelyard.cli.options import names_of, pairs
from modelyard.cli.session import Session, say, session_of

if TYPE_CHECKING:
    from modelyard.resources.models.schemas import ModelOut

app = typer.Typer(help="Models: what endpoints serve.", no_args_is_help=True)

COLUMNS = (
    ("ID", "modelId"),
    ("NAME", "modelName"),
    ("VERSION", "modelVersion"),
    ("STATE", "modelStatusCode"),
    ("FORMAT", "modelFormatCode|frameworkCode"),
    ("TRAINING", "training.trainingName"),
    ("ARTIFACT", "modelUploadUri"),
    ("CREATED", "createdDatetime"),
)


@app.command()
def create(
    context: typer.Context,
    name: options.Name,
    training: Annotated[
        str | None, typer.Option(help="A COMPLETE training: name or id.", autocompletion=names_of("trainings"))
    ] = None,
    artifact: Annotated[str | None, typer.Option(help="Instead: obs://…, nas://… or CONTAINER/PATH.")] = None,
    format: Annotated[str | None, typer.Option(help="TENSORFLOW, PYTORCH, SKLEARN or ONNX.")] = None,
    framework_version: Annotated[str | None, typer.Option(help="The framework's version.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="For the model server; may be repeated.")
    ] = None,
    copy: Annotated[
        bool | None,
        typer.Option("--copy/--no-copy", help="Serve a copy that the platform keeps; as the settings say if absent."),
    ] = None,
    description: options.Description = None,
    tag: options.Tags = None,
    idempotency_key: options.IdempotencyKey = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
) -> None:
    """Create a model from a training or from files."""
    if (training is None) == (artifact is None):
        raise typer.BadParameter("give one of --training and --artifact", param_hint="--training")
    session = session_of(context)
    made = session.client.models.create(
        name,
        training=training,
        artifact=artifact,
        format=format,
        framework_version=framework_version,
        parameters=pairs(parameter, "--parameter"),
        keeps_copy=copy,
        description=description,
        tags=pairs(tag, "--tag"),
        idempotency_key=idempotency_key,
    )
    session.show_one(_waited(session, made.id, name, timeout) if wait else made)


@app.command("list")
def list_(context: typer.Context, page: options.Page = 1, limit: options.Limit = None) -> None:
    """List models, newest first."""
    session = session_of(context)
    session.show_many(session.client.models.list(page=page, limit=limit), COLUMNS)


@app.command()
def get(context: typer.Context, model: options.Model) -> None:
    """Show a model."""
    session = session_of(context)
    session.show_one(session.client.models.get(model))


@app.command()
def update(
    context: typer.Context,
    model: options.Model,
    name: options.NewName = None,
    description: options.Description = None,
    tag: options.Tags = None,
) -> None:
    """Change name, description or tags."""
    session = session_of(context)
    tags = pairs(tag, "--tag")
    session.show_one(session.client.models.update(model, name=name, description=description, tags=tags))


@app.command()
def alias(
    context: typer.Context,
    model: options.Model,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="A word for this version, e.g. production.")],
    drop: Annotated[bool, typer.Option("--drop", help="Take it away instead.")] = False,
) -> None:
    """Let an alias mean this version; models are then also named NAME@ALIAS."""
    models = session_of(context).client.models
    session_of(context).show_one(models.drop_alias(model, alias) if drop else models.set_alias(model, alias))


@app.command()
def delete(context: typer.Context, model: options.Model) -> None:
    """Delete a model that no endpoint uses. Its files stay."""
    session_of(context).client.models.delete(model)
    say(f"model '{model}' is deleted")


@app.command()
def wait(context: typer.Context, model: options.Model, timeout: options.Timeout = None) -> None:
    """Wait until a model is ACTIVE."""
    session = session_of(context)
    session.show_one(_waited(session, model, model, timeout))


def _waited(session: Session, key: str, name: str, timeout: float | None) -> ModelOut:
    def state(model: ModelOut) -> str:
        return model.model_status_code

    with session.waiting(f"model '{name}'", state) as tell:
        return session.client.models.wait(key, timeout_seconds=timeout, progress=tell)
