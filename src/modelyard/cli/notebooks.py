"""`modelyard notebook …`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli import options
from modelyard.cli.options import names_of, pairs
from modelyard.cli.session import Session, say, session_of

if TYPE_CHECKING:
    from modelyard.resources.notebooks.schemas import NotebookOut

app = typer.Typer(help="Notebooks: a JupyterLab of one's own, with storage that stays.", no_args_is_help=True)

COLUMNS = (
    ("ID", "notebookId"),
    ("NAME", "notebookName"),
    ("STATE", "notebookStatusCode"),
    ("IMAGE", "image.imageName"),
    ("FLAVOR", "flavor.name"),
    ("DATA GB", "dataStorageSize"),
    ("LAST USED", "lastActivityDatetime"),
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
IdleStop = Annotated[
    int | None, typer.Option("--idle-stop", min=0, help="Stop after so many minutes without use; 0 for never.")
]


@app.command()
def create(
    context: typer.Context,
    name: options.Name,
    image: Annotated[str, typer.Option(help="Image: name or id.", autocompletion=names_of("images"))],
    flavor: options.Flavor,
    boot_storage: Annotated[int, typer.Option(help="Boot storage in GB, in steps of 10; fresh at each start.")] = 20,
    data_storage: Annotated[int, typer.Option(help="Data storage in GB, in steps of 10; it stays.")] = 20,
    nas: Annotated[
        list[str] | None, typer.Option("--nas", metavar="DIRECTORY=nas://…", help="Mounted at /root/nas/DIRECTORY.")
    ] = None,
    idle_stop: IdleStop = None,
    description: options.Description = None,
    tag: options.Tags = None,
    idempotency_key: options.IdempotencyKey = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
) -> None:
    """Create a notebook; it starts by itself."""
    session = session_of(context)
    made = session.client.notebooks.create(
        name,
        image=image,
        flavor=flavor,
        boot_storage_size=boot_storage,
        data_storage_size=data_storage,
        nas=pairs(nas, "--nas"),
        idle_stop_minutes=idle_stop or None,
        description=description,
        tags=pairs(tag, "--tag"),
        idempotency_key=idempotency_key,
    )
    session.show_one(_waited(session, made.id, name, timeout) if wait else made)


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state, e.g. STOPPED; may be repeated.")] = None,
    page: options.Page = 1,
    limit: options.Limit = None,
) -> None:
    """List notebooks, newest first."""
    session = session_of(context)
    session.show_many(session.client.notebooks.list(state=state, page=page, limit=limit), COLUMNS)


@app.command()
def get(context: typer.Context, notebook: options.Notebook) -> None:
    """Show a notebook."""
    session = session_of(context)
    session.show_one(session.client.notebooks.get(notebook))


@app.command("open")
def open_(
    context: typer.Context,
    notebook: options.Notebook,
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the address instead: it works once, within a minute.")
    ] = False,
) -> None:
    """Open a notebook in the browser, without a sign-in: by a code that works once, within a minute."""
    code = session_of(context).client.notebooks.open(notebook)
    if print_only:
        typer.echo(code.url)
    elif typer.launch(code.url) != 0:
        say("no browser could be opened; --print shows the address")
        raise typer.Exit(1)


@app.command()
def update(
    context: typer.Context,
    notebook: options.Notebook,
    name: options.NewName = None,
    description: options.Description = None,
    tag: options.Tags = None,
    idle_stop: IdleStop = None,
) -> None:
    """Change name, description, tags, or the idle stop (at once)."""
    session = session_of(context)
    tags = pairs(tag, "--tag")
    session.show_one(
        session.client.notebooks.update(
            notebook, name=name, description=description, tags=tags, idle_stop_minutes=idle_stop
        )
    )


@app.command()
def stop(
    context: typer.Context,
    notebook: options.Notebook,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it is stopped.")] = False,
    timeout: options.Timeout = None,
) -> None:
    """Stop a notebook. Data storage stays; packages in the default environment do not."""
    client = session_of(context).client
    shown = client.notebooks.get(notebook)
    client.notebooks.stop(shown.id, wait=wait, timeout_seconds=timeout)
    if shown.reset_package_list:
        say(f"gone at the next start: {', '.join(shown.reset_package_list)}")
    if shown.kept_environment_list:
        say(f"kept: the environments {', '.join(shown.kept_environment_list)}")
    say(f"notebook '{notebook}' is {'stopped' if wait else 'stopping'}")


@app.command()
def start(
    context: typer.Context,
    notebook: options.Notebook,
    skip_scripts: Annotated[
        bool, typer.Option("--skip-scripts", help="Leave the scripts in cont-init.d out: one of them breaks the start.")
    ] = False,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
) -> None:
    """Start a stopped notebook."""
    session = session_of(context)
    started = session.client.notebooks.start(notebook, skips_scripts=skip_scripts)
    session.show_one(_waited(session, started.id, notebook, timeout) if wait else started)


@app.command()
def resize(context: typer.Context, notebook: options.Notebook, flavor: options.Flavor) -> None:
    """Give a stopped notebook another instance type of the same core type."""
    session = session_of(context)
    session.show_one(session.client.notebooks.resize(notebook, flavor))


@app.command()
def delete(context: typer.Context, notebook: options.Notebook, wait: options.WaitGone = False) -> None:
    """Delete a notebook with its boot and data storage. What is on NAS volumes stays."""
    session_of(context).client.notebooks.delete(notebook, wait=wait)
    say(f"notebook '{notebook}' is {'deleted' if wait else 'being deleted'}")


@app.command()
def usage(context: typer.Context, notebook: options.Notebook) -> None:
    """Show what a running notebook takes now."""
    session = session_of(context)
    session.show_one(session.client.notebooks.usage(notebook))


@app.command()
def logs(context: typer.Context, notebook: options.Notebook, follow: options.Follow = False) -> None:
    """Print the output of a notebook's newest start: start-up scripts and the Jupyter server."""
    for text in session_of(context).client.notebooks.logs(notebook, follow=follow):
        sys.stdout.write(text)
        sys.stdout.flush()


@app.command()
def wait(context: typer.Context, notebook: options.Notebook, timeout: options.Timeout = None) -> None:
    """Wait until a notebook is ACTIVE_HEALTHY. Exit code 4 when it ends otherwise, 7 when the time is over."""
    session = session_of(context)
    session.show_one(_waited(session, notebook, notebook, timeout))


@app.command()
def events(context: typer.Context, notebook: options.Notebook) -> None:
    """Show how a notebook came to its state."""
    session = session_of(context)
    session.show_many(session.client.notebooks.events(notebook), EVENT_COLUMNS)


def _waited(session: Session, key: str, name: str, timeout: float | None) -> NotebookOut:
    def state(notebook: NotebookOut) -> str:
        return notebook.notebook_status_code

    with session.waiting(f"notebook '{name}'", state) as tell:
        return session.client.notebooks.wait(key, timeout_seconds=timeout, progress=tell)
