"""`modelyard training …`."""

from __future__ import annotations

import sys
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli import options, tensorboard
from modelyard.cli.forms import Output
from modelyard.cli.options import names_of, pairs
from modelyard.cli.session import Session, say, session_of, tell_deletions

if TYPE_CHECKING:
    from modelyard.resources.trainings.schemas import TrainingOut

app = typer.Typer(help="Trainings: run a script on an image, with data, and keep what it makes.", no_args_is_help=True)

SORTS = ("createdDatetime", "updatedDatetime", "trainingName", "trainingStatusCode")
COLUMNS = (
    ("ID", "trainingId"),
    ("NAME", "trainingName"),
    ("STATE", "trainingStatusCode"),
    ("EXPERIMENT", "experiment.experimentName"),
    ("IMAGE", "image.imageName"),
    ("FLAVOR", "flavor.name"),
    ("SECONDS", "elapsedTimeSeconds"),
    ("CREATED", "createdDatetime"),
)
EVENT_COLUMNS = (
    ("TIME", "time"),
    ("ACTOR", "actor"),
    ("FROM", "oldStatusCode"),
    ("TO", "newStatusCode"),
    ("REASON", "statusReason"),
    ("MESSAGE", "statusMessage"),
)
METRIC_COLUMNS = (
    ("NAME", "name"),
    ("INSTANCE", "instance"),
    ("POINTS", "points"),
    ("LAST @ STEP", "last"),
    ("MIN @ STEP", "min"),
    ("MAX @ STEP", "max"),
    ("CURVE", "curve"),
)
MAX_DRAWN = 50
USAGE_COLUMNS = (
    ("INSTANCE", "instance"),
    ("CORES (MOST)", "cores"),
    ("MEMORY (MOST)", "memory"),
    ("DISK (MOST)", "disk"),
    ("GPU (MOST)", "gpu"),
)


app.command("tensorboard")(tensorboard.of_training)


@app.command()
def create(
    context: typer.Context,
    name: options.Name,
    image: Annotated[str, typer.Option(help="Image: name or id.", autocompletion=names_of("images"))],
    flavor: options.Flavor,
    entry_point: Annotated[str, typer.Option(help="The script in the source.")],
    model_upload: Annotated[str, typer.Option(help="Where the output goes.")],
    source: Annotated[
        str | None, typer.Option(help="Directory of the algorithm: obs://…, nas://… or CONTAINER/PATH.")
    ] = None,
    source_snapshot: Annotated[
        str | None, typer.Option(help="Instead: the source that another training ran with, by its snapshot's id.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Experiment: name or id.", autocompletion=names_of("experiments"))
    ] = None,
    new_experiment: Annotated[str | None, typer.Option(help="Create this experiment in place.")] = None,
    hyperparameter: Annotated[
        list[str] | None, typer.Option("--hyperparameter", "-p", metavar="KEY=VALUE", help="May be repeated.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", "-d", metavar="NAME=PATH", help="May be repeated, up to 10.")
    ] = None,
    checkpoint_upload: Annotated[str | None, typer.Option(help="Kept in step with EM_CHECKPOINT_DIR.")] = None,
    checkpoint_input: Annotated[str | None, typer.Option(help="Checkpoints to resume from.")] = None,
    instances: Annotated[int, typer.Option(min=1, max=10, help="How many instances train together.")] = 1,
    data_storage: Annotated[int | None, typer.Option(min=1, help="Data storage, in GB.")] = None,
    max_minutes: Annotated[int | None, typer.Option(min=1, help="End the run after so many minutes.")] = None,
    log: Annotated[bool, typer.Option("--log", help="Keep the output searchable in the log service.")] = False,
    torchrun: Annotated[bool, typer.Option("--torchrun", help="Start the script with torchrun.")] = False,
    processes_per_node: Annotated[int | None, typer.Option(min=1, help="With --torchrun.")] = None,
    max_restarts: Annotated[
        int, typer.Option(min=0, max=10, help="Start a run that has failed again so often, from its checkpoints.")
    ] = 0,
    description: options.Description = None,
    tag: options.Tags = None,
    idempotency_key: options.IdempotencyKey = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
) -> None:
    """Create a training; it starts by itself."""
    session = session_of(context)
    made = session.client.trainings.create(
        name,
        image=image,
        flavor=flavor,
        source=source,
        source_snapshot=source_snapshot,
        entry_point=entry_point,
        model_upload=model_upload,
        experiment=experiment,
        new_experiment=new_experiment,
        hyperparameters=pairs(hyperparameter, "--hyperparameter"),
        datasets=pairs(dataset, "--dataset"),
        checkpoint_upload=checkpoint_upload,
        checkpoint_input=checkpoint_input,
        instance_count=instances,
        data_storage_size=data_storage,
        timeout_minutes=max_minutes,
        use_log=log,
        use_torchrun=torchrun,
        nproc_per_node=processes_per_node,
        max_restart_count=max_restarts,
        description=description,
        tags=pairs(tag, "--tag"),
        idempotency_key=idempotency_key,
    )
    session.show_one(_waited(session, made.id, name, timeout) if wait else made)


