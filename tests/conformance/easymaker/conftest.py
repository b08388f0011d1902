"""The official client in five of its releases, each in an environment of its own, and one platform that all of them are pointed at.

The packages come from the package index, pinned with hashes in requirements/easymaker-*.lock. The scripts in `scripts/` are what users of
that time wrote; the test gives them the variables that `modelyard env` prints, and nothing else of ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "journeys"))
sys.path.insert(0, str(Path(__file__).parent))

from client_releases import Client, MakeClient
from journey_platform import RunningPlatform, clean_environment

from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.testing.ports import free_port

IMAGE = "Ubuntu 22.04 CPU TensorFlow Training"
FLAVOR = "c2.c1m1"

# A model whose answers are known: twice the question plus one. Made by the framework, copied by the trainings.
_MAKE_MODEL = """
import sys, tensorflow as tf
class Doubler(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def __call__(self, x):
        return {"y": 2 * x + 1}
tf.saved_model.save(Doubler(), sys.argv[1])
"""

_TRAIN = """
import argparse, os, shutil
parser = argparse.ArgumentParser()
parser.add_argument("--factor", type=int)
factor = parser.parse_args().factor
assert factor == 2 and os.environ["EM_HP_FACTOR"] == "2"
print("the factor is", factor)
shutil.copytree(os.environ["EM_DATASET_TRAIN"], os.environ["EM_MODEL_DIR"], dirs_exist_ok=True)
"""


@pytest.fixture(scope="session")
def platform(
    framework_python: Callable[[str, str], Path],
    environment_store: EnvironmentStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningPlatform]:
    """A platform for all releases. It hears log lines without a credential, which release 1.0 needs."""
    framework_python("TENSORFLOW", "2.15")
    framework_python("PYTHON", "3.11")
    home = tmp_path_factory.mktemp("platform")
    home.joinpath("environments").symlink_to(environment_store.root)
    home.joinpath("config.toml").write_text("[logs]\nhears_app_keys = true\n")
    running = RunningPlatform(home, free_port(), free_port())
    try:
        done = running.up()
        assert done.returncode == 0, done.stdout + done.stderr + running.server_log()
        running.client.storage.create_container("flows")
        yield running
    finally:
        running.close()


@pytest.fixture(scope="session")
def files(framework_python: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What users have on their disks: an algorithm, a data set (here the model that trainings hand on), a large file, a pipeline."""
    place = tmp_path_factory.mktemp("files")
    for name in ("source", "data"):
        (place / name).mkdir()
    python = framework_python("TENSORFLOW", "2.15")
    quiet = clean_environment(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    subprocess.run([python, "-c", _MAKE_MODEL, place / "data"], check=True, capture_output=True, env=quiet)
    (place / "data" / "note 한글 100%.txt").write_text("a name that needs quoting")
    (place / "source" / "train.py").write_text(_TRAIN)
    (place / "source" / "lib").mkdir()
    (place / "source" / "lib" / "more.py").write_text("MORE = 1\n")
    (place / "large.bin").write_bytes(os.urandom(1_100_000))
    (place / "pipeline.yaml").write_text("pipelineInfo: {name: p}\n")
    return {
        "source": str(place / "source"),
        "data": str(place / "data"),
        "large": str(place / "large.bin"),
        "pipeline": str(place / "pipeline.yaml"),
    }


@pytest.fixture
def make_client(
    platform: RunningPlatform, locked_python: Callable[[str], Path], files: Mapping[str, str], tmp_path: Path
) -> MakeClient:
    """`make_client("2.1.5", way="unchanged")`: a release with the variables that `modelyard env` prints for this way."""

    def make(release: str, way: str = "unchanged", host: str = "kr1-api-object-storage.nhncloudservice.com") -> Client:
        printed = platform.command("env", "--way", way, "--format", "json")
        assert printed.returncode == 0, printed.stderr
        known = platform.credentials
        (tmp_path / "download").mkdir(exist_ok=True)
        name = f"flow-{release.replace('.', '-')}"
        return Client(
            locked_python(f"easymaker-{release}"),
            json.loads(printed.stdout),
            {
                **files,
                "name": name,
                "image": IMAGE,
                "flavor": FLAVOR,
                "store": f"obs://{host}/v1/AUTH_{known['tenantId']}/flows/{name}",
                "user": known["objectStoreUser"],
                "password": known["objectStorePassword"],
                "download": str(tmp_path / "download"),
                "question": {"instances": [[1.0, 2.0, 3.0, 4.0]]},
                "v2_question": {
                    "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}]
                },
            },
        )

    return make
