"""The examples of the guides, as they stand there, on a real platform."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import httpx
import pytest
from journey_iris import split_flowers
from journey_platform import RunningPlatform, clean_environment
from journey_scripts import upload_script

ROOT = Path(__file__).parents[2]
SECONDS = 400.0

# What the example of the file leaves to the reader: an algorithm that takes its hyperparameters, and data.
_TRAIN = """
import argparse, os, shutil
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.add_argument("--rate", type=float)
print(parser.parse_args())
shutil.copytree(os.environ["EM_DATASET_TRAIN"], os.environ["EM_MODEL_DIR"], dirs_exist_ok=True)
"""
_MAKE_MODEL = """
import sys, tensorflow as tf
class Doubler(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def __call__(self, x):
        return {"y": 2 * x + 1}
tf.saved_model.save(Doubler(), sys.argv[1])
"""


# Where the examples of a page don't run on the shared platform, and why.
ELSEWHERE = {
    "quickstart.md": "the README's commands, and those that start and end a platform",
    "operations.md": "commands for whole platforms; test_platform_commands.py has them",
    "existing-scripts.md": "a user's own script; tests/conformance/easymaker has them in all releases",
}
_SCRIPT = """
import os
loss, step = 0.05, 1
{writer}
writer.close()
{log}
log(1, accuracy=0.9)
"""


@pytest.fixture
def desk(platform: RunningPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the examples and the flowers in it, as the guides have it; the caller stands there."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "data").mkdir()
    split_flowers(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MODELYARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MODELYARD_HOME", str(platform.home))
    yield tmp_path
    take_endpoints_away(platform, "flowers", "petals", "iris")


def take_endpoints_away(platform: RunningPlatform, *names: str) -> None:
    client = platform.client
    for name in names:
        for endpoint in client.endpoints.list(name=name):
            for stage in endpoint.endpoint_stage_list:
                if not stage.is_default_stage:
                    client.stages.delete(stage.id, wait=True)
            client.endpoints.delete(endpoint.id, wait=True)


def fences(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page, each with its language."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language; plain ones have none."""
    return [text for name, text in fences(ROOT / page) if name == language]


def environment(platform: RunningPlatform) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return clean_environment(MODELYARD_HOME=str(platform.home), PATH=path, BROWSER="true")


def shell(platform: RunningPlatform, text: str, place: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=place,
        env=environment(platform),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_page(platform: RunningPlatform, page: str, place: Path) -> str:
    """Do what a guide does, from its beginning to its end: Python in one namespace with a `client`, commands that follow each other in one
    shell. What was printed."""
    names: dict[str, Any] = {}
    printed: list[str] = []
    runnable = [(name, text) for name, text in fences(ROOT / "docs/guides" / page) if name in {"sh", "python"}]
    assert runnable, page
    for language, group in groupby(runnable, key=itemgetter(0)):
        texts = [text for _, text in group]
        if language == "sh":
            printed.append(shell(platform, "\n".join(texts), place))
            continue
        for text in texts:
            names["client"] = platform.client  # an example that closes its own must not close the next one's
            with redirect_stdout(StringIO()) as output:
                exec(compile(text, page, "exec"), names)
            printed.append(output.getvalue())
    return "".join(printed)


def test_no_guide_has_an_example_that_is_not_run() -> None:
    """Whatever calls the SDK or the command line is `python` or `sh`, and the pages that have such are all below."""
    run = {
        "cli.md",
        "python-sdk.md",
        "scaling.md",
        "endpoints.md",
        "storage.md",
        "trainings.md",
        "notebooks.md",
        "metrics.md",
        "apply.md",
    }
    for page in sorted((ROOT / "docs/guides").glob("*.md")):
        if page.name in ELSEWHERE:
            continue
        languages = {language for language, _ in fences(page)}
        assert page.name in run or not languages & {"sh", "python"}, page.name
        hidden = [text for language, text in fences(page) if language not in {"sh", "python", "yaml"}]
        assert not [text for text in hidden if re.search(r"^(modelyard |client\.|from modelyard)", text, re.MULTILINE)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("cli.md", "trained with --epochs 4 --note it's quoted"),
        ("storage.md", "COMPLETE"),
        ("trainings.md", "guide fourth"),
    ],
)
def test_a_guide(platform: RunningPlatform, desk: Path, page: str, said: str) -> None:
    assert said in run_page(platform, page, desk)


@pytest.mark.slow
def test_the_guides_to_the_sdk_and_to_endpoints(platform: RunningPlatform, desk: Path) -> None:
    """The others go on with the endpoint and the model that the first one makes."""
    assert "'predictions'" in run_page(platform, "python-sdk.md", desk)
    assert '"predictions"' in run_page(platform, "endpoints.md", desk)
    take_endpoints_away(platform, "iris")
    run_page(platform, "scaling.md", desk)


@pytest.mark.slow
@pytest.mark.usefixtures("notebook_image")
def test_the_guide_to_notebooks(platform: RunningPlatform, desk: Path) -> None:
    try:
        assert "ACTIVE_HEALTHY" in run_page(platform, "notebooks.md", desk)
    finally:
        platform.client.notebooks.delete("try", wait=True)


@pytest.mark.slow
def test_the_guide_to_metrics(platform: RunningPlatform, desk: Path) -> None:
    """Its first two examples belong into a script, which this is; the others look at what it has written."""
    writer, log, _ = blocks("docs/guides/metrics.md", "python")
    upload_script(platform, desk / "script", "metered/source", _SCRIPT.format(writer=writer, log=log))
    training = platform.client.trainings.create(
        "my-training",
        new_experiment="my-experiment",
        image="Ubuntu 22.04 CPU PyTorch Training",
        flavor="m2.c1m2",
        source="metered/source",
        entry_point="train.py",
        hyperparameters={"lr": 0.01},
        model_upload="metered/output",
    )
    platform.client.trainings.wait(training.id)
    said = shell(platform, "\n".join(blocks("docs/guides/metrics.md", "sh")), desk)
    assert "my-training" in said
    names: dict[str, Any] = {"client": platform.client}
    exec(compile(blocks("docs/guides/metrics.md", "python")[2], "metrics.md", "exec"), names)
    assert names["loss"].last_value == pytest.approx(0.05)
    assert [run.training_name for run in names["table"].run_list] == ["my-training"]


@pytest.mark.slow
def test_the_command_line(platform: RunningPlatform, desk: Path) -> None:
    [commands] = [block for block in blocks("README.md", "") if block.startswith("modelyard storage upload")]
    assert '"predictions"' in shell(platform, commands, desk)


@pytest.mark.slow
def test_a_file_of_resources(
    platform: RunningPlatform, framework_python: Callable[[str, str], Path], desk: Path
) -> None:
    [text] = blocks("docs/guides/apply.md", "yaml")
    file = desk / "flowers.yaml"
    file.write_text(text)
    (desk / "source").mkdir()
    (desk / "source" / "train.py").write_text(_TRAIN)
    quiet = clean_environment(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    made = framework_python("TENSORFLOW", "2.15")
    subprocess.run([made, "-c", _MAKE_MODEL, desk / "model"], check=True, capture_output=True, env=quiet)
    platform.client.storage.upload(desk / "source", "iris/source")
    platform.client.storage.upload(desk / "model", "iris/data")
    client = platform.client

    look, _, do = [
        line.partition("#")[0] for block in blocks("docs/guides/apply.md", "sh") for line in block.splitlines()
    ]
    assert "create" in shell(platform, look, desk)
    assert not client.experiments.list(name="flowers")
    shell(platform, do, desk)
    assert client.storage.grants("iris") is not None
    assert client.endpoints.predict("flowers", {"instances": [[1.0, 1.0, 1.0, 1.0]]}, stage="candidate") == {
        "predictions": [[3.0, 3.0, 3.0, 3.0]]
    }

    # Again: nothing to do, and nothing new.
    said = json.loads(shell(platform, f"{look} --output json", desk))
    assert {step["action"] for step in said} == {"keep"}
    said = run_page(platform, "apply.md", desk)  # the command for people has nobody to ask here, and nothing to ask
    assert "ready" in said
    assert "all kept" in said
    assert len(client.trainings.list(name="flowers-1")) == 1

    # What may change is changed; what was made with another value stops all of it.
    file.write_text(text.replace("team: botany", "team: gardens"))
    shell(platform, do, desk)
    assert [(tag.tag_key, tag.tag_value) for tag in client.experiments.get("flowers").tag_list] == [("team", "gardens")]
    file.write_text(text.replace("epochs: 60", "epochs: 61"))
    refused = subprocess.run(
        shlex.split(do), capture_output=True, text=True, cwd=desk, env=environment(platform), check=False
    )
    assert refused.returncode == 2
    assert "blocked" in refused.stdout
    assert "trainings[0].hyperparameters" in refused.stderr
    assert [(tag.tag_key, tag.tag_value) for tag in client.experiments.get("flowers").tag_list] == [("team", "gardens")]

    # What is absent goes only where that was said twice.
    file.write_text(
        "stages: [{name: candidate, endpoint: flowers, absent: true}]\nendpoints: [{name: flowers, absent: true}]"
    )
    shell(platform, do.replace("--wait", ""), desk)
    assert client.stages.list(endpoint="flowers")
    shell(platform, f"{do} --delete".replace("--wait", ""), desk)
    assert not client.endpoints.list(name="flowers")
    assert httpx.get(f"{platform.api}/endpoint-stages", headers=platform.headers).json()["endpointStageList"] == []
