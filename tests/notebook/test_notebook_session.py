"""A notebook's session with a real Jupyter server, without a platform: what ends or hangs is started again; when nobody is at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import modelyard
from modelyard.notebook.activity import ActivityGauge, get
from modelyard.notebook.hearing import Told
from modelyard.notebook.plan import Plan
from modelyard.notebook.session import Session

PATIENCE_SECONDS = 90.0


def make_plan(place: Path, image: str, **fields: Any) -> Plan:
    for name in ("root/easymaker", "run"):
        (place / name).mkdir(parents=True)
    home = f"{place}/root"
    return Plan(
        home=home, data=f"{home}/easymaker", base=f"{place}/opt/conda", image=image, run=f"{place}/run",
        title="Python", variables={}, **fields,
    )  # fmt: skip


@pytest.mark.slow
def test_jupyter_is_started_again_when_it_ends_and_when_it_hangs(tmp_path: Path, image: str) -> None:
    plan = make_plan(tmp_path, image, silence_seconds=2.0, grace_seconds=10.0)
    (tmp_path / "plan.json").write_text(plan.to_json())
    environment = {**os.environ, "PYTHONPATH": str(Path(modelyard.__file__).parent.parent)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [f"{image}/bin/python", "-m", "modelyard.notebook", str(tmp_path / "plan.json")]
    with (tmp_path / "output").open("wb") as output:
        session = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        first = answering(plan, None)
        os.kill(first, signal.SIGKILL)
        second = answering(plan, first)
        os.kill(second, signal.SIGSTOP)
        answering(plan, second)
        said = (tmp_path / "output").read_text()
        assert "The Jupyter server ended (signal SIGKILL)" in said
        assert "has not answered for" in said
        session.send_signal(signal.SIGTERM)
        assert session.wait(PATIENCE_SECONDS) == 0
    finally:
        session.kill()
        session.wait()


def answering(plan: Plan, former: int | None) -> int:
    """The process of the Jupyter server, once it answers and is another than the former one."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert time.monotonic() < deadline
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = entry.read_bytes()
            except OSError:
                continue
            pid = int(entry.parent.name)
            if f"{plan.run}/jupyter.json".encode() in command and pid != former:
                try:
                    get(f"{plan.run}/jupyter.sock", "/api")
                except (OSError, ValueError):
                    break
                if (
                    json.loads(Path(plan.run, "report.json").read_text())["step"] == "running"
                ):  # the session has seen it too
                    return pid
        time.sleep(0.1)


class Gauge(ActivityGauge):
    """Says that the last sign of life was so many seconds ago."""

    def __init__(self, seconds: float) -> None:
        super().__init__("nowhere")
        self._last_at = time.time() - seconds


@pytest.fixture
def told(tmp_path: Path) -> Callable[[float], tuple[str, list[str]]]:
    """What a notebook that stops after ten idle minutes reports and shows, after so many seconds without anybody."""
    plan = make_plan(tmp_path, sys.prefix, idle_minutes=10)
    session = Session(plan)
    session._telling.tell("running")  # pyright: ignore[reportPrivateUsage]  # the state that the idle stop begins in

    def tell(seconds: float) -> tuple[str, list[str]]:
        session._tell_figures(Gauge(seconds))  # pyright: ignore[reportPrivateUsage]
        report = json.loads(Path(plan.run, "report.json").read_text())
        notices = json.loads(Path(plan.run, "notices.json").read_text())["notices"]
        return report["step"], [f"{each['id']}: {each['text']}" for each in notices]

    return tell


def test_who_is_idle_is_warned_first(told: Callable[[float], tuple[str, list[str]]]) -> None:
    assert told(200.0) == ("running", [])
    step, [notice] = told(400.0)
    assert step == "running"
    assert notice.startswith("idle: Nobody uses this notebook. It stops at ")
    assert told(1.0) == ("running", []), "somebody is back"
    told(400.0)
    assert told(601.0)[0] == "idle"


def test_what_is_told_later_holds_from_then_on(tmp_path: Path) -> None:
    session = Session(make_plan(tmp_path, sys.prefix))
    session._telling.tell("running")  # pyright: ignore[reportPrivateUsage]
    gauge, told = Gauge(4000.0), tmp_path / "run" / "told.json"

    def step() -> str:
        session._hear(gauge)  # pyright: ignore[reportPrivateUsage]
        session._tell_figures(gauge)  # pyright: ignore[reportPrivateUsage]
        return json.loads((tmp_path / "run" / "report.json").read_text())["step"]

    assert step() == "running"
    told.write_text(Told(60, time.time() - 3700).to_json())
    assert step() == "idle"
    told.write_text("{")
    assert step() == "idle", "what can't be read is not heard"
    told.write_text(Told(60, time.time() - 30).to_json())
    assert step() == "running", "it was given to somebody just now"
    told.write_text(Told(None, time.time() - 3700).to_json())
    assert step() == "running"
