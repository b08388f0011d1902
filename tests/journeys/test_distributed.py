"""Trainings of several instances, on the real frameworks: they start together, train one model together, and end together."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from journey_platform import RunningPlatform, eventually
from journey_rest import Rest, faults
from journey_scripts import finish, output_of, start_script, upload_script

from modelyard.resources.trainings.schemas import TrainingOut

pytestmark = pytest.mark.slow

TORCH_IMAGE = "Ubuntu 22.04 CPU PyTorch Training"
TENSORFLOW_IMAGE = "Ubuntu 22.04 CPU TensorFlow 2.15 Training"
FRAMEWORK_SECONDS = 300.0

# A linear model on 64 rows, all of them in each step: however many processes share the rows, the steps are the same.
TORCH_SCRIPT = """
    import json, os
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if size > 1:
        dist.init_process_group("gloo")
        assert (dist.get_rank(), dist.get_world_size()) == (rank, size)
    torch.manual_seed(7)
    rows = torch.randn(64, 3)
    wanted = rows @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3.0
    model = torch.nn.Linear(3, 1)
    net = DistributedDataParallel(model) if size > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(60):
        loss = torch.nn.functional.mse_loss(net(rows[rank::size]), wanted[rank::size])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    places = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    place = json.dumps({name: os.environ.get(name) for name in places})
    os.write(1, f"place {place}\\n".encode())  # whole: processes of torchrun share one output
    print("logs", os.environ["EM_TENSORBOARD_LOG_DIR"], os.path.isdir(os.environ["EM_TENSORBOARD_LOG_DIR"]), flush=True)
    weights = [round(float(value), 6) for value in (*model.weight.flatten(), model.bias)]
    with open(os.path.join(os.environ["EM_MODEL_DIR"], "weights.json"), "w") as file:
        json.dump({"rank": rank, "weights": weights}, file)
    if size > 1:
        dist.destroy_process_group()
"""

TENSORFLOW_SCRIPT = """
    import json, os
    import numpy as np
    import tensorflow as tf

    is_gang = "TF_CONFIG" in os.environ
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if is_gang else tf.distribute.get_strategy()
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(64, 3)).astype("float32")
    wanted = (rows @ np.array([[1.0], [-2.0], [0.5]], dtype="float32") + 3.0).astype("float32")
    with strategy.scope():
        model = tf.keras.Sequential([tf.keras.layers.Dense(1, kernel_initializer="zeros", input_shape=(3,))])
        model.compile(optimizer=tf.keras.optimizers.SGD(0.1), loss="mse")
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = tf.data.Dataset.from_tensor_slices((rows, wanted)).batch(64).with_options(options)
    model.fit(data, epochs=40, verbose=0)
    print("replicas", strategy.num_replicas_in_sync, flush=True)
    weights = [round(float(value), 5) for part in model.get_weights() for value in part.flatten()]
    with open(os.path.join(os.environ["EM_MODEL_DIR"], "weights.json"), "w") as file:
        json.dump({"weights": weights}, file)
"""

FAILING = """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    rank = int(os.environ["RANK"])
    print(f"rank {rank} began", flush=True)
    if rank == 1:
        time.sleep(1.5)
        print("this one can't go on", flush=True)
        sys.exit(7)
    while True:
        time.sleep(0.1)
