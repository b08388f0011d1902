"""The examples of the guides, as they stand there, on a real platform."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from journey_iris import split_flowers
from journey_platform import RunningPlatform, clean_environment

pytestmark = pytest.mark.slow

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


@pytest.fixture
def desk(platform: RunningPlatform, tmp_path: Path) -> Iterator[Path]:
    """A directory with the examples and the flowers in it, as the guides have it."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "data").mkdir()
    split_flowers(tmp_path / "data")
    yield tmp_path
    for name in ("flowers", "petals", "iris"):
        for endpoint in platform.client.endpoints.list(name=name):
            platform.client.endpoints.delete(endpoint.id, wait=True)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language; plain ones have none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def environment(platform: RunningPlatform) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return clean_environment(MODELYARD_HOME=str(platform.home), PATH=path)


def python(platform: RunningPlatform, text: str, place: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=place,
        env=environment(platform),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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


def test_the_sdk(platform: RunningPlatform, desk: Path) -> None:
    said = python(platform, blocks("docs/guides/python-sdk.md", "python")[0], desk)
    assert "COMPLETE" in said
    assert "'predictions'" in said


def test_the_command_line(platform: RunningPlatform, desk: Path) -> None:
    [commands] = [block for block in blocks("README.md", "") if block.startswith("modelyard storage upload")]
    assert '"predictions"' in shell(platform, commands, desk)


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
        line.partition("#")[0] for block in blocks("docs/guides/apply.md", "") for line in block.splitlines()
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
    assert "ready" in python(platform, blocks("docs/guides/apply.md", "python")[0], desk)
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
