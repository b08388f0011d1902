"""The main job of Modelyard, through the Python SDK only: upload, train, make a model, serve it, predict.

    modelyard up --detach
    python examples/demo.py [--home DIR]

A TensorFlow and a PyTorch training run at the same time on Iris; each becomes a model and an endpoint, which is then asked about flowers
that the training has not seen. Exit code 0 means that both were right about 90 % of them. The last run's endpoints stay up; older ones go.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

from modelyard.sdk.client import Client
from modelyard.sdk.connection import home_path, read_credentials
from modelyard.sdk.errors import ApiError, Conflict, ModelyardError, WaitFailed
from modelyard.sdk.transfers import Progress as Moved

ALGORITHMS = Path(__file__).parent / "iris"
FRAMEWORKS = ("tensorflow", "pytorch")
TRAINING_FLAVOR = "m2.c1m2"
ENDPOINT_FLAVOR = "c2.c1m1"
WANTED_ACCURACY = 0.9
CONTAINER = "demo"
_LOG_SECONDS = 5.0

console = Console(highlight=False)


@dataclass
class Run:
    """What one framework's way through the platform gave."""

    framework: str
    accuracy: float = 0.0
    url: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


def main() -> int:
    """Run the demonstration; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="home of the platform (default: MODELYARD_HOME or ~/.modelyard)")
    home = parser.parse_args().home
    started = time.monotonic()
    try:
        with Client.from_environment(home=home) as client, Steps() as steps:
            runs = demonstrate(client, steps, name=f"demo-{time.strftime('%Y%m%d-%H%M%S')}")
    except (ModelyardError, OSError) as error:
        explain(error)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; what was created goes on.")
        return 130
    show(runs, time.monotonic() - started)
    show_access(home)
    worst = min(run.accuracy for run in runs)
    if worst < WANTED_ACCURACY:
        console.print(f"[red]An accuracy of {worst:.3f} is below {WANTED_ACCURACY}.[/red]")
        return 1
    return 0


def demonstrate(client: Client, steps: Steps, name: str) -> list[Run]:
    """The whole job. `name` begins the names of all that is created."""
    with steps.step("clean up after earlier runs"):
        remove_old(client)
    features, labels = load_iris(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        features, labels, test_size=0.2, stratify=labels, random_state=1
    )
    place = f"{CONTAINER}/{name}"
    with tempfile.TemporaryDirectory() as directory, steps.step("upload algorithms and data") as tell:
        write_csv(Path(directory) / "train.csv", x_train, y_train)
        write_csv(Path(directory) / "test.csv", x_test, y_test)
        for source, target in ((ALGORITHMS, "source"), (Path(directory), "data")):
            client.storage.upload(source, f"{place}/{target}", progress=lambda at: tell(files_moved(at)))
    with steps.step("create the experiment") as tell:
        client.experiments.create(name, description="The demonstration: Iris with two frameworks")
        client.experiments.wait(name, progress=lambda seen: tell(seen.experiment_status_code))

    def way(framework: str) -> Run:
        return train_and_serve(client, steps, name, place, framework, (x_test.tolist(), y_test.tolist()))

    pool = ThreadPoolExecutor(len(FRAMEWORKS))
    ways = [pool.submit(way, framework) for framework in FRAMEWORKS]
    try:
        return [done.result() for done in as_completed(ways)]
    except BaseException:
        client.close()  # which ends the other way, too
        raise
    finally:
        pool.shutdown()


def train_and_serve(
    client: Client, steps: Steps, experiment: str, place: str, framework: str, test: tuple[list, list]
) -> Run:
    """One framework: training, model, endpoint, predictions."""
    run = Run(framework)
    name = f"{experiment}-{framework}"
    images = client.images.list(group="TRAINING")
    image = next(item for item in images if item.framework_code == framework.upper() and item.is_default)

    with steps.step(f"{framework}: train", run, "training") as tell:
        training = client.trainings.create(
            name,
            experiment=experiment,
            image=image.image_id,
            flavor=TRAINING_FLAVOR,
            source=f"{place}/source/{framework}",
            entry_point="train.py",
            datasets={"train": f"{place}/data"},
            hyperparameters={"epochs": 60, "batch_size": 16, "learning_rate": 0.01, "model_name": name},
            model_upload=f"{place}/model/{framework}",
            checkpoint_upload=f"{place}/checkpoints/{framework}",
            timeout_minutes=60,
            use_log=True,
        )
        client.trainings.wait(training.id, progress=lambda seen: tell(words(seen.training_status_code, seen)))
    with steps.step(f"{framework}: create the model", run, "model") as tell:
        client.models.create(name, training=training.id)
        client.models.wait(name, progress=lambda seen: tell(words(seen.model_status_code, seen)))
    with steps.step(f"{framework}: create the endpoint", run, "endpoint") as tell:
        client.endpoints.create(name, models={name: "/inference"}, flavor=ENDPOINT_FLAVOR)
        endpoint = client.endpoints.wait(name, progress=lambda seen: tell(words(seen.endpoint_status_code, seen)))
    with steps.step(f"{framework}: predict", run, "prediction") as tell:
        features, labels = test
        run.url = endpoint.endpoint_stage_list[0].endpoint_model_list[0].apigw_endpoint_uri
        answer = client.endpoints.call(run.url, {"instances": features})
        guesses = [max(range(len(scores)), key=scores.__getitem__) for scores in answer["predictions"]]
        run.accuracy = sum(guess == label for guess, label in zip(guesses, labels, strict=True)) / len(labels)
        tell(f"accuracy {run.accuracy:.3f}")
    return run


def remove_old(client: Client) -> None:
    """Remove what runs before the last one have left, so that demonstrations don't pile up."""
    experiments = sorted(item.name for item in client.experiments.iterate() if item.name.startswith("demo-"))
    for name in experiments[:-1]:
        with suppress(Conflict):  # somebody uses a part of it for something else: it stays
            for endpoint in client.endpoints.list():
                if endpoint.name.startswith(f"{name}-"):
                    for stage in endpoint.endpoint_stage_list:
                        if not stage.is_default_stage:
                            client.stages.delete(stage.id, wait=True)
                    client.endpoints.delete(endpoint.id, wait=True)
            for model in client.models.list():
                if model.name.startswith(f"{name}-"):
                    client.models.delete(model.id, wait=True)
            for training in client.trainings.list(experiment=name):
                client.trainings.delete(training.id, wait=True)
            client.experiments.delete(name)
            client.storage.delete(f"{CONTAINER}/{name}", recursive=True)