@app.command("list")
def list_(
    context: typer.Context,
    experiment: Annotated[
        str | None, typer.Option(help="Only of this experiment.", autocompletion=names_of("experiments"))
    ] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state, e.g. RUNNING; may be repeated.")] = None,
    image: Annotated[str | None, typer.Option(help="Only on this image.", autocompletion=names_of("images"))] = None,
    flavor: Annotated[
        str | None, typer.Option(help="Only of this instance type.", autocompletion=names_of("flavors"))
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY[=VALUE]", help="Only with this tag; repeated: all.")
    ] = None,
    contains: Annotated[str | None, typer.Option(help="Only with this in the name.")] = None,
    search: Annotated[
        str | None, typer.Option(help="Words of name, description and tags, or their beginnings.")
    ] = None,
    created_from: Annotated[datetime | None, typer.Option(help="Created then or later, local time.")] = None,
    created_to: Annotated[datetime | None, typer.Option(help="Created before then, local time.")] = None,
    sort: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(SORTS)}; with a '-' before it descending."),
    ] = None,
    page: options.Page = 1,
    limit: options.Limit = None,
) -> None:
    """List trainings, newest first."""
    session = session_of(context)
    found = session.client.trainings.list(
        experiment=experiment,
        state=state,
        image=image,
        flavor=flavor,
        tags={key: value if sign else None for key, sign, value in (item.partition("=") for item in tag or ())},
        name_contains=contains,
        search=search,
        created_from=None if created_from is None else created_from.astimezone(),
        created_to=None if created_to is None else created_to.astimezone(),
        sort=sort,
        page=page,
        limit=limit,
    )
    session.show_many(found, COLUMNS)


@app.command()
def get(context: typer.Context, training: options.Training) -> None:
    """Show a training."""
    session = session_of(context)
    session.show_one(session.client.trainings.get(training))


@app.command()
def update(
    context: typer.Context,
    training: options.Training,
    name: options.NewName = None,
    description: options.Description = None,
    tag: options.Tags = None,
) -> None:
    """Change name, description or tags."""
    session = session_of(context)
    tags = pairs(tag, "--tag")
    session.show_one(session.client.trainings.update(training, name=name, description=description, tags=tags))


@app.command()
def stop(context: typer.Context, training: options.Training) -> None:
    """Stop a training."""
    session_of(context).client.trainings.stop(training)
    say(f"training '{training}' is stopping")


@app.command()
def copy(
    context: typer.Context,
    training: options.Training,
    name: options.NewName = None,
    experiment: Annotated[
        str | None, typer.Option(help="Into this experiment.", autocompletion=names_of("experiments"))
    ] = None,
    image: Annotated[str | None, typer.Option(help="On this image.", autocompletion=names_of("images"))] = None,
    flavor: Annotated[
        str | None, typer.Option(help="On this instance type.", autocompletion=names_of("flavors"))
    ] = None,
    hyperparameter: Annotated[
        list[str] | None,
        typer.Option("--hyperparameter", "-p", metavar="KEY=VALUE", help="Added or replaced; may be repeated."),
    ] = None,
    model_upload: Annotated[str | None, typer.Option(help="Where the output goes.")] = None,
    same_source: Annotated[
        bool, typer.Option("--same-source", help="The source that it ran with, also if its path has changed.")
    ] = False,
    description: options.Description = None,
    tag: options.Tags = None,
    idempotency_key: options.IdempotencyKey = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
) -> None:
    """Create a training with the settings of another, but for what is given."""
    session = session_of(context)
    made = session.client.trainings.copy(
        training,
        name=name,
        experiment=experiment,
        image=image,
        flavor=flavor,
        hyperparameters=pairs(hyperparameter, "--hyperparameter"),
        model_upload=model_upload,
        same_source=same_source,
        description=description,
        tags=pairs(tag, "--tag"),
        idempotency_key=idempotency_key,
    )
    session.show_one(_waited(session, made.id, made.name, timeout) if wait else made)


