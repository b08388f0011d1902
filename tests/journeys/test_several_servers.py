"""Several server processes on one PostgreSQL, and a platform that moves to other ports."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from journey_platform import MakePlatform, RunningPlatform, eventually
from journey_scripts import finish, output_of, start_script, upload_script

from modelyard.resources.trainings.schemas import TrainingOut
from modelyard.testing.ports import free_port

pytestmark = pytest.mark.slow

TRAININGS = 6
SCRIPT = "import time; print('ran', flush=True); time.sleep(1)"
STEPS = 600
TELLING = f"""
    import json, os, struct, time, urllib.request

    def crc(content):
        value = 0xFFFFFFFF
        for byte in content:
            value ^= byte
            for _ in range(8):
                value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        value ^= 0xFFFFFFFF
        return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    def event(step):
        value = b"\\x0a\\x04loss\\x15" + struct.pack("<f", step)
        summary = b"\\x0a" + bytes([len(value)]) + value
        number = bytes([step & 0x7F | 0x80, step >> 7])
        content = b"\\x09" + struct.pack("<d", time.time()) + b"\\x10" + number + b"\\x2a" + bytes([len(summary)]) + summary
        length = struct.pack("<Q", len(content))
        return length + crc(length) + content + crc(content)

    place = f"{{os.environ['EM_API_URL']}}/v1.0/appkeys/{{os.environ['EM_APPKEY']}}/trainings/{{os.environ['EM_TRAINING_ID']}}/metrics"

    def send(steps):
        points = [{{"name": "sent", "value": step, "step": step, "time": "2026-01-01T00:00:00Z"}} for step in steps]
        headers = {{"Content-Type": "application/json", "x-easymaker-token": os.environ["EM_TOKEN"]}}
        request = urllib.request.Request(place, json.dumps({{"metricList": points}}).encode(), headers)
        while True:  # whoever is not answered sends it again
            try:
                return urllib.request.urlopen(request, timeout=20).close()
            except OSError:
                time.sleep(0.2)

    with open(os.environ["EM_TENSORBOARD_LOG_DIR"] + "/events.out.tfevents.1", "wb", buffering=0) as file:
        for step in range({STEPS}):
            print("line", step, "of", {STEPS}, flush=True)
            file.write(event(step))
            if step % 20 == 19:
                send(range(step - 19, step + 1))
                time.sleep(0.2)
    print("that was all")
"""


def test_two_servers_share_the_work_and_do_nothing_twice(
    make_platform: MakePlatform, pg_url: str, tmp_path: Path
) -> None:
    platform = make_platform("--database-url", pg_url, "--servers", "2")
    first, second = eventually(lambda: _two(server_pids(platform)), "both servers run", 30.0)
    upload_script(platform, tmp_path / "source", "shared/source", SCRIPT)
    upload_script(platform, tmp_path / "telling", "shared/telling", TELLING)
    telling = start_script(platform, "telling", "shared/telling", use_log=True)
    trainings = [start_script(platform, f"shared-{number}", "shared/source") for number in range(TRAININGS)]
    os.kill(second, signal.SIGKILL)
    eventually(lambda: second not in server_pids(platform) and _two(server_pids(platform)), "it is started again", 30.0)
    eventually(lambda: _steps_of(platform, telling, "loss"), "the first one reads event files", 60.0)
    os.kill(first, signal.SIGKILL)
    for training in trainings:
        done = finish(platform, training)
        assert done.training_status_code == "COMPLETE", done.status_message
        assert output_of(platform, done).count("ran\n") == 1
    done = finish(platform, telling)
    assert done.training_status_code == "COMPLETE", done.status_message
    _is_told_once_and_whole(platform, telling)
    assert platform.down().returncode == 0
    assert platform.left_over() == []


def test_several_servers_need_postgresql(make_platform: MakePlatform) -> None:
    platform = make_platform("--servers", "2", is_up=False)
    done = platform.up()
    assert done.returncode == 1
    assert "PostgreSQL" in done.stderr and "--database-url" in done.stderr
    assert platform.left_over() == []


def test_paths_and_workloads_follow_the_platform_to_other_ports(make_platform: MakePlatform, tmp_path: Path) -> None:
    before = make_platform()
    upload_script(before, tmp_path / "source", "moved/source", SCRIPT)
    old_path = before.client.storage.uri("moved/source")
    done = finish(before, start_script(before, "before", old_path, model_upload="moved/output"))
    assert done.training_status_code == "COMPLETE", done.status_message
    assert before.down().returncode == 0
    after = RunningPlatform(before.home, free_port(), free_port(), ())
    try:
        assert after.up().returncode == 0
        assert str(after.https_port) not in old_path
        done = finish(after, start_script(after, "after", old_path, model_upload="moved/output"))
        assert done.training_status_code == "COMPLETE", done.status_message
    finally:
        after.close()


def _is_told_once_and_whole(platform: RunningPlatform, training: TrainingOut) -> None:
    """Lines, event files and points that were sent: what the killed server has not taken in, the next one does, and nothing twice."""
    everything = list(range(STEPS))
    for name in ("loss", "sent"):
        eventually(
            lambda name=name: len(_steps_of(platform, training, name)) >= STEPS, f"all of '{name}' is there", 60.0
        )
        assert _steps_of(platform, training, name) == everything
    wanted = f'trainingId:"{training.id}"'
    eventually(
        lambda: platform.client.logs.search(f'{wanted} AND "that was all"').total_count,
        "all lines are there",
        60.0,
        0.5,
    )
    lines = [line["body"] for line in platform.client.logs.iterate(wanted, order="asc")]
    assert [line for line in lines if line.startswith("line ")] == [f"line {step} of {STEPS}" for step in everything]


def _steps_of(platform: RunningPlatform, training: TrainingOut, name: str) -> list[int]:
    if not platform.is_serving():
        return []
    found = platform.client.trainings.metrics(training.id, name, max_points=5000)
    return [] if not found or found[0].points is None else found[0].points.steps


def server_pids(platform: RunningPlatform) -> list[int]:
    """The processes of the servers that run now, the first one first."""
    status = platform.command("status", "--output", "json")
    return [row["pid"] for row in json.loads(status.stdout) if row["role"] == "server" and row["pid"]]


def _two(pids: list[int]) -> list[int] | None:
    return pids if len(pids) == 2 else None
