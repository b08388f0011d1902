"""The Jupyter server as a child of the session: its configuration, its start, its end, its restarts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from modelyard.notebook.plan import Plan
from modelyard.notebook.telling import write_whole

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, _STABLE_SECONDS = 0.5, 60.0, 60.0
# Parts of the page that ask for what is not there: news from the internet, language servers, packages of extensions. And one that
# `labextension` has in a better form.
_DISABLED = (
    "@jupyterlab/apputils-extension:announcements",
    "@jupyterlab/lsp-extension",
    "@jupyterlab/fileeditor-extension:language-server",
    "@jupyterlab/notebook-extension:language-server",
    "@jupyterlab/notebook-extension:cell-executor",
)


class JupyterServer:
    """Starts it, and again when it has ended, each time after a longer pause until it stays up for a minute."""

    def __init__(self, plan: Plan, variables: Mapping[str, str]) -> None:
        self._plan = plan
        self._variables = dict(variables)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._again_at = 0.0
        self._answered_at = 0.0
        self.has_answered = False
        self.socket = f"{plan.run}/jupyter.sock"
        self.config = f"{plan.run}/jupyter.json"

    def configure(self) -> None:
        """Write all that Jupyter reads."""
        write_whole(self.config, json.dumps(configuration(self._plan, self.socket), indent=1))
        settings = f"{self._plan.base}/etc/jupyter/labconfig"
        os.makedirs(settings, exist_ok=True)
        write_whole(f"{settings}/page_config.json", json.dumps({"disabledExtensions": dict.fromkeys(_DISABLED, True)}))
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "labextension")
        target = f"{self._plan.base}/share/jupyter/labextensions/modelyard-notices"
        with contextlib.suppress(FileExistsError):
            shutil.copytree(source, target)

    def start(self) -> None:
        """Start it now."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        # Nothing that the user installs or leaves lying about is on its path.
        argv = [f"{self._plan.image}/bin/python", "-s", "-P", "-m", "modelyard.notebook.lab", self.config]
        self._process = subprocess.Popen(argv, cwd=self._plan.home, env=self._variables, stdin=subprocess.DEVNULL)
        self._started_at = self._answered_at = time.monotonic()
        self.has_answered = False

    def note_answer(self) -> None:
        """It has answered just now."""
        self._answered_at = time.monotonic()
        self.has_answered = True

    @property
    def silent_seconds(self) -> float:
        """Since its last answer, or since its start."""
        return time.monotonic() - self._answered_at

    def kill(self) -> None:
        """End it by force; `look` starts it again."""
        if self._process is not None:
            self._process.kill()

    @property
    def pid(self) -> int | None:
        """Of the running server."""
        return None if self._process is None else self._process.pid

    def look(self) -> str | None:
        """Start it again if its pause is over; a sentence when it has just ended."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._again_at:
                self.start()
            return None
        code = self._process.poll()
        if code is None:
            if now - self._started_at > _STABLE_SECONDS:
                self._pause_seconds = _FIRST_PAUSE_SECONDS
            return None
        self._process = None
        self._again_at = now + self._pause_seconds
        sentence = f"The Jupyter server ended ({ending(code)}); it is started again in {self._pause_seconds:.1f} s."
        self._pause_seconds = min(self._pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
        return sentence

    def end(self, seconds: float) -> bool:
        """Ask it to end, with its kernels; by force when it takes longer. False if force was needed."""
        if self._process is None:
            return True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True


def configuration(plan: Plan, socket: str) -> dict[str, Any]:
    """Jupyter's own configuration.

    It asks for no token: who may come is checked by the gateway, for every request and WebSocket, and nobody else reaches the socket.
    """
    return {
        "ServerApp": {
            "sock": socket,
            "sock_mode": "0660",
            "allow_root": True,
            "open_browser": False,
            "base_url": plan.base_url,
            "root_dir": plan.home,
            "allow_remote_access": True,
            "quit_button": False,
            "terminado_settings": {"shell_command": ["/bin/bash"]},
            "extra_static_paths": [],
            "kernel_manager_class": "modelyard.notebook.recording.RecordingKernelManager",
            "kernel_websocket_connection_class": "modelyard.notebook.recording.RecordingConnection",
            "jpserver_extensions": {
                "modelyard.notebook.extension": True,
                "jupyterlab": True,
                "jupyter_server_terminals": True,
                "jupyter_lsp": False,
                "notebook_shim": False,
            },
        },
        "IdentityProvider": {"token": ""},
        "PasswordIdentityProvider": {"hashed_password": ""},
        "LabApp": {
            "default_url": "/lab",
            "news_url": None,
            "check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
            "extension_manager": "readonly",
            "extra_labextensions_path": [f"{plan.base}/share/jupyter/labextensions"],
        },
        "FileContentsManager": {"delete_to_trash": False, "preferred_dir": plan.data},
        "MultiKernelManager": {"default_kernel_name": "python3"},
    }


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
