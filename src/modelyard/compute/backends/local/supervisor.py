"""Looks after one instance from its start to its last byte, whatever becomes of the server.

It takes the instance's lock (so that two starts of one instance can't both win), records itself, starts the program, moves its
output to disk, ends the whole tree when it is asked to or when a limit is reached, and records the exit. The server only reads
these records and leaves requests; it may be gone all the while. When the supervisor itself is killed, the kernel ends the tree (see
`child`). Standard library only, light parts only, so that it starts in milliseconds and stays small.
"""

# Plain `os` calls on purpose: pathlib costs a third of the supervisor's whole start.
# ruff: noqa: PTH101, PTH102, PTH103, PTH110, PTH120, PTH123, PTH211
from __future__ import annotations

import _socket  # the module `socket` loads enum and selectors: a third of the supervisor's start
import errno
import fcntl
import os
import resource
import select
import sys
import time

from modelyard.compute.backends.local import (
    child,
    datacache,
    kernel,
    output,
    ports,
    processes,
    records,
    trusted_paths,
    verdict,
)
from modelyard.compute.backends.local.cgroups import Cgroups
from modelyard.compute.backends.local.usage import StorageGauge

TYPE_CHECKING = False  # for type checkers; the module `typing` costs more than the rest of the start
if TYPE_CHECKING:
    from modelyard.compute.backends.local.records import Plan

READY, TAKEN = b"ready\n", b"taken\n"
"""What the launcher hears on the supervisor's stdout: this one looks after the instance now, or another one does or did."""

_SIGNALS = (kernel.SIGCHLD, kernel.SIGTERM, kernel.SIGINT, kernel.SIGHUP, kernel.SIGUSR1)
_TICK_SECONDS, _TICK_WITHOUT_WATCH_SECONDS, _MEMORY_TICK_SECONDS = 10.0, 0.5, 0.25
_QUIET_SECONDS = 0.05
_DRAIN_SECONDS = 10.0
_END_SECONDS = 30.0
_RECORD_SECONDS = 3600.0
_RELAY_PAUSE_SECONDS = 1.0


