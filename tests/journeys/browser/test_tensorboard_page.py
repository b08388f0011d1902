"""TensorBoard in a real browser: two runs side by side, behind the sign-in, started by looking (mission rows T13 and E3)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx
import pytest
from journey_platform import RunningPlatform, eventually
from journey_processes import processes_of, still_alive
from journey_scripts import finish, start_script, upload_script
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow

SERVES = "/opt/environment/bin/python -m modelyard.serving.tensorboard"

_EVENTS = """
    import os, struct, sys, time
    from pathlib import Path

    TABLE = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ 0x82F63B78 if value & 1 else value >> 1
        TABLE.append(value)

    def checksum(data):
        crc = 0xFFFFFFFF
        for byte in data:
            crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
        crc ^= 0xFFFFFFFF
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    def record(event):
        length = struct.pack("<Q", len(event))
        return length + checksum(length) + event + checksum(event)

    def field(number, content):
        return bytes([number << 3 | 2, len(content)]) + content

    def scalar(step, tag, value):
        inner = field(1, tag.encode()) + b"\\x15" + struct.pack("<f", value)
        return b"\\x09" + struct.pack("<d", time.time()) + b"\\x10" + bytes([step]) + field(5, field(1, inner))

    def begun():
        file = Path(os.environ["EM_TENSORBOARD_LOG_DIR"], f"events.out.tfevents.{int(time.time())}.host").open("wb", 0)
        file.write(record(b"\\x09" + struct.pack("<d", time.time()) + field(3, b"brain.Event:2")))
        return file
"""
WRITES_SCALARS = (
    _EVENTS
    + """
    speed = float(sys.argv[2])
    with begun() as file:
        for step in range(60):
            file.write(record(scalar(step, "loss", 1 / (1 + step * speed))))
"""
)
WRITES_ON = (
    _EVENTS
    + """
    with begun() as file:
        for step in range(120):
            file.write(record(scalar(step, "loss", 1 / (1 + step))))
            time.sleep(1)
"""
)


def test_two_runs_side_by_side(page: Page, platform: RunningPlatform, tmp_path: Path, screenshots: Path) -> None:
    source = upload_script(platform, tmp_path / "source", "board/source", WRITES_SCALARS)
    for name, speed in (("slow learner", "0.1"), ("빠른 학습", "0.9")):
        training = start_script(platform, name, source, new_experiment="side by side", hyperparameters={"speed": speed})
        finish(platform, training)
    experiment = platform.client.experiments.find("side by side")
    address = experiment.tensorboard_access_uri
    assert address == f"http://{experiment.id}.tb.localhost:{platform.http_port}/"
    assert platform.client.tensorboards.get(experiment=experiment.id).tensorboard_status_code == "STOPPED"

    page.goto(address)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.screenshot(path=screenshots / "sign-in.png")
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    page.get_by_label("Password").fill(platform.credentials["adminPassword"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Starting TensorBoard")).to_be_visible(timeout=20_000)
    page.screenshot(path=screenshots / "tensorboard-starting.png")
    page.wait_for_url(f"{address}**", timeout=240_000)
    expect(page.get_by_text("slow learner").first).to_be_visible(timeout=120_000)
    expect(page.get_by_text("빠른 학습").first).to_be_visible()
    expect(page.get_by_text("loss").first).to_be_visible()
    page.wait_for_timeout(1500)  # the chart draws itself
    page.screenshot(path=screenshots / "tensorboard.png")
    assert "code=" not in page.url
    names = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert names["modelyard_visit"]["domain"] == f"{experiment.id}.tb.localhost"
    assert names["modelyard_session"]["domain"] == "127.0.0.1"
    assert all(cookie["httpOnly"] for name, cookie in names.items() if name.startswith("modelyard_"))


def test_the_address_is_closed_to_others_and_goes_with_its_training(platform: RunningPlatform, tmp_path: Path) -> None:
    source = upload_script(platform, tmp_path / "source", "alone/source", WRITES_SCALARS)
    training = finish(platform, start_script(platform, "alone", source, hyperparameters={"speed": "0.5"}))
    boards = platform.client.tensorboards
    door, host = f"http://127.0.0.1:{platform.http_port}", f"{training.id}.tb.localhost:{platform.http_port}"
    with httpx.Client(base_url=door, headers={"host": host}, timeout=30) as browser:
        assert browser.get("/data/runs").status_code == 404  # nothing runs yet, and nothing of the platform is there
        url = boards.open(training=training.id)
        assert browser.get("/data/runs").status_code == 401
        entered = browser.get(url.partition(host)[2])
        assert entered.status_code == 302
        cookie = {"cookie": entered.headers["set-cookie"].partition(";")[0]}
        eventually(lambda: browser.get("/data/runs", headers=cookie).json() == ["alone"], "the run is seen", 30)
        assert browser.get("/data/plugin/scalars/tags", headers=cookie).json()["alone"].keys() == {"loss"}
        printed = platform.command("training", "tensorboard", "alone", "--no-browser")
        assert printed.returncode == 0, printed.stderr
        assert printed.stdout.startswith(f"http://{host}/.modelyard/enter?code=")
        boards.stop(training=training.id)
        eventually(lambda: boards.get(training=training.id).tensorboard_status_code == "STOPPED", "it has stopped", 30)
        began = time.monotonic()
        boards.open(training=training.id)
        print(f"started again within {time.monotonic() - began:.2f} s")
        platform.client.trainings.delete(training.id, wait=True, timeout_seconds=60)
        eventually(
            lambda: browser.get("/data/runs", headers=cookie).status_code == 404, "it went with its training", 30
        )


def test_a_run_is_shown_while_it_goes_on_and_a_killed_server_comes_back(
    platform: RunningPlatform, tmp_path: Path
) -> None:
    source = upload_script(platform, tmp_path / "source", "live/source", WRITES_ON)
    training = start_script(platform, "live", source)
    boards = platform.client.tensorboards
    door, host = f"http://127.0.0.1:{platform.http_port}", f"{training.id}.tb.localhost:{platform.http_port}"
    with httpx.Client(base_url=door, headers={"host": host}, timeout=30) as browser:
        entered = browser.get(boards.open(training=training.id).partition(host)[2])
        cookie = {"cookie": entered.headers["set-cookie"].partition(";")[0]}

        def steps_shown() -> int:
            answer = browser.get("/data/plugin/scalars/scalars?run=live&tag=loss", headers=cookie)
            return len(answer.json()) if answer.status_code == 200 else 0

        eventually(lambda: steps_shown() > 0, "the run is shown while it goes on", 60)
        seen = steps_shown()
        eventually(lambda: steps_shown() > seen, "what it writes is shown as it comes", 60)

        killed = [
            each for each in processes_of(platform.home) if SERVES in each.command and "bwrap" not in each.command
        ]
        assert killed
        for each in killed:
            os.kill(each.pid, signal.SIGKILL)
        eventually(lambda: still_alive(killed) == [], "the killed servers have ended", 30)
        eventually(lambda: steps_shown() > seen, "the same page goes on", 60)
    assert platform.client.trainings.get(training.id).training_status_code == "RUNNING"
    platform.client.trainings.stop(training.id)
