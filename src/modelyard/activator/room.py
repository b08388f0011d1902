"""The platform's side of the activator: says who may rest, hears who is waited for, keeps the process running while there is need for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from modelyard.activator.board import Board, Seat

_END_SECONDS = 5.0


class WaitingRoom:
    """A directory and the activator that serves it.

    The process outlives the server that started it, as the gateway does: requests that wait are answered though the server was killed.
    """

    def __init__(self, directory: Path, log_file: Path) -> None:
        self._board = Board(directory)
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None

    def socket_of(self, id: str) -> str:
        """Where the requests of a model come in while it rests."""
        return self._board.socket_of(id)

    def publish(self, seats: Collection[Seat]) -> None:
        """Say who may rest, and see to it that somebody listens for them."""
        self._board.write(seats)
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        if seats and self._process is None and self._board.holder() is None:
            self._process = self._start()

    def take_wakes(self) -> set[str]:
        """The models that requests wait for."""
        return self._board.take_wakes()

    def is_open(self, id: str) -> bool:
        """Whether somebody listens for the requests of this model."""
        return self._board.holder() is not None and Path(self._board.socket_of(id)).is_socket()

    def close(self) -> None:
        """End the activator, whoever started it. Requests that wait are answered 503."""
        pid = self._board.holder()
        if pid is None:
            return
        deadline = time.monotonic() + _END_SECONDS
        number = signal.SIGTERM
        while self._board.holder() == pid:
            if time.monotonic() > deadline:
                number = signal.SIGKILL
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            time.sleep(0.02)
            if self._process is not None:
                self._process.poll()

    def _start(self) -> subprocess.Popen[bytes]:
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "modelyard.activator", str(self._board.directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
