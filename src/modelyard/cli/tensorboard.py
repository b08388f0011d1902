"""`modelyard training tensorboard` and `modelyard experiment tensorboard`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli import options
from modelyard.cli.session import say, session_of

if TYPE_CHECKING:
    from modelyard.resources.tensorboards.schemas import TensorBoardOut

Browser = Annotated[
    bool, typer.Option("--browser/--no-browser", help="Open a browser, or only print the address, which works once.")
]
Stop = Annotated[bool, typer.Option("--stop", help="End it instead.")]


def of_training(
    context: typer.Context, training: options.Training, browser: Browser = True, stop: Stop = False
) -> None:
    """Open a training's TensorBoard, signed in; starts it where needed."""
    _run(context, training, None, browser=browser, stop=stop)


def of_experiment(
    context: typer.Context, experiment: options.Experiment, browser: Browser = True, stop: Stop = False
) -> None:
    """Open the TensorBoard that shows all trainings of an experiment, signed in; starts it where needed."""
    _run(context, None, experiment, browser=browser, stop=stop)


def _run(context: typer.Context, training: str | None, experiment: str | None, *, browser: bool, stop: bool) -> None:
    session = session_of(context)
    boards = session.client.tensorboards
    if stop:
        boards.stop(training=training, experiment=experiment)
        say("it is being ended; opening it starts it again")
        return

    def state(seen: TensorBoardOut) -> str:
        return seen.status_message or seen.tensorboard_status_code

    with session.waiting("TensorBoard", state) as tell:
        url = boards.open(training=training, experiment=experiment, progress=tell)
    if browser:
        import webbrowser  # only where it is needed

        if webbrowser.open(url):
            return
        say("no browser could be opened; this address lets one in, once, within a minute:")
    typer.echo(url)
