"""`modelyard image …` and `modelyard flavor …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli import options
from modelyard.cli.session import session_of

if TYPE_CHECKING:
    from modelyard.resources.images.schemas import ImageOut

images = typer.Typer(help="Images: the environments that things run in.", no_args_is_help=True)
flavors = typer.Typer(help="Flavors: instance types.", no_args_is_help=True)

IMAGE_COLUMNS = (
    ("NAME", "imageName"),
    ("CORE", "coreTypeCode"),
    ("FRAMEWORK", "frameworkCode"),
    ("VERSION", "frameworkVersion"),
    ("PYTHON", "pythonVersion"),
    ("DEFAULT", "isDefault"),
    ("STATE", "imageStatusCode"),
)
FLAVOR_COLUMNS = (
    ("NAME", "name"),
    ("VCPUS", "vcpus"),
    ("RAM MIB", "ram"),
    ("DISK GIB", "disk"),
    ("CORE", "coreTypeCode"),
    ("GPUS", "gpuCount"),
)


@images.command("list")
def list_images(
    context: typer.Context,
    group: Annotated[list[str] | None, typer.Option(help="Only for TRAINING, NOTEBOOK …; may be repeated.")] = None,
) -> None:
    """List images."""
    session = session_of(context)
    session.show_many(session.client.images.list(group=group), IMAGE_COLUMNS)


@images.command("get")
def get_image(context: typer.Context, image: options.Image) -> None:
    """Show an image."""
    session = session_of(context)
    session.show_one(session.client.images.get(image))


@images.command()
def build(
    context: typer.Context,
    image: options.Image,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is there.")] = True,
    timeout: options.Timeout = None,
) -> None:
    """Build an image's environment now, rather than on first use."""
    session = session_of(context)
    made = session.client.images.build(image)
    if wait:

        def state(image: ImageOut) -> str:
            return image.image_status_code

        with session.waiting(f"image '{made.image_name}'", state) as tell:
            made = session.client.images.wait(made.id, timeout_seconds=timeout, progress=tell)
    session.show_one(made)


@flavors.command("list")
def list_flavors(context: typer.Context) -> None:
    """List instance types."""
    session = session_of(context)
    session.show_many(session.client.flavors.list(), FLAVOR_COLUMNS)


@flavors.command("get")
def get_flavor(
    context: typer.Context,
    flavor: Annotated[str, typer.Argument(help="Name or id.", autocompletion=options.names_of("flavors"))],
) -> None:
    """Show an instance type."""
    session = session_of(context)
    session.show_one(session.client.flavors.get(flavor))
