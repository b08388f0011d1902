"""The commands on the platform itself: how it starts, refuses to start, tells about itself and ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from journey_platform import (
    DOWN_SECONDS,
    UP_SECONDS,
    MakePlatform,
    RunningPlatform,
    clean_environment,
    eventually,
)
from journey_rest import Rest, refused
from journey_scripts import finish, output_of, start_script, upload_script

from modelyard.db.migrate import HEAD
from modelyard.resources.trainings.schemas import TrainingOut
from modelyard.testing.ports import free_port

pytestmark = pytest.mark.slow

CREDENTIALS = [
    "consoleUrl",
    "apiUrl",
    "httpsUrl",
    "appKey",
    "accessToken",
    "secretKey",
    "region",
    "tenantId",
    "apiUserId",
    "objectStoreUrl",
    "objectStoreUser",
    "objectStorePassword",
    "caFile",
    "adminUser",
    "adminPassword",
    "caBundle",
]
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
SMALL_DISK_BYTES = 96 * 2**20


@pytest.mark.parametrize("which", ["http", "https"])
def test_a_taken_port_is_named(make_platform: MakePlatform, which: str) -> None:
    platform = make_platform(is_up=False)
    port = platform.http_port if which == "http" else platform.https_port
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        holder.listen()
        done = platform.up()
    assert done.returncode == 1
    [sentence] = done.stderr.strip().splitlines()
    assert sentence.startswith("modelyard: ") and str(port) in sentence, sentence
    assert platform.left_over() == []
    again = platform.up()
    assert again.returncode == 0, again.stderr


def test_a_home_of_another_version_is_refused_before_anything_runs(make_platform: MakePlatform) -> None:
    platform = make_platform(is_up=False)
    database = platform.home / "modelyard.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            f"CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('{HEAD}')"
        )
    done = platform.up()
    assert done.returncode == 1
    [sentence] = done.stderr.strip().splitlines()
    assert "was made by another version of Modelyard: it has no table " in sentence
    assert "begin anew with another --home" in sentence
    assert platform.left_over() == []
    assert not (platform.home / "gateway").exists()


def test_a_second_up_on_one_home_is_refused(platform: RunningPlatform) -> None:
    server = platform.server_pid()
    done = platform.command("up", "--detach", "--http-port", "1", "--https-port", "2", seconds=UP_SECONDS)
    assert done.returncode == 1
    assert "already runs" in done.stderr and str(platform.home) in done.stderr, done.stderr
    assert platform.server_pid() == server and platform.is_serving()
    assert platform.credentials["apiUrl"].endswith(str(platform.http_port))
    direct = subprocess.run(
        [*platform.argv("up"), *platform.up_arguments],
        capture_output=True,
        text=True,
        timeout=UP_SECONDS,
        check=False,
        env=clean_environment(),
    )
    assert direct.returncode == 1 and "already runs" in direct.stderr
    assert platform.is_serving()


def test_of_several_ups_at_the_same_moment_one_wins(make_platform: MakePlatform) -> None:
    platform = make_platform(is_up=False)
    with ThreadPoolExecutor(3) as pool:
        done = [each.result() for each in [pool.submit(platform.up) for _ in range(3)]]
    assert sorted(each.returncode for each in done) == [0, 1, 1], done
    assert all("already runs" in each.stderr for each in done if each.returncode), done
    assert platform.is_serving()
    assert [row["state"] for row in platform.status()] == ["RUNNING"] * 3


def test_a_home_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    # As root a directory of another user's is needed, and another user; otherwise our own rights are taken away.
    prefix = NOBODY if os.geteuid() == 0 else ()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    for home in (closed, closed / "below", Path("/nowhere/home")):
        platform = RunningPlatform(home, free_port(), free_port())
        done = platform.command("up", "--detach", *platform.up_arguments, prefix=prefix)
        assert done.returncode == 1
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1 and str(platform.home) in lines[0] and "--home" in lines[0], done.stderr


def test_a_home_with_too_long_a_name_is_refused(tmp_path: Path) -> None:
    platform = RunningPlatform(tmp_path / ("long" * 25), 1, 2)
    done = platform.up()
    assert done.returncode == 1
    assert "choose a shorter one with --home" in done.stderr, done.stderr
    assert platform.left_over() == []


def test_settings_that_make_no_sense_are_refused(make_platform: MakePlatform) -> None:
    platform = make_platform(is_up=False)
    for text, words in (
        ("http_port = 99999999", "http_port"),
        ("not toml", "config.toml"),
        ("[compute]\nfast = 1", "compute.fast"),
        ('[compute]\nisolation = "SOME"', "compute.isolation"),
    ):
        (platform.home / "config.toml").write_text(text + "\n")
        refused_start(platform.command("up", "--detach", seconds=UP_SECONDS), words)
    (platform.home / "config.toml").unlink()
    for arguments, words in (
        (("--http-port", "0"), "http_port"),
        (("--database-url", "nonsense"), "database_url"),
        (("--database-url", "mysql://user:secret@127.0.0.1/nothing"), "postgresql://"),
        (("--database-url", "postgresql://user:secret@127.0.0.1:1/nothing"), "127.0.0.1:1/nothing can't be used"),
    ):
        refused_start(platform.command("up", "--detach", *arguments, seconds=UP_SECONDS), words)
    assert platform.left_over() == []


def test_down_ends_all_and_may_be_said_again(make_platform: MakePlatform) -> None:
    platform = make_platform()
    first = platform.down()
    assert first.returncode == 0, first.stderr
    assert platform.left_over() == []
    second = platform.down()
    assert second.returncode == 0 and "not running" in second.stdout, second.stdout + second.stderr
    status = platform.command("status", "--output", "json")
    assert status.returncode == 1
    assert {row["state"] for row in json.loads(status.stdout)} == {"STOPPED"}
    never = RunningPlatform(platform.home.with_name("never"), 1, 2)
    assert never.command("down").returncode == 0
    assert not never.home.exists()


def test_down_ends_also_what_a_killed_keeper_has_left(make_platform: MakePlatform, tmp_path: Path) -> None:
    platform = make_platform()
    upload_script(platform, tmp_path / "source", "left/source", "import time; print('on', flush=True); time.sleep(600)")
    training = start_script(platform, "left", "left/source")
    eventually(lambda: "on" in output_of(platform, training), "the script runs")
    platform.remember()
    server = platform.server_pid()
    for pid in (platform.pid_of("keeper"), server):
        os.kill(pid, signal.SIGKILL)
    done = platform.down()
    assert done.returncode == 0 and "nothing of it is left" in done.stdout, done.stdout + done.stderr
    assert platform.left_over() == []


def test_ctrl_c_ends_a_platform_in_the_foreground(make_platform: MakePlatform, tmp_path: Path) -> None:
    platform = make_platform(is_up=False)
    output = tmp_path / "output"
    with output.open("wb") as file:
        foreground = subprocess.Popen(
            [*platform.argv("up"), *platform.up_arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # as a terminal does, so that the signal reaches the group
            env=clean_environment(),
        )
    try:
        platform.wait_until_serving()
        upload_script(
            platform, tmp_path / "source", "c/source", "import time; print('on', flush=True); time.sleep(600)"
        )
        training = start_script(platform, "interrupted", "c/source")
        eventually(lambda: platform.instances(training.id), "an instance runs")
        platform.remember()
        os.killpg(foreground.pid, signal.SIGINT)
        assert foreground.wait(DOWN_SECONDS) == 0, output.read_text()
    finally:
        if foreground.poll() is None:
            foreground.kill()
    assert platform.left_over() == []
    text = output.read_text()
    assert f"https://127.0.0.1:{platform.https_port}" in text
    assert "Traceback" not in text


def test_status_tells_processes_and_workloads(platform: RunningPlatform, tmp_path: Path) -> None:
    upload_script(platform, tmp_path, "status/source", "import time; time.sleep(600)")
    training = start_script(platform, "status", "status/source")
    eventually(lambda: _state(platform, training) == "RUNNING", "the script runs")
    rows = platform.status()
    assert {frozenset(row) for row in rows} == {frozenset({"role", "name", "title", "pid", "state", "memoryBytes"})}
    by_role = {row["role"]: row for row in rows}
    assert {"keeper", "server", "gateway", "training"} <= set(by_role)
    assert by_role["training"]["name"] == f"{training.id}.0.0"
    assert by_role["training"]["title"] == "training 'status'"
    for row in rows:
        assert row["state"] == "RUNNING", row
        assert Path(f"/proc/{row['pid']}").exists()
        assert row["memoryBytes"] > 2**20, row
    table = platform.command("status").stdout
    assert re.search(r"^gateway +\d+ +RUNNING +\d+ MiB", table, re.MULTILINE), table
    platform.client.trainings.stop(training.id)
    eventually(lambda: _state(platform, training) == "STOPPED", "the training stops")


def test_credentials_tell_all_that_is_needed(platform: RunningPlatform) -> None:
    known = platform.credentials
    assert list(known) == CREDENTIALS
    assert all(known.values())
    health = httpx.get(f"{known['httpsUrl']}/health", verify=_trust(known["caFile"]))
    assert health.status_code == 200
    login = {
        "auth": {
            "tenantId": known["tenantId"],
            "passwordCredentials": {"username": known["objectStoreUser"], "password": known["objectStorePassword"]},
        }
    }
    with Rest(platform) as rest:
        token = rest.send("POST", "/v2.0/tokens", json=login).json()["access"]["token"]["id"]
        assert rest.send("GET", known["objectStoreUrl"], headers={"X-Auth-Token": token}).status_code in (200, 204)
        path = f"/v1.0/appkeys/{known['appKey']}/flavors"
        assert rest.send("GET", path, headers={"X-Secret-Key": known["secretKey"]}).status_code == 200
        answer = rest.send(
            "POST",
            "/oauth2/token/create",
            auth=(known["adminUser"], known["adminPassword"]),
            data={"grant_type": "client_credentials"},
        )
        bearer = {"x-nhn-authorization": f"Bearer {answer.json()['access_token']}"}
        assert rest.send("GET", path, headers=bearer).status_code == 200
        refused(rest.send("GET", path), 401)
    assert (platform.home / "secrets").stat().st_mode & 0o077 == 0
    never = RunningPlatform(platform.home.with_name("never"), 1, 2)
    done = never.command("credentials")
    assert done.returncode == 1 and "modelyard up" in done.stderr, done.stderr


def test_doctor_checks_the_machine(platform: RunningPlatform, make_platform: MakePlatform) -> None:
    done = platform.command("doctor", "--output", "json")
    findings = json.loads(done.stdout)
    assert {frozenset(each) for each in findings} == {frozenset({"check", "level", "message", "advice"})}
    checks = {each["check"] for each in findings}
    assert {"home", "HTTP port", "HTTPS port", "disk", "memory", "clock", "isolation", "image"} <= checks, checks
    assert {each["level"] for each in findings} <= {"ok", "warning"}, findings
    assert done.returncode == 0
    other = make_platform(is_up=False)
    (other.home / "config.toml").write_text(f"http_port = {platform.http_port}\nhttps_port = {other.https_port}\n")
    done = other.command("doctor")
    assert done.returncode == 1
    assert re.search(rf"PROBLEM +HTTP port: .*{platform.http_port}", done.stdout), done.stdout
    assert "--http-port" in done.stdout


def test_postgresql_holds_everything(make_platform: MakePlatform, pg_url: str, tmp_path: Path) -> None:
    platform = make_platform("--database-url", pg_url)
    upload_script(platform, tmp_path / "source", "pg/source", "print('on PostgreSQL')")
    training = finish(platform, start_script(platform, "on-postgresql", "pg/source", use_log=True))
    assert training.training_status_code == "COMPLETE"
    assert not (platform.home / "modelyard.db").exists()
    assert platform.down().returncode == 0
    assert platform.left_over() == []
    assert platform.up().returncode == 0
    assert platform.client.trainings.get(training.id).training_status_code == "COMPLETE"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of its own that is soon full."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "small", place], check=True)
    yield place
    eventually(lambda: subprocess.run(["umount", place], check=False).returncode == 0, "the disk is free", 10.0, 0.5)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_told_and_damages_nothing(
    small_disk: Path, make_platform: MakePlatform, images: Path, tmp_path: Path
) -> None:
    platform = make_platform(is_up=False, name="disk/home")
    assert platform.up().returncode == 0
    upload_script(platform, tmp_path / "source", "full/source", "print('hello')")
    account = platform.credentials["objectStoreUrl"]
    headers = {"X-Auth-Token": platform.credentials["accessToken"]}
    with Rest(platform) as rest:
        kept = rest.send("PUT", f"{account}/full/kept", headers=headers, content=b"k" * 2**20)
        assert kept.status_code == 201
        too_big = rest.send("PUT", f"{account}/full/too-big", headers=headers, content=b"x" * SMALL_DISK_BYTES)
        assert too_big.status_code == 507, too_big.text
        assert rest.send("HEAD", f"{account}/full/too-big", headers=headers).status_code == 404

        ballast = small_disk / "ballast"
        _fill(ballast)
        assert "no room" in refused(rest.call("POST", "/experiments", {"experimentName": "no room"}), 507)
        assert rest.send("GET", f"{account}/full/kept", headers=headers).content == b"k" * 2**20
        assert rest.call("GET", "/trainings").status_code == 200
        ballast.unlink()

        assert rest.call("POST", "/experiments", {"experimentName": "room again"}).status_code == 200
    training = finish(platform, start_script(platform, "after-all", "full/source"))
    assert training.training_status_code == "COMPLETE"
    assert platform.down().returncode == 0
    assert platform.left_over() == []
    _fill(ballast)
    done = platform.up()
    assert done.returncode == 1
    assert "space" in done.stderr, done.stderr
    ballast.unlink()
    assert platform.up().returncode == 0
    assert platform.client.trainings.get(training.id).training_status_code == "COMPLETE"
    platform.close()


def refused_start(done: subprocess.CompletedProcess[str], words: str) -> None:
    """`up` must have said why it did not start, with these words, in one line that gives no secret away."""
    assert done.returncode == 1
    [sentence] = done.stderr.strip().splitlines()
    assert sentence.startswith("modelyard: ") and words in sentence, sentence
    assert "Traceback" not in sentence and "secret" not in sentence


def _state(platform: RunningPlatform, training: TrainingOut) -> str:
    return platform.client.trainings.get(training.id).training_status_code


def _trust(ca_file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)


def _fill(file: Path) -> None:
    """Write until there is no room."""
    with file.open("wb", buffering=0) as out:
        for size in (2**20, 4096, 1):
            while shutil.disk_usage(file.parent).free >= size:
                try:
                    out.write(b"\0" * size)
                except OSError:
                    break