def main(directory: str) -> int:
    """Detach, and supervise the instance of this directory to its end."""
    if os.fork():
        os._exit(0)
    os.setsid()
    lock = os.open(f"{directory}/{records.SUPERVISOR_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _answer(TAKEN)
        return 0
    if os.path.exists(f"{directory}/{records.SUPERVISOR}"):
        _answer(TAKEN)
        return 0
    Supervisor(directory).run()
    return 0


class Supervisor:
    """One instance's supervisor. `run` returns after the exit was recorded."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._plan: Plan = records.load_plan(directory)
        plan = self._plan
        self._cgroups = Cgroups(plan["cgroups_v1"], plan["cgroup_v2"], plan["cgroup_v2_controllers"])
        self._is_sandboxed = bool(plan["sandbox_arguments"])
        self._signals = kernel.open_signals(_SIGNALS)
        self._poll = select.poll()
        self._hints = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
        self._data_door: _socket.socket | None = None
        self._watch = -1
        self._quiet_until: float | None = None
        self._ending = verdict.Ending()
        self._kill_at: float | None = None
        self._insist_at: float | None = None
        self._is_insisted = False
        self._status_text = ""
        self._started_at: float | None = None
        self._began = time.monotonic()
        self._child = 0
        self._init = 0
        self._wait_status: int | None = None
        self._relay = 0
        self._relay_at: float | None = None

    def run(self) -> None:
        """From the record of this supervisor to the record of the exit."""
        self._held = self._hold_ports()
        self._record_self()
        plan = self._plan
        self._output = output.Recorder(
            f"{self._directory}/{records.LOGS}", plan["segment_bytes"], plan["segment_count"]
        )
        self._gauge = StorageGauge(plan["storage_directories"], plan["storage_bytes"], plan["storage_interval_seconds"])
        try:
            self._prepare()
            self._start()
            self._serve()
        except Exception as error:
            self._ending.failure = self._ending.failure or f"{type(error).__name__}: {error}"
        self._finish()

    def _hold_ports(self) -> list[_socket.socket]:
        """The sockets that keep the instance's ports until this process ends."""
        if not self._plan["ports"]:
            return []
        sockets, numbers = ports.hold(self._plan["ports"])
        records.write_record(f"{self._directory}/{records.PORTS}", {**numbers}, is_durable=False)
        return sockets

    def _record_self(self) -> None:
        os.chdir(self._plan["hints_directory"])
        kernel.set_name("my-supervisor")
        kernel.become_subreaper()
        pid = os.getpid()
        record = {"pid": pid, "start_ticks": processes.start_ticks(pid), "boot_id": processes.boot_id()}
        records.write_record(f"{self._directory}/{records.SUPERVISOR}", {**record}, is_durable=False)
        _answer(READY)
        nothing = os.open("/dev/null", os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os.close(nothing)

    def _prepare(self) -> None:
        plan = self._plan
        for path, mode, uid, gid in plan["directories"]:
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                continue
            if (uid, gid) != (-1, -1):
                os.chown(path, uid, gid)
            os.chmod(path, mode)
        for path in plan["shared_directories"]:
            trusted_paths.make_shared(path, plan["gid"])
        for path, target in plan.get("links", []):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.symlink(target, path)
        for path, text in plan["files"]:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                if plan["uid"] is not None and plan["gid"] is not None:
                    os.fchown(descriptor, plan["uid"], plan["gid"])
        self._cgroups.make(plan["cpus"], plan["memory_bytes"], plan["pids"], ends_as_one=plan["ends_as_one"])
        if "data_cache" in plan:
            self._data_door = datacache.open_door(f"{plan['run_directory']}/{records.DATA_DOOR}")

    def _start(self) -> None:
        self._pipe, write_end = output.open_pipe()
        self._status, status_end = os.pipe2(os.O_CLOEXEC)
        self._failure, failure_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self._status, False)
        self._started_at = time.time()
        self._began = time.monotonic()
        self._start_relay()
        self._child = child.spawn(self._plan, self._cgroups, write_end, status_end, failure_end)
        for descriptor in (write_end, status_end, failure_end):
            os.close(descriptor)
        # The program is on its way; the record of this supervisor may take its time to reach the disk.
        records.sync_directory(self._directory)
        for descriptor in (self._pipe, self._status, self._signals):
            self._poll.register(descriptor, select.POLLIN)
        if self._data_door is not None:
            self._poll.register(self._data_door.fileno(), select.POLLIN)
        self._open_watch()

    def _start_relay(self) -> None:
        """Again and again, should it be killed: without it the instance would be cut off from the world."""
        self._relay_at = None
        relay = self._plan.get("relay")
        if relay is None or self._ending.is_begun:
            return
        user = [str(self._plan[name]) if self._plan[name] is not None else "-" for name in ("uid", "gid")]
        program = [
            sys.executable,
            "-I",
            "-S",
            f"{os.path.dirname(__file__)}/relay.py",
            records.relay_json(relay),
            *user,
        ]
        self._relay = child.spawn_relay(program, self._cgroups)

    def _open_watch(self) -> None:
        try:
            self._watch = kernel.open_watch(self._directory, kernel.IN_MOVED_TO | kernel.IN_DELETE_SELF)
            kernel.add_watch(
                self._watch, self._plan["run_directory"], kernel.IN_CREATE | kernel.IN_MOVED_TO | kernel.IN_CLOSE_WRITE
            )
            self._poll.register(self._watch, select.POLLIN)
        except OSError:
            self._watch = -1  # The machine has no watches left: looking twice a second does as well.

    def _serve(self) -> None:
        while self._wait_status is None:
            ready = [descriptor for descriptor, _ in self._poll.poll(self._patience_milliseconds())]
            if self._pipe in ready and not self._output.take(self._pipe):
                self._poll.unregister(self._pipe)
            if self._status in ready:
                self._read_status()
            if self._signals in ready:
                self._read_signals()
            if self._watch in ready:
                self._fall_quiet()
            if self._gauge.descriptor in ready:
                self._gauge.read()
            if self._data_door is not None and self._data_door.fileno() in ready:
                self._open_data_cache(self._data_door)
            self._look()

    def _open_data_cache(self, door: _socket.socket) -> None:
        """The first file is offered: a keeper of its own takes it, and all that follow."""
        self._data_door = None
        self._poll.unregister(door.fileno())
        if "data_cache" in self._plan:
            datacache.spawn_keeper(door, self._plan["data_cache"], self._directory)
        door.close()

    def _patience_milliseconds(self) -> int:
        now = time.monotonic()
        tick = _TICK_SECONDS if self._watch >= 0 else _TICK_WITHOUT_WATCH_SECONDS
        if not self._cgroups.limits("memory"):
            tick = _MEMORY_TICK_SECONDS
        moments = [now + tick]
        if self._kill_at is not None:
            moments.append(self._kill_at)
        if self._plan["timeout_seconds"] is not None and not self._ending.is_begun:
            moments.append(self._began + self._plan["timeout_seconds"])
        waits = (self._quiet_until, self._gauge.due_at, self._insist_at, self._relay_at)
        moments += [moment for moment in waits if moment is not None]
        return max(int((min(moments) - now) * 1000) + 1, 0)

    def _look(self) -> None:
        """Everything that follows from a moment having come rather than from an event."""
        now = time.monotonic()
        plan = self._plan
        if self._quiet_until is not None and now >= self._quiet_until:
            self._quiet_until = None
            self._poll.register(self._watch, select.POLLIN)
        if self._relay_at is not None and now >= self._relay_at:
            self._start_relay()
        self._look_for_request()
        if plan["timeout_seconds"] is not None and now - self._began >= plan["timeout_seconds"]:
            self._begin_end("TIME_LIMIT", plan["grace_seconds"], limit=verdict.duration(plan["timeout_seconds"]))
        if self._uses_too_much_memory():
            self._begin_end("OUT_OF_MEMORY", 0.0, limit=verdict.size(plan["memory_bytes"]))
        if self._gauge.is_due(now):
            self._poll.register(self._gauge.start(), select.POLLIN)
        elif self._gauge.is_done and self._gauge.is_exceeded and plan["storage_bytes"] is not None:
            self._begin_end("STORAGE", plan["grace_seconds"], limit=verdict.size(plan["storage_bytes"]))
        if self._gauge.is_done:
            self._poll.unregister(self._gauge.close())
        if self._insist_at is not None and now >= self._insist_at:
            self._insist_at = None
            self._signal_program(kernel.SIGTERM)
        if self._kill_at is not None and now >= self._kill_at:
            self._ending.is_killed = True
            self._kill_tree()
            self._kill_at = now + 1.0  # once more, should something have slipped through

    def _uses_too_much_memory(self) -> bool:
        if self._cgroups.limits("memory") or self._ending.is_begun:
            return False  # The group itself holds it, or it ends already.
        return processes.resident_bytes(processes.descendants(os.getpid())) > self._plan["memory_bytes"]

    def _look_for_request(self) -> None:
        try:
            with open(f"{self._directory}/{records.STOP}", encoding="ascii") as file:
                words = file.read().split()
        except OSError:
            if not os.path.exists(self._directory):
                self._begin_end("STOPPED", 0.0)  # The platform's home was deleted: nobody would ever end it.
            return
        grace, insist = [_number(word) for word in [*words, "-", "-"][:2]]
        whole_grace = self._plan["grace_seconds"]
        self._begin_end("STOPPED", whole_grace if grace is None else min(grace, whole_grace))
        if insist is not None and not self._is_insisted:
            self._is_insisted = True
            self._insist_at = time.monotonic() + insist

    def _begin_end(self, reason: str, grace_seconds: float, limit: str = "") -> None:
        kill_at = time.monotonic() + max(grace_seconds, 0.0)
        if self._ending.is_begun:
            if reason == "STOPPED" and self._ending.asked_grace_seconds > grace_seconds and self._kill_at is not None:
                self._ending.asked_grace_seconds = grace_seconds
                self._kill_at = min(self._kill_at, kill_at)
            return
        self._ending.begin(reason, limit, grace_seconds)
        self._kill_at = kill_at
        if self._program() is None:
            self._kill_at = time.monotonic()  # There is nobody yet who could make use of the grace.
        elif grace_seconds > 0:
            self._signal_program(kernel.SIGTERM)
        self._hint()

    def _signal_program(self, number: int) -> None:
        program = self._program()
        for each in (number, kernel.SIGCONT) if program is not None else ():
            try:
                os.kill(program or 0, each)
            except OSError:
                return

    def _program(self) -> int | None:
        if not self._is_sandboxed:
            return self._init or None
        return processes.main_below(self._init) if self._init else None

    def _kill_tree(self) -> None:
        self._cgroups.kill()
        try:
            if self._is_sandboxed:
                os.kill(self._init or self._child, kernel.SIGKILL)
                return
            os.kill(self._child, kernel.SIGTERM)  # The guardian ends its whole tree.
            if self._init:
                os.kill(self._init, kernel.SIGKILL)
        except ProcessLookupError:
            return

    def _read_status(self) -> None:
        try:
            text = os.read(self._status, 1 << 16).decode(errors="replace")
        except BlockingIOError:
            return
        if not text:
            self._poll.unregister(self._status)
            return
        self._status_text += text
        self._notice_start()

    def _notice_start(self) -> None:
        first = verdict.first_pid(self._status_text)
        if self._init or first is None:
            return
        self._init = first
        record: dict[str, str | int | float | None] = {
            "started_at": self._started_at,
            "init_pid": first,
            "init_ticks": processes.start_ticks(first) or 0,
            "has_namespace": int(self._is_sandboxed),
        }
        records.write_record(f"{self._directory}/{records.START}", record, is_durable=False)
        self._hint()

    def _read_signals(self) -> None:
        numbers = child.read_signals(self._signals)
        for pid, status in processes.reap():
            if pid == self._child:
                self._wait_status = status
            elif pid == self._relay:
                self._relay, self._relay_at = 0, time.monotonic() + _RELAY_PAUSE_SECONDS
        if any(number in (kernel.SIGTERM, kernel.SIGINT) for number in numbers):
            self._begin_end("STOPPED", self._plan["grace_seconds"])

    def _fall_quiet(self) -> None:
        """Tell the server that there is news; then look away for a moment, for an instance may write its report in a loop."""
        try:
            os.read(self._watch, 1 << 16)
        except BlockingIOError:
            return
        self._poll.unregister(self._watch)
        self._quiet_until = time.monotonic() + _QUIET_SECONDS
        self._hint()

    def _hint(self) -> None:
        try:
            self._hints.sendto(self._plan["id"].encode(), self._plan["hints_name"])
        except OSError:
            return  # No server listens, or it has enough to do: a hint may be missing.

    def _finish(self) -> None:
        is_ended = self._end_everything()
        if self._child:
            self._drain()
            self._status_text += _rest(self._status)
            self._ending.failure = self._ending.failure or _rest(self._failure)
            self._notice_start()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak = self._cgroups.peak_memory_bytes() or usage.ru_maxrss * 1024
        cpu_seconds = self._cgroups.cpu_seconds()
        self._ending.out_of_memory_count = self._cgroups.out_of_memory_count()
        self._ending.conclude(self._wait_status, self._status_text, self._is_sandboxed, self._plan["memory_bytes"])
        if self._ending.cause == "LAUNCH_FAILED":
            self._explain_failed_launch()
        self._output.close()
        self._cgroups.remove(time.monotonic() + (5.0 if is_ended else 0.0))
        record: dict[str, str | int | float | None] = {
            "cause": self._ending.cause,
            "message": self._ending.message,
            "code": self._ending.code,
            "signal": self._ending.signal,
            "started_at": self._started_at,
            "ended_at": time.time(),
            "peak_memory_bytes": peak,
            "cpu_seconds": usage.ru_utime + usage.ru_stime if cpu_seconds is None else cpu_seconds,
            "output_bytes": self._output.end,
            "lost_output_bytes": self._output.lost_bytes,
        }
        self._record_exit(record)
        self._hint()

    def _record_exit(self, record: dict[str, str | int | float | None]) -> None:
        deadline = time.monotonic() + _RECORD_SECONDS
        while True:
            try:
                records.write_record(f"{self._directory}/{records.EXIT}", record, is_durable=True)
                return
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or time.monotonic() > deadline:
                    raise
                self._output.give_way()
                time.sleep(1.0)

    def _end_everything(self) -> bool:
        deadline = time.monotonic() + _END_SECONDS
        if self._child and self._wait_status is None:
            self._kill_tree()
        is_ended = processes.end_descendants(os.getpid(), _END_SECONDS)
        while self._cgroups.members() and time.monotonic() < deadline:
            self._cgroups.kill()
            time.sleep(0.002)
        return is_ended and not self._cgroups.members()

    def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while self._output.take(self._pipe) and time.monotonic() < deadline:
            poll.poll(100)

    def _explain_failed_launch(self) -> None:
        first, data = output.read_output(f"{self._directory}/{records.LOGS}", max(self._output.end - 4096, 0), 4096)
        printed = data.decode(errors="replace").strip()
        if printed and first >= 0:
            self._ending.message += f" {printed.splitlines()[-1]}"
        self._output.write(f"{self._ending.message}\n")


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _answer(word: bytes) -> None:
    try:
        os.write(1, word)
    except OSError:
        return  # The server was killed meanwhile; nothing depends on it.


def _rest(descriptor: int) -> str:
    try:
        return os.read(descriptor, 1 << 16).decode(errors="replace")
    except OSError:
        return ""
