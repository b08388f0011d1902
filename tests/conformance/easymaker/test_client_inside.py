"""The official client inside a training: importing it is enough, and it may do what the project's system account may."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from client_releases import Client, MakeClient
from journey_platform import RunningPlatform
from journey_scripts import finish, output_of, start_script, upload_script

pytestmark = pytest.mark.slow

SCRIPT = """
import os
import pathlib
import easymaker

assert "EM_ACCESS_TOKEN" not in os.environ
place = os.environ["EM_HP_PLACE"]
here = pathlib.Path("result.txt")
here.write_text("from inside")
easymaker.upload(f"{place}/results", str(here))
easymaker.download(f"{place}/results", "back")
print("read back:", pathlib.Path("back/result.txt").read_text())
mine = easymaker.Training.get_by_id(os.environ["EM_TRAINING_ID"])
print("I am", mine.training_name, mine.status, "in", mine.experiment.experiment_name)
"""


def test_a_training_needs_no_init(platform: RunningPlatform, tmp_path: Path) -> None:
    place = f"obs://127.0.0.1:{platform.https_port}/v1/AUTH_{platform.credentials['tenantId']}/flows/inside"
    source = upload_script(platform, tmp_path, "flows/inside/source", SCRIPT, requirements_txt="easymaker==2.1.5\n")
    training = start_script(
        platform, "inside", source, hyperparameters={"place": place}, model_upload="flows/inside/model"
    )
    finish(platform, training, seconds=300)
    said = output_of(platform, training)
    assert "read back: from inside" in said
    assert "I am inside RUNNING in journeys" in said
    assert platform.client.storage.read("flows/inside/results/result.txt") == b"from inside"


def test_a_file_uploaded_in_parts_is_whole_as_a_data_set(
    make_client: MakeClient, platform: RunningPlatform, tmp_path: Path
) -> None:
    client: Client = make_client("2.1.5")
    store = client.given["store"]
    client.script("upload_in_parts.py")
    script = """
        import hashlib, os, pathlib
        for path in sorted(pathlib.Path(os.environ["EM_DATASET_PARTS"]).rglob("*")):
            if path.is_file():
                print("found", path.name, hashlib.md5(path.read_bytes()).hexdigest())
    """
    source = upload_script(platform, tmp_path, "flows/parts/source", script)
    training = start_script(
        platform, "parts", source, datasets={"parts": f"{store}/parts"}, model_upload="flows/parts/model"
    )
    finish(platform, training, seconds=300)
    digest = hashlib.md5(Path(client.given["large"]).read_bytes()).hexdigest()
    assert f"found large.bin {digest}" in output_of(platform, training)