@app.command()
def delete(context: typer.Context, trainings: options.TrainingsToDelete) -> None:
    """Delete trainings that don't run. Their files in the object store stay."""
    client = session_of(context).client
    if len(trainings) == 1:
        client.trainings.delete(trainings[0])
        say(f"training '{trainings[0]}' is deleted")
        return
    tell_deletions("training", client.trainings.delete_many(trainings))


@app.command()
def logs(
    context: typer.Context,
    training: options.Training,
    follow: options.Follow = False,
    instance: options.Instance = 0,
    attempt: Annotated[int | None, typer.Option(min=0, help="Which attempt, from 0; the newest if not given.")] = None,
) -> None:
    """Print a training's output."""
    pieces = session_of(context).client.trainings.logs(training, instance=instance, attempt=attempt, follow=follow)
    for text in pieces:
        sys.stdout.write(text)
        sys.stdout.flush()


@app.command()
def wait(context: typer.Context, training: options.Training, timeout: options.Timeout = None) -> None:
    """Wait until a training is COMPLETE. Exit code 4 when it ends otherwise, 7 when the time is over."""
    session = session_of(context)
    session.show_one(_waited(session, training, training, timeout))


@app.command()
def events(context: typer.Context, training: options.Training) -> None:
    """Show how a training came to its state."""
    session = session_of(context)
    session.show_many(session.client.trainings.events(training), EVENT_COLUMNS)


@app.command()
def metrics(
    context: typer.Context,
    training: options.Training,
    name: Annotated[list[str] | None, typer.Argument(help="Only these metrics.")] = None,
    instance: Annotated[int | None, typer.Option(min=0, help="Only of this instance.")] = None,
    from_step: Annotated[int | None, typer.Option(help="From this step on.")] = None,
    to_step: Annotated[int | None, typer.Option(help="Up to this step.")] = None,
    points: Annotated[int, typer.Option(min=10, max=5000, help="At most so many points of each.")] = 1000,
) -> None:
    """Show what a training's metrics come to; with --output json the history of those that are named too."""
    from modelyard.cli import figures

    session = session_of(context)
    read = partial(
        session.client.trainings.metrics, instance=instance, from_step=from_step, to_step=to_step, max_points=points
    )
    found = read(training, *(name or ()))
    if session.settings.output is not Output.TABLE:
        session.show_many(found, ())
        return
    names = sorted({metric.name for metric in found})[:MAX_DRAWN]
    drawn = {(each.name, each.instance): each.points for each in (read(training, *names) if names else ())}
    rows = [
        {
            "name": each.name,
            "instance": each.instance,
            "points": each.point_count,
            "last": figures.at_step(each.last_value, each.last_step),
            "min": figures.at_step(each.min_value, each.min_step),
            "max": figures.at_step(each.max_value, each.max_step),
            "curve": figures.sparkline(history.values) if (history := drawn.get((each.name, each.instance))) else "",
        }
        for each in found
    ]
    session.show_many(rows, METRIC_COLUMNS)


@app.command()
def usage(
    context: typer.Context,
    training: options.Training,
    instance: Annotated[int | None, typer.Option(min=0, help="Only of this instance.")] = None,
    points: Annotated[int, typer.Option(min=1, max=5000, help="At most so many points of each instance.")] = 1000,
) -> None:
    """Show what a training's instances use: cores, memory, disk and GPUs. With --output json all points."""
    from modelyard.cli import figures

    session = session_of(context)
    found = session.client.trainings.usage(training, instance=instance, max_points=points)
    if session.settings.output is not Output.TABLE:
        session.show_one(found)
        return
    rows = [
        {
            "instance": each.instance,
            "cores": f"{max(each.cpu_cores_max):.2f}  {figures.sparkline(each.cpu_cores)}",
            "memory": f"{figures.size(max(each.memory_bytes_max))}  {figures.sparkline(each.memory_bytes)}",
            "disk": figures.size(max(each.disk_bytes)),
            "gpu": f"{max(each.gpu_percent):.0f} %" if each.gpu_percent else None,
        }
        for each in found.usage_list
    ]
    session.show_many(rows, USAGE_COLUMNS)


def _waited(session: Session, key: str, name: str, timeout: float | None) -> TrainingOut:
    def state(training: TrainingOut) -> str:
        return training.training_status_code

    with session.waiting(f"training '{name}'", state) as tell:
        return session.client.trainings.wait(key, timeout_seconds=timeout, progress=tell)
