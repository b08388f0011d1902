"""`modelyard experiment …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli import options, tensorboard
from modelyard.cli.forms import Output
from modelyard.cli.options import pairs
from modelyard.cli.session import Session, say, session_of, tell_deletions

if TYPE_CHECKING:
    from modelyard.resources.experiments.schemas import ExperimentOut

app = typer.Typer(help="Experiments: what groups trainings.", no_args_is_help=True)

COLUMNS = (
    ("ID", "experimentId"),
    ("NAME", "experimentName"),
    ("STATE", "experimentStatusCode"),
    ("DESCRIPTION", "description"),
    ("CREATED", "createdDatetime"),
)


app.command("tensorboard")(tensorboard.of_experiment)


@app.command()
def create(
    context: typer.Context,
    name: options.Name,
    description: options.Description = None,
    tag: options.Tags = None,
    idempotency_key: options.IdempotencyKey = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
) -> None:
    """Create an experiment."""
    session = session_of(context)
    tags = pairs(tag, "--tag")
    made = session.client.experiments.create(name, description=description, tags=tags, idempotency_key=idempotency_key)
    session.show_one(_waited(session, made.id, name, timeout) if wait else made)


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state, e.g. ACTIVE; may be repeated.")] = None,
    contains: Annotated[str | None, typer.Option(help="Only with this in the name.")] = None,
    sort: Annotated[str | None, typer.Option(help="E.g. experimentName; with a '-' before it descending.")] = None,
    page: options.Page = 1,
    limit: options.Limit = None,
) -> None:
    """List experiments, newest first."""
    session = session_of(context)
    found = session.client.experiments.list(state=state, name_contains=contains, sort=sort, page=page, limit=limit)
    session.show_many(found, COLUMNS)


@app.command()
def get(context: typer.Context, experiment: options.Experiment) -> None:
    """Show an experiment."""
    session = session_of(context)
    session.show_one(session.client.experiments.get(experiment))


@app.command()
def update(
    context: typer.Context,
    experiment: options.Experiment,
    name: options.NewName = None,
    description: options.Description = None,
    tag: options.Tags = None,
) -> None:
    """Change name, description or tags."""
    session = session_of(context)
    tags = pairs(tag, "--tag")
    session.show_one(session.client.experiments.update(experiment, name=name, description=description, tags=tags))


@app.command()
def retry(context: typer.Context, experiment: options.Experiment) -> None:
    """Try again to create an experiment that has failed."""
    session = session_of(context)
    session.show_one(session.client.experiments.retry(experiment))


@app.command()
def delete(context: typer.Context, experiments: options.ExperimentsToDelete) -> None:
    """Delete experiments that have no trainings."""
    client = session_of(context).client
    if len(experiments) == 1:
        client.experiments.delete(experiments[0])
        say(f"experiment '{experiments[0]}' is deleted")
        return
    tell_deletions("experiment", client.experiments.delete_many(experiments))


@app.command()
def wait(context: typer.Context, experiment: options.Experiment, timeout: options.Timeout = None) -> None:
    """Wait until an experiment is ACTIVE."""
    session = session_of(context)
    session.show_one(_waited(session, experiment, experiment, timeout))


@app.command()
def compare(
    context: typer.Context,
    experiment: options.Experiment,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="Only these metrics; may be repeated.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--filter", "-f", help="e.g. 'metrics.accuracy>0.9' or parameters.lr=0.01; may be repeated."),
    ] = None,
    sort: Annotated[
        list[str] | None, typer.Option("--sort", "-s", help="e.g. metrics.loss:min, or -name for the other way round.")
    ] = None,
    page: options.Page = 1,
    limit: options.Limit = None,
) -> None:
    """Show the trainings of an experiment side by side, with hyperparameters and the last values of metrics."""
    from modelyard.cli import figures

    session = session_of(context)
    found = session.client.experiments.compare(
        experiment, metrics=metric, filters=where, sort=sort, page=page, limit=limit
    )
    if session.settings.output is not Output.TABLE:
        session.show_one(found)
        return
    parameters = [(f"{name} *", f"parameter {at}") for at, name in enumerate(found.parameter_name_list)]
    metrics = [(name, f"metric {at}") for at, name in enumerate(found.metric_name_list)]
    rows = [
        {
            "name": run.training_name,
            "state": run.training_status_code,
            **{f"parameter {at}": run.parameters.get(name, "-") for at, name in enumerate(found.parameter_name_list)},
            **{
                f"metric {at}": figures.number(value.last) if (value := run.metrics.get(name)) else "-"
                for at, name in enumerate(found.metric_name_list)
            },
        }
        for run in found.run_list
    ]
    session.show_many(rows, (("TRAINING", "name"), ("STATE", "state"), *parameters, *metrics))
    notes = ["* hyperparameters"] if parameters else []
    if found.has_more_metrics:
        notes.append("there are more metrics; choose with --metric")
    if found.paging.total_count > len(rows):
        notes.append(f"{len(rows)} of {found.paging.total_count} trainings")
    if notes:
        say("; ".join(notes))


def _waited(session: Session, key: str, name: str, timeout: float | None) -> ExperimentOut:
    def state(experiment: ExperimentOut) -> str:
        return experiment.experiment_status_code

    with session.waiting(f"experiment '{name}'", state) as tell:
        return session.client.experiments.wait(key, timeout_seconds=timeout, progress=tell)
