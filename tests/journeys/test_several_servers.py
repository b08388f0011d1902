"""Several server processes on one PostgreSQL, and a platform that moves to other ports."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from journey_platform import MakePlatform, RunningPlatform, eventually, free_ports
from journey_scripts import finish, output_of, start_script, upload_script

pytestmark = pytest.mark.slow

TRAININGS = 8
SCRIPT = "import time; print('ran', flush=True); time.sleep(1)"


def test_two_servers_share_the_work_and_do_nothing_twice(
    make_platform: MakePlatform, pg_url: str, tmp_path: Path
) -> None:
    platform = make_platform("--database-url", pg_url, "--servers", "2")
    first, second = eventually(lambda: _two(server_pids(platform)), "both servers run", 30.0)
    upload_script(platform, tmp_path / "source", "shared/source", SCRIPT)
    trainings = [start_script(platform, f"shared-{number}", "shared/source") for number in range(TRAININGS)]
    os.kill(second, signal.SIGKILL)
    eventually(lambda: second not in server_pids(platform) and _two(server_pids(platform)), "it is started again", 30.0)
    os.kill(first, signal.SIGKILL)
    for training in trainings:
        done = finish(platform, training)
        assert done.training_status_code == "COMPLETE", done.status_message
        assert output_of(platform, done).count("ran\n") == 1
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
    after = RunningPlatform(before.home, *free_ports(2), ())
    try:
        assert after.up().returncode == 0
        assert str(after.https_port) not in old_path
        done = finish(after, start_script(after, "after", old_path, model_upload="moved/output"))
        assert done.training_status_code == "COMPLETE", done.status_message
    finally:
        after.close()


def server_pids(platform: RunningPlatform) -> list[int]:
    """The processes of the servers that run now, the first one first."""
    status = platform.command("status", "--output", "json")
    return [row["pid"] for row in json.loads(status.stdout) if row["role"] == "server" and row["pid"]]


def _two(pids: list[int]) -> list[int] | None:
    return pids if len(pids) == 2 else None
