"""Metrics of real trainings: seen while the run goes on, complete after the server was killed in between, and side by side."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from journey_platform import MakePlatform, RunningPlatform, eventually
from journey_rest import Rest, faults, refused
from journey_scripts import finish, start_script, upload_script

pytestmark = pytest.mark.slow

PYTORCH_IMAGE = "Ubuntu 22.04 CPU PyTorch 2.13 Training"
STEPS = 2000
SCRIPT = f"""
    import math, os, time
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(os.environ["EM_TENSORBOARD_LOG_DIR"], flush_secs=1) as writer:
        for step in range({STEPS}):
            writer.add_scalar("loss", 1 / (step + 1), step)
            writer.add_scalar("noise/nan", math.nan if step % 100 == 7 else step, step)
            if step % 50 == 0:
                writer.flush()
                time.sleep(0.2)
    """
SELF_WRITING = """
    import argparse, json, os, time, urllib.request

    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float)
    lr = parser.parse_known_args()[0].lr
    place = f"{os.environ['EM_API_URL']}/v1.0/appkeys/{os.environ['EM_APPKEY']}/trainings/"
    body = json.dumps({"metricList": [{"name": "score", "value": lr * step, "step": step} for step in range(10)]}).encode()

    def write(training, key):
        headers = {"Content-Type": "application/json", "x-easymaker-token": os.environ["EM_TOKEN"], "Idempotency-Key": key}
        request = urllib.request.Request(place + training + "/metrics", body, headers)
        try:
            return urllib.request.urlopen(request).status
        except urllib.error.HTTPError as error:
            return error.code

    own = os.environ["EM_TRAINING_ID"]
    print("wrote", write(own, own), write(own, own), write(os.environ["EM_HP_OTHER"], "other"))
    held = bytearray(64 << 20)
    deadline = time.time() + 12
    while time.time() < deadline:
        pass
    """


def test_metrics_are_seen_live_and_are_complete_after_a_kill(make_platform: MakePlatform, tmp_path: Path) -> None:
    platform = make_platform()
    upload_script(platform, tmp_path / "source", "live/source", SCRIPT)
    training = start_script(platform, "live", "live/source", image=PYTORCH_IMAGE)

    def seen() -> int:
        return sum(each.point_count for each in platform.client.trainings.metrics(training.id) if each.name == "loss")

    count = eventually(seen, "the first metrics are there", 120.0)
    assert platform.client.trainings.get(training.id).training_status_code == "RUNNING"
    platform.kill_server()
    eventually(lambda: seen() > count, "more come after the kill", 120.0)
    platform.kill_server()
    finish(platform, training)
    eventually(lambda: seen() == STEPS, "all of it is there", 60.0)
    loss, nan = platform.client.trainings.metrics(training.id, "loss", "noise/nan", max_points=5000)
    assert loss.points is not None
    assert loss.points.steps == list(range(STEPS))
    assert (loss.min_step, loss.max_step) == (STEPS - 1, 0)
    assert nan.points is not None and nan.non_finite_count == STEPS // 100
    assert math.isnan(nan.points.values[7]) and nan.points.values[8] == 8.0
    directory = next((platform.home / "tensorboard").glob(f"*/{training.id}"))
    platform.client.trainings.delete(training.id)
    eventually(lambda: not directory.exists(), "the event files go with the training", 30.0)


def test_runs_write_metrics_themselves_and_stand_side_by_side(platform: RunningPlatform, tmp_path: Path) -> None:
    upload_script(platform, tmp_path / "source", "own/source", SELF_WRITING)
    trainings: list[Any] = []
    for lr in (0.5, 0.25):
        other = trainings[0].id if trainings else "nobody"
        made = start_script(
            platform, f"own-{lr}", "own/source", new_experiment="own", hyperparameters={"lr": lr, "other": other}
        )
        trainings.append(finish(platform, made))
    experiment = trainings[0].experiment.experiment_id
    for training in trainings:
        printed = "".join(platform.client.trainings.logs(training.id))
        assert "wrote 200 200 403\n" in printed, printed
        (score,) = platform.client.trainings.metrics(training.id, "score")
        assert score.point_count == 10 and score.points is not None and score.points.steps == list(range(10))
    compare = platform.client.experiments.compare
    assert [run.training_name for run in compare(experiment, sort="metrics.score:max").run_list] == [
        *("own-0.25", "own-0.5")
    ]
    found = compare(experiment, filters=["parameters.lr>0.3", "metrics.score>=4.5", "state=COMPLETE"])
    assert [run.training_name for run in found.run_list] == ["own-0.5"]
    assert found.parameter_name_list == ["lr", "other"] and found.metric_name_list == ["score"]
    assert found.run_list[0].metrics["score"].last == 4.5
    usage = platform.client.trainings.usage(trainings[0].id)
    (used,) = usage.usage_list
    assert max(used.memory_bytes_max) > 64 << 20
    assert max(used.cpu_cores_max) > 0.1
    assert usage.limits.memory_bytes == 1 << 30
    _commands_show_it(platform, trainings[0].id, experiment)
    _bad_requests_are_told(platform, trainings[0].id, experiment)


def _commands_show_it(platform: RunningPlatform, training_id: str, experiment_id: str) -> None:
    for arguments, words in (
        (("training", "metrics", training_id), ("score", "4.5 @ 9", "▁", "█")),
        (("training", "usage", training_id), ("MEMORY", "MiB")),
        (("experiment", "compare", experiment_id, "--sort", "-metrics.score"), ("own-0.5", "0.25", "4.5", "lr *")),
    ):
        done = platform.command(arguments[0], *arguments[1:])
        assert done.returncode == 0, done.stderr
        assert all(word in done.stdout for word in words), done.stdout
    done = platform.command("training", "metrics", training_id, "score", "--output", "json")
    assert json.loads(done.stdout)[0]["points"]["values"][-1] == 4.5


def _bad_requests_are_told(platform: RunningPlatform, training_id: str, experiment_id: str) -> None:
    with Rest(platform) as rest:
        place = f"/trainings/{training_id}/metrics"
        points = [
            {"name": "", "value": 1},
            {"name": "a", "value": "x"},
            {"name": "b", "value": 1, "time": "2026-01-01T00:00:00"},
        ]
        told = faults(rest.call("POST", place, {"metricList": points}))
        assert {"metricList[0].name", "metricList[1].value", "metricList[2].time"} <= told.keys()
        assert "metricList" in faults(rest.call("POST", place, {"metricList": []}))
        assert "metricList" in faults(rest.call("POST", place, {"metricList": [{"name": "a", "value": 1}] * 10_001}))
        assert "maxPoints" in faults(rest.call("GET", place, params={"maxPoints": 1}))
        assert "resolutionSeconds" in faults(
            rest.call("GET", f"/trainings/{training_id}/usage", params={"resolutionSeconds": 7})
        )
        wrong = {"filter": ["metrics.score>much", "nonsense"], "sort": "colour"}
        answer = rest.call("GET", f"/experiments/{experiment_id}/comparison", params=wrong)
        assert [fault["field"] for fault in answer.json()["faults"]] == ["filter", "filter", "sort"]
        for path in ("/trainings/x/metrics", "/trainings/x/usage", "/experiments/x/comparison"):
            refused(rest.call("GET", path), 404)
