"""Several processes behind one model server: one for each core, as far as the memory goes.

Python answers on one core at a time, so a server with more of them has more processes. The first one loads the model and is ready as soon as
it would be alone; how much memory it then has taken tells how many more there may be. Each has a socket of its own, and the gateway spreads requests
over them. One that ends is started again while the others go on.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from modelyard.serving.config import ServingConfig
from modelyard.serving.report import Report

_LOOK_SECONDS = 0.05
_CALM_LOOK_SECONDS = 0.25
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 60.0
_STABLE_SECONDS = 60.0
_MEMORY_SHARE = 0.8
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class _Worker:
    """One process, or the wait before it is started again."""

    index: int
    config_path: Path
    report_path: Path
    socket: str
    process: asyncio.subprocess.Process | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    wait_seconds: float = _FIRST_WAIT_SECONDS
    was_ready: bool = False
    step: str = ""
    message: str = ""

    @property
    def is_ready(self) -> bool:
        return self.process is not None and self.step == "ready"


@dataclass(slots=True)
class Crew:
    """Starts, watches and ends the processes of one model server.

    Attributes:
        argv: the command of a worker; the path of its configuration is added.
        memory_of: how many bytes the process of this number has to itself.
    """

    config: ServingConfig
    report: Report
    argv: Sequence[str] = (sys.executable, "-m", "modelyard.serving", "--config")
    memory_of: Callable[[int], int] = field(default_factory=lambda: own_memory)
    _workers: list[_Worker] = field(default_factory=list["_Worker"])
    _told: tuple[str, str, tuple[str, ...]] | None = None
    _is_full: bool = False

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Answers the exit code: 0, or that of the first process where the model can't be served."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        with tempfile.TemporaryDirectory(dir=self.config.work_dir or None) as directory:
            place = Path(directory)
            self._workers = [self._plan(place, index) for index in range(self.config.workers)]
            await self._start(self._workers[0])
            code: int | None = None
            while code is None and not stopping.is_set():
                code = await self._look()
                self._tell()
                is_calm = all(worker.is_ready for worker in self._workers if worker.process is not None)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_CALM_LOOK_SECONDS if is_calm else _LOOK_SECONDS):
                        await stopping.wait()
            await self._end()
            if code is None:
                self.report.write("stopped", "stopped")
            return code or 0

    def _plan(self, place: Path, index: int) -> _Worker:
        sockets = sockets_of(self.config.listen, self.config.workers)
        worker = _Worker(index, place / f"{index}.json", place / f"report-{index}.json", sockets[index])
        own = replace(
            self.config,
            workers=1,
            listen=sockets[index],
            report_path=str(worker.report_path),
            peers=tuple(sockets),
        )
        worker.config_path.write_text(json.dumps({**asdict(own), "peers": list(own.peers)}), encoding="utf-8")
        return worker

    async def _start(self, worker: _Worker) -> None:
        worker.step = worker.message = ""
        worker.report_path.unlink(missing_ok=True)
        worker.process = await asyncio.create_subprocess_exec(
            *self.argv, str(worker.config_path), preexec_fn=_die_with_parent
        )
        worker.started_at = monotonic()

    async def _look(self) -> int | None:
        """One look at all of them; an exit code when it is over."""
        now = monotonic()
        for worker in self._workers:
            if worker.process is None:
                continue
            worker.step, worker.message = _read(worker.report_path)
            worker.was_ready = worker.was_ready or worker.is_ready
            if worker.process.returncode is not None:
                code = self._ended(worker, now)
                if code is not None:
                    return code
        for worker in self._workers:
            if worker.process is None and worker.was_ready and now >= worker.restart_at:
                await self._start(worker)
        await self._add()
        return None

    def _ended(self, worker: _Worker, now: float) -> int | None:
        assert worker.process is not None  # the caller has looked
        code = worker.process.returncode or 0
        others = [other for other in self._workers if other is not worker and other.process is not None]
        worker.process = None
        if not others:  # nobody answers any more: whoever watches over us starts all anew, and knows why
            return code if code > 0 else 1
        if not worker.was_ready:
            self._is_full = True
            _say(f"process {worker.index} could not start ({_how(code)}); the others go on without it")
            return None
        if now - worker.started_at > _STABLE_SECONDS:
            worker.wait_seconds = _FIRST_WAIT_SECONDS
        worker.restart_at = now + worker.wait_seconds
        _say(f"process {worker.index} has ended ({_how(code)}); starting it again in {worker.wait_seconds:g} s")
        worker.wait_seconds = min(_LONGEST_WAIT_SECONDS, 2 * worker.wait_seconds)
        return None

    async def _add(self) -> None:
        """One more process, once all that were started are ready, if there is memory for it."""
        begun = [worker for worker in self._workers if worker.process is not None or worker.was_ready]
        rest = [worker for worker in self._workers if worker not in begun]
        if self._is_full or not rest or not all(worker.is_ready for worker in begun):
            return
        used = [self.memory_of(worker.process.pid) for worker in begun if worker.process is not None]
        limit = self.config.memory_bytes * _MEMORY_SHARE
        if limit and sum(used) + max(used) > limit:
            self._is_full = True
            _say(
                f"{len(begun)} of {self.config.workers} processes: each takes {max(used) / 2**20:.0f} MiB, "
                f"and {self.config.memory_bytes / 2**20:.0f} MiB have no room for another"
            )
            return
        await self._start(rest[0])

    def _tell(self) -> None:
        """Say as much as one process would, and which sockets answer."""
        ready = [worker for worker in self._workers if worker.is_ready]
        first = ready[0] if ready else self._workers[0]
        sockets = tuple(Path(worker.socket).stem for worker in ready)
        told = (first.step, first.message, sockets)
        if first.step and told != self._told:
            self._told = told
            more = f" by {len(ready)} processes" if len(ready) > 1 else ""
            self.report.write(first.step, first.message + more, sockets=sockets)

    async def _end(self) -> None:
        running = [worker.process for worker in self._workers if worker.process is not None]
        for process in running:
            with suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*(process.wait() for process in running))


def sockets_of(listen: str, count: int) -> list[str]:
    """The addresses of so many processes: `…/http.sock`, `…/http1.sock`, `…/http2.sock` …"""
    path = Path(listen.removeprefix("unix:"))
    return [str(path.with_name(f"{path.stem}{index or ''}{path.suffix}")) for index in range(count)]


def own_memory(pid: int) -> int:
    """The bytes that a process takes, what it shares with others counted in part; 0 when it is gone."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> tuple[str, str]:
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "", ""
    return str(values["step"]), str(values["message"])


def _how(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _say(text: str) -> None:
    print(f"model server: {text}", file=sys.stderr, flush=True)


def _die_with_parent() -> None:
    """In the child, before it becomes the worker: the kernel ends it when we are gone."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