class Steps:
    """What is going on, one line a step; several steps may go on at the same time."""

    def __init__(self) -> None:
        columns = (
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[seen]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        )
        self._progress = Progress(*columns, console=console, expand=True, disable=not console.is_terminal)

    def __enter__(self) -> Steps:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def step(self, title: str, run: Run | None = None, key: str = "") -> Iterator[Callable[[str], None]]:
        """A step; gives the function that shows how it stands. Its seconds go to `run`."""
        started = time.monotonic()
        task = self._progress.add_task(title, total=None, seen="")
        last, last_at = "", 0.0

        def tell(seen: str) -> None:
            nonlocal last, last_at
            # A build counts its files every second: in a log, a line every few seconds tells enough of one and the same step.
            is_due = alike(seen) != alike(last) or time.monotonic() - last_at > _LOG_SECONDS
            if seen != last and is_due and not console.is_terminal:
                console.print(f"{title}: {seen}", markup=False, soft_wrap=True)
                last_at = time.monotonic()
            last = seen
            self._progress.update(task, seen=seen)

        yield tell
        self._progress.update(task, total=1, completed=1)
        seconds = time.monotonic() - started
        if run is not None:
            run.seconds[key] = seconds
        if not console.is_terminal:
            console.print(f"{title}: done in {seconds:.1f} s", markup=False, soft_wrap=True)


def words(state: str, resource: object) -> str:
    """A state with what the platform says about it."""
    message = getattr(resource, "status_message", None)
    return f"{state}: {message}" if message else state


def alike(seen: str) -> str:
    """What is told, without its numbers."""
    return " ".join(word for word in seen.split() if not any(letter.isdigit() for letter in word))


def files_moved(at: Moved) -> str:
    """How far an upload is; elsewhere than on a terminal a line at its end is enough."""
    is_done = at.done_file_count == at.file_count
    return f"{at.file_count} files" if is_done or not console.is_terminal else f"{at.done_file_count}/{at.file_count}"


def write_csv(path: Path, features: list, labels: list) -> None:
    """A data set as the algorithms read it: a header, four measures and the class number."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sepal_length", "sepal_width", "petal_length", "petal_width", "class"])
        writer.writerows([*map(float, row), int(label)] for row, label in zip(features, labels, strict=True))


def show(runs: list[Run], total_seconds: float) -> None:
    """Print what came out."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("framework", "accuracy", *[f"{step} s" for step in runs[0].seconds]):
        table.add_column(heading, no_wrap=True)
    for run in runs:
        table.add_row(run.framework, f"{run.accuracy:.3f}", *[f"{value:.1f}" for value in run.seconds.values()])
    console.print(f"\nIris: {total_seconds:.1f} s in all", table, sep="\n")
    for run in runs:
        console.print(f"{run.framework}: POST {run.url}", soft_wrap=True)


def show_access(home: Path | None) -> None:
    """Print where the platform is and how to get in."""
    credentials = read_credentials(home_path(home))
    if credentials is None:
        return  # a platform elsewhere: whoever runs this has its credentials from there
    console.print(
        f"\nconsole       {credentials.console_url}  ({credentials.admin_user} / {credentials.admin_password})"
    )
    console.print(f"API           {credentials.api_url}")
    console.print(f"app key       {credentials.app_key}", f"access token  {credentials.access_token}", sep="\n")
    command = Path(sys.executable).parent / "modelyard"
    console.print(f"all of it     {os.path.relpath(command)} credentials", soft_wrap=True)


def explain(error: Exception) -> None:
    """Say why the demonstration failed."""
    if isinstance(error, WaitFailed):
        for line in error.last_log_lines:
            console.print(f"  | {escape(line)}")
    console.print(f"[red]The demonstration failed:[/red] {escape(str(error))}")
    for fault in error.faults if isinstance(error, ApiError) else ():
        console.print(f"  {escape(fault.field)}: {escape(fault.message)}")


if __name__ == "__main__":
    sys.exit(main())
