"""One run of a notebook from its plan to its end: makes the place ready, starts Jupyter, looks after it, ends it.

This process is the instance's main process. It is small, and nothing of the user's runs in it: whatever becomes of Jupyter or its kernels, this
one goes on, starts Jupyter again, and tells the platform.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType

from modelyard.notebook import default_environment, kernels, startup, surroundings
from modelyard.notebook.activity import ActivityGauge, get
from modelyard.notebook.hearing import Hearing
from modelyard.notebook.network import WayOut
from modelyard.notebook.notices import Notices
from modelyard.notebook.plan import BadPlan, Plan
from modelyard.notebook.server import JupyterServer
from modelyard.notebook.telling import Telling

_BAD_PLAN = 64
_LOOK_SECONDS = 0.5
_ENVIRONMENTS_SECONDS = 2.0
_FIGURES_SECONDS = 15.0
_ANSWER_PAUSE_SECONDS = 0.05
_PING_SECONDS = 5.0
_FIRST_ANSWER_SECONDS = 300.0
_WARNING_SECONDS = 300.0
_ROUND_SECONDS = 30
_ROUND_BYTES = 2**20


def main(argv: list[str]) -> int:
    """Carry out the plan in the file named by the only argument; the exit code."""
    if len(argv) != 2:
        sys.stderr.write("usage: python -m modelyard.notebook PLAN.json\n")
        return _BAD_PLAN
    try:
        with open(argv[1], encoding="utf-8") as file:
            plan = Plan.from_json(file.read())
    except (OSError, UnicodeDecodeError, BadPlan) as error:
        sys.stderr.write(f"the plan can't be read: {error}\n")
        return _BAD_PLAN
    session = Session(plan)
    signal.signal(signal.SIGTERM, session.on_signal)
    signal.signal(signal.SIGINT, session.on_signal)
    return session.run()


class Session:
    """A plan being carried out."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._telling = Telling(f"{plan.run}/report.json")
        self._notices = Notices(f"{plan.run}/notices.json")
        self._end = threading.Event()
        self._environments: list[kernels.Found] = []
        self._packages: list[str] = []
        self._environments_at = 0.0
        self._figures_at = 0.0
        self._ping_at = 0.0
        self._hearing = Hearing(f"{plan.run}/told.json")
        self._idle_minutes = plan.idle_minutes

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """The request to end."""
        self._end.set()

    def run(self) -> int:
        """Everything; the exit code."""
        try:
            server = self._prepare()
        except OSError as error:
            self._telling.tell("failed", f"The notebook could not be made ready: {error}")
            self._telling.say(f"failed: {error}")
            return 1
        if not self._end.is_set():
            self._serve(server)
        if not server.end(self._plan.grace_seconds):
            self._telling.say(
                f"The Jupyter server did not end within {self._plan.grace_seconds:.0f} s; it was ended by force."
            )
        self._telling.tell("ended", "The notebook has ended.")
        return 0

    def _prepare(self) -> JupyterServer:
        plan = self._plan
        with self._telling.step("preparing", "Making the place ready."):
            for directory in (plan.data, plan.environments, plan.scripts, plan.state):
                # A full data storage must not keep the notebook from starting: only inside can it be emptied.
                with contextlib.suppress(OSError):
                    os.makedirs(directory, exist_ok=True)
            proxy_url = self._open_network()
            default_environment.make_default_environment(plan)
            surroundings.write_shell_start(plan)
        with self._telling.step("environments", "Looking for environments.") as record:
            self._environments = kernels.find_environments(plan)
            kernels.write_kernels(plan, self._environments)
            record["detail"] = ", ".join(found.name for found in self._environments)
            self._tell_reset()
        variables = surroundings.user_variables(plan, proxy_url)
        if not plan.skips_scripts:
            startup.run_scripts(plan, variables, self._telling)
        server = JupyterServer(plan, variables)
        server.configure()
        return server

    def _open_network(self) -> str:
        """The URL of the proxy to the world; empty where the network is the machine's."""
        if not self._plan.has_own_network or "MODELYARD_ROOT" in os.environ:
            return ""
        way_out = WayOut(f"{self._plan.run}/relay.sock")
        way_out.open()
        return way_out.proxy_url

    def _serve(self, server: JupyterServer) -> None:
        telling = self._telling
        with telling.step("starting", "Starting JupyterLab."):
            server.start()
            while not self._end.is_set() and not self._answers(server):
                self._look_at(server)
                self._end.wait(_ANSWER_PAUSE_SECONDS)
        telling.tell("running")
        gauge = ActivityGauge(server.socket, self._plan.base_url)
        while not self._end.wait(_LOOK_SECONDS):
            now = time.monotonic()
            self._look_at(server)
            self._hear(gauge)
            if now >= self._ping_at:
                self._ping_at = now + _PING_SECONDS
                self._end_if_silent(server)
            if now >= self._environments_at:
                self._environments_at = now + _ENVIRONMENTS_SECONDS
                self._look_for_environments()
            if now >= self._figures_at:
                self._figures_at = now + _FIGURES_SECONDS
                gauge.look(frozenset({os.getpid(), 1, server.pid or 0}))
                self._tell_figures(gauge)

    def _hear(self, gauge: ActivityGauge) -> None:
        """What is to hold from now on, also in a notebook that was ready before it was somebody's."""
        told = self._hearing.news()
        if told is not None:
            self._idle_minutes = told.idle_minutes
            gauge.note(told.used_at)
            self._figures_at = 0.0

    def _look_at(self, server: JupyterServer) -> None:
        had_ended = server.pid is None
        sentence = server.look()
        if sentence is not None:
            self._telling.say(sentence)
            self._telling.tell("restarting", sentence)
        elif had_ended and server.pid is not None:
            self._telling.tell("restarting", "The Jupyter server is starting again.")
        elif self._telling.current == "restarting" and server.pid is not None and self._answers(server):
            self._telling.tell("running")

    def _end_if_silent(self, server: JupyterServer) -> None:
        """End a Jupyter server that hangs: it is started again like one that has ended by itself."""
        if server.pid is None or self._answers(server):
            return
        limit_seconds = self._plan.silence_seconds
        if not server.has_answered:  # a start takes its time on a busy machine
            limit_seconds = max(limit_seconds, _FIRST_ANSWER_SECONDS)
        if server.silent_seconds > limit_seconds:
            self._telling.say(f"The Jupyter server has not answered for {server.silent_seconds:.0f} s; it is ended.")
            server.kill()

    def _answers(self, server: JupyterServer) -> bool:
        with contextlib.suppress(OSError, ValueError):
            get(server.socket, f"{self._plan.base_url}api")
            server.note_answer()
            return True
        return False

    def _look_for_environments(self) -> None:
        """Environments that came or went are kernels, or no longer, without a step of the user's."""
        found = kernels.find_environments(self._plan)
        if found != self._environments:
            self._environments = found
            with contextlib.suppress(OSError):
                kernels.write_kernels(self._plan, found)
        packages = default_environment.installed(self._plan)
        if packages != self._packages:
            self._packages = packages
            default_environment.remember(self._plan, packages)
        self._telling.add(kept=[found.name for found in self._environments], reset=self._packages)

    def _tell_reset(self) -> None:
        lost = default_environment.take_lost(self._plan)
        if not lost:
            return
        kept = ", ".join(found.name for found in self._environments) or "none"
        listed = ", ".join(lost[:8]) + (f" and {len(lost) - 8} more" if len(lost) > 8 else "")
        text = (
            f"The default environment is fresh: {listed} went with the last stop. Install them again with "
            f"'pip install -r {self._plan.state}/{default_environment.LOST}', or keep packages in an environment below "
            f"{self._plan.environments} (there now: {kept})."
        )
        self._telling.say(text)
        self._notices.put("reset", "info", text)

    def _tell_figures(self, gauge: ActivityGauge) -> None:
        self._telling.add(
            last_activity=int(gauge.last_at) // _ROUND_SECONDS * _ROUND_SECONDS,
            disk={"boot": _disk(self._plan.base), "data": _disk(self._plan.data)},
        )
        minutes = self._idle_minutes
        if self._telling.current not in ("running", "idle"):
            return
        if minutes is None:
            self._notices.drop("idle")
            self._telling.tell("running")
            return
        left_seconds = minutes * 60 - (time.time() - gauge.last_at)
        if left_seconds <= 0:
            self._telling.tell("idle", f"Nobody has used the notebook for {minutes} minutes.")
        elif left_seconds <= min(_WARNING_SECONDS, minutes * 30):
            at = time.strftime("%H:%M:%S", time.gmtime(time.time() + left_seconds))
            text = f"Nobody uses this notebook. It stops at {at} UTC; run something, or type in a terminal, to keep it."
            self._notices.put("idle", "warning", text)
        else:
            self._notices.drop("idle")
            self._telling.tell("running")


def _disk(path: str) -> list[int]:
    """Bytes used and in all of the file system at this path."""
    try:
        status = os.statvfs(path)
    except OSError:
        return [0, 0]
    total = status.f_blocks * status.f_frsize
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    return [used // _ROUND_BYTES * _ROUND_BYTES, total]