"""


def _ends(platform: RunningPlatform, training: TrainingOut) -> list[datetime]:
    """When each instance ended, as the supervisors wrote it down: what a busy machine adds before a test sees it is not in it."""
    with closing(sqlite3.connect(f"file:{platform.home}/modelyard.db?mode=ro", uri=True)) as database:
        [[status]] = database.execute("SELECT status FROM workloads WHERE owner_id = ?", [training.id])
    return [datetime.fromisoformat(item["ended_at"]) for item in json.loads(status)["instances"]]


def result_of(platform: RunningPlatform, training: TrainingOut, directory: Path) -> dict[str, Any]:
    place = training.model_upload_uri.partition("/gang/")[2]
    platform.client.storage.download(f"gang/{place}", directory)
    return dict(json.loads((directory / "weights.json").read_text()))


def started(platform: RunningPlatform, name: str, source: str, image: str, **fields: Any) -> TrainingOut:
    return start_script(platform, name, source, image=image, flavor="c2.c2m2", use_log=True, **fields)


def test_pytorch_trains_the_same_model_in_several_processes(platform: RunningPlatform, tmp_path: Path) -> None:
    source = upload_script(platform, tmp_path / "source", "gang/torch", TORCH_SCRIPT)
    alone = started(platform, "torch-alone", source, TORCH_IMAGE)
    pair = started(platform, "torch-pair", source, TORCH_IMAGE, instance_count=2)
    square = started(
        platform, "torch-square", source, TORCH_IMAGE, instance_count=2, use_torchrun=True, nproc_per_node=2
    )
    for training in (alone, pair, square):
        finish(platform, training, FRAMEWORK_SECONDS)

    expected = result_of(platform, alone, tmp_path / "alone")["weights"]
    assert expected == pytest.approx([1.0, -2.0, 0.5, 3.0], abs=0.05)
    for training in (pair, square):
        result = result_of(platform, training, tmp_path / training.name)
        assert result["weights"] == pytest.approx(expected, abs=1e-4)
    assert result_of(platform, pair, tmp_path / "again")["rank"] == 0

    places = [_place(output_of(platform, pair, index)) for index in (0, 1)]
    assert [
        (place["RANK"], place["WORLD_SIZE"], place["LOCAL_RANK"], place["LOCAL_WORLD_SIZE"], place["NODE_RANK"])
        for place in places
    ] == [("0", "2", "0", "1", "0"), ("1", "2", "0", "1", "1")]
    assert places[0]["MASTER_PORT"] == places[1]["MASTER_PORT"]
    assert "logs /mnt/tensorboard True" in output_of(platform, pair, 0)
    assert "logs /mnt/tensorboard/instance-1 True" in output_of(platform, pair, 1)
    assert "/workspace/model of this instance is not kept: instance 0 keeps" in output_of(platform, pair, 1)

    square_places = [
        (place["RANK"], place["LOCAL_RANK"], place["LOCAL_WORLD_SIZE"], place["WORLD_SIZE"])
        for index in (0, 1)
        for place in _places(output_of(platform, square, index))
    ]
    assert sorted(square_places) == [
        ("0", "0", "2", "4"),
        ("1", "1", "2", "4"),
        ("2", "0", "2", "4"),
        ("3", "1", "2", "4"),
    ]
    assert _place(output_of(platform, alone))["WORLD_SIZE"] is None

    query = f'trainingId:"{pair.id}" AND instanceIndex:"1" AND body:"LOCAL_RANK"'
    line = eventually(lambda: platform.client.logs.search(query).log_list, "the line is in the log store")[0]
    assert '"RANK": "1"' in line["body"]


def test_tensorflow_trains_the_same_model_on_two_instances(platform: RunningPlatform, tmp_path: Path) -> None:
    source = upload_script(platform, tmp_path / "source", "gang/tensorflow", TENSORFLOW_SCRIPT)
    alone = started(platform, "tf-alone", source, TENSORFLOW_IMAGE)
    pair = started(platform, "tf-pair", source, TENSORFLOW_IMAGE, instance_count=2)
    for training in (alone, pair):
        finish(platform, training, FRAMEWORK_SECONDS)
    expected = result_of(platform, alone, tmp_path / "alone")["weights"]
    assert expected == pytest.approx([1.0, -2.0, 0.5, 3.0], abs=0.1)
    assert result_of(platform, pair, tmp_path / "pair")["weights"] == pytest.approx(expected, abs=1e-3)
    assert "replicas 2" in output_of(platform, pair, 1)


def test_one_that_fails_ends_the_others(platform: RunningPlatform, tmp_path: Path) -> None:
    source = upload_script(platform, tmp_path / "source", "gang/failing", FAILING)
    training = start_script(platform, "failing", source, instance_count=2)
    eventually(lambda: "can't go on" in output_of(platform, training, 1), "the second instance fails", 120.0)
    ended = eventually(lambda: _ended(platform, training), "the run ends", 60.0)
    first, last = sorted(_ends(platform, training))
    print(f"the others ended {last - first} after the one that failed")
    assert last - first < timedelta(seconds=5)
    assert (ended.training_status_code, ended.exit_code) == ("FAIL_TRAIN", 7)
    assert ended.status_message == "Instance 1: The process ended with exit code 7."
    assert "this one can't go on" in ended.last_log_lines
    assert "rank 0 began" in output_of(platform, training, 0)


def test_torchrun_is_checked_before_anything_starts(platform: RunningPlatform, tmp_path: Path) -> None:
    source = upload_script(platform, tmp_path / "source", "gang/check", TORCH_SCRIPT)
    uri = platform.client.storage.uri(source)
    body = {
        "trainingName": "checked",
        "imageId": TORCH_IMAGE,
        "flavorId": "c2.c2m2",
        "sourceDirUri": uri,
        "entryPoint": "train.py",
        "modelUploadUri": uri + "-out",
        "useTorchrun": True,
        "nprocPerNode": 3,
    }
    with Rest(platform) as rest:
        told = faults(rest.call("POST", "/trainings", body))
        assert told == {
            "nprocPerNode": "must be from 1 to 2, one for each core of the instance type 'c2.c2m2', not 3",
        }
        told = faults(rest.call("POST", "/trainings", body | {"imageId": TENSORFLOW_IMAGE, "nprocPerNode": -1}))
        assert set(told) == {"useTorchrun", "nprocPerNode"}
        assert "is for TENSORFLOW; choose a PyTorch image, or leave torchrun off" in told["useTorchrun"]


def _ended(platform: RunningPlatform, training: TrainingOut) -> TrainingOut | None:
    now = platform.client.trainings.get(training.id)
    return now if now.training_status_code in ("COMPLETE", "FAIL_TRAIN", "STOPPED", "CREATE_FAILED") else None


def _place(output: str) -> dict[str, str | None]:
    return _places(output)[0]


def _places(output: str) -> list[dict[str, str | None]]:
    # Libraries that write beside may have begun the line.
    return [json.loads(found) for found in re.findall(r"place ({[^}]*})", output)]
