"""From fork to exec: how the supervised process comes to stand where it may do no harm.

All of this runs in the forked child, as root where the platform is root, before anything of the user's runs: groups, limits, a view
of the sources that only root can reach, another user, and the guarantee to end with its parent. Where there is no process
namespace, a guardian stands between supervisor and program: it adopts orphans, and ends them all when the program or the supervisor
ends. Standard library only, light parts only.
"""

# Plain `os` calls on purpose: pathlib costs a third of the supervisor's whole start.
# ruff: noqa: PTH102, PTH112, PTH123
from __future__ import annotations

import os
import resource
import select

from modelyard.compute.backends.local import kernel, loops, processes, trusted_paths

TYPE_CHECKING = False  # for type checkers; the module `typing` costs more than the rest of the start
if TYPE_CHECKING:
    from typing import NoReturn

    from modelyard.compute.backends.local.cgroups import Cgroups
    from modelyard.compute.backends.local.records import Plan

STATUS_DESCRIPTOR, ARGUMENTS_DESCRIPTOR = 3, 4
"""Fixed descriptors of the program: bubblewrap's status, and its arguments (so that no other user sees them in a process list)."""

STAGED, STAGED_OPTIONAL, STAGED_SHARED, STAGED_IMAGE = "", "optional", "shared", "image"
"""A source of the platform's; one that is left out where it is missing; one in which tenants may have left links; a file with a file
system in it, of which the directory `IMAGE_FILES` is the instance's."""

IMAGE_FILES = "files"

_OPEN_FILES = 65_536
_OUT_OF_MEMORY_SCORE = "500"
_PIPE_AND_FILE_SIZE_SIGNALS = (13, 25)
_END_SECONDS = 30.0


def spawn(plan: Plan, cgroups: Cgroups, output: int, status: int, failure: int) -> int:
    """Fork and execute the plan's program; answers the child's pid.

    Args:
        output: write end of the pipe for stdout and stderr.
        status: write end of the pipe for bubblewrap's status (sandbox), or for the wait status of the program (guardian).
        failure: write end of a pipe that receives a sentence when the child did not come as far as executing the program.
    """
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        kernel.unblock_signals()
        if plan["has_guard"]:
            _guard(plan, cgroups, supervisor, output, status, failure)
        else:
            _execute(plan, cgroups, supervisor, output, status)
    except BaseException as error:
        _tell(failure, error)
    os._exit(127)


def spawn_relay(program: list[str], cgroups: Cgroups) -> int:
    """Fork and execute the relay of an instance with a network of its own, in the instance's groups; answers its pid."""
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        kernel.unblock_signals()
        cgroups.join()
        kernel.forbid_new_privileges()
        nothing = os.open("/dev/null", os.O_RDWR)
        for target in (0, 1, 2):
            os.dup2(nothing, target, inheritable=True)
        if os.getppid() == supervisor:
            os.execve(program[0], program, {"LANG": "C.UTF-8"})  # noqa: S606 - no shell is wanted
    finally:
        os._exit(127)


def _guard(plan: Plan, cgroups: Cgroups, supervisor: int, output: int, status: int, failure: int) -> NoReturn:
    kernel.set_name("my-guardian")
    kernel.become_subreaper()
    signals = kernel.open_signals((kernel.SIGCHLD, kernel.SIGTERM))
    kernel.die_with_parent(kernel.SIGTERM)
    guardian = os.getpid()
    program = os.fork() if os.getppid() == supervisor else os._exit(127)
    if program == 0:
        try:
            os.setsid()
            kernel.unblock_signals()
            _execute(plan, cgroups, guardian, output, -1)
        except BaseException as error:
            _tell(failure, error)
        os._exit(127)
    os.close(output)
    os.close(failure)
    os.write(status, b"pid %d\n" % program)
    ended: int | None = None
    while ended is None and os.getppid() == supervisor:
        select.select([signals], [], [])
        is_told_to_end = any(number == kernel.SIGTERM for number in read_signals(signals))
        ended = dict(processes.reap()).get(program)
        if is_told_to_end:
            break
    if ended is not None:
        os.write(status, b"exit %d\n" % ended)
    cgroups.kill()
    processes.end_descendants(guardian, _END_SECONDS)
    os._exit(0)


def _execute(plan: Plan, cgroups: Cgroups, parent: int, output: int, status: int) -> NoReturn:
    cgroups.join()
    _set_process_limits(plan, cgroups)
    if plan["stage"]:
        _stage(plan["stage"], plan["stage_at"], plan["uid"], plan["gid"])
    arguments = _argument_file(plan["sandbox_arguments"]) if plan["sandbox_arguments"] else -1
    if plan["uid"] is not None and plan["gid"] is not None:
        os.setgroups([])
        os.setresgid(plan["gid"], plan["gid"], plan["gid"])
        os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    kernel.forbid_new_privileges()
    kernel.die_with_parent(kernel.SIGKILL)
    if os.getppid() != parent:
        os._exit(127)
    os.umask(0o002)
    _place_descriptors(output, status, arguments)
    for number in _PIPE_AND_FILE_SIZE_SIGNALS:
        kernel.restore_default(number)
    # Bubblewrap itself starts with nothing of the user's environment: LD_PRELOAD would run code outside the sandbox.
    environment = {} if plan["sandbox_arguments"] else plan["env"]
    os.chdir("/" if plan["sandbox_arguments"] else plan["cwd"])
    os.execvpe(plan["argv"][0], plan["argv"], environment)  # noqa: S606 - no shell is wanted


def _set_process_limits(plan: Plan, cgroups: Cgroups) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if not cgroups.limits("memory"):
        # A fence far out, against running away between two looks of the supervisor, which holds to the limit itself. Not
        # RLIMIT_AS: frameworks reserve far more addresses than they ever use.
        generous = plan["memory_bytes"] * 2
        resource.setrlimit(resource.RLIMIT_DATA, (generous, generous))
    if not cgroups.limits("pids") and plan["uid"] is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (plan["pids"], plan["pids"]))
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(
                _OUT_OF_MEMORY_SCORE
            )  # When the machine itself runs out, an instance goes before the platform does.
    except OSError:
        pass


def _stage(sources: list[tuple[str, str]], stage_at: str, uid: int | None, gid: int | None) -> None:
    """Show sources that only root can reach at a place that everybody can, in a mount namespace of this process."""
    kernel.unshare_mounts()
    # All are opened before the stage covers what lies at its place.
    opened = [
        loops.attach(source) if trust == STAGED_IMAGE else _open_source(source, trust) for source, trust in sources
    ]
    kernel.mount("modelyard", stage_at, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755,size=1m")
    for number, source in enumerate(opened):
        target = f"{stage_at}/{number}"
        if source is None:
            continue
        if isinstance(source, tuple):
            os.mkdir(target, 0o755)
            loops.mount_device(*source, target)
            _own_files(f"{target}/{IMAGE_FILES}", uid, gid)
            continue
        if os.path.isdir(f"/proc/self/fd/{source}"):
            os.mkdir(target, 0o755)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        kernel.mount(f"/proc/self/fd/{source}", target, None, kernel.MS_BIND | kernel.MS_REC)
        os.close(source)


def _own_files(directory: str, uid: int | None, gid: int | None) -> None:
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return
    if uid is not None and gid is not None:
        os.chown(directory, uid, gid)


def _open_source(source: str, trust: str) -> int | None:
    if trust == STAGED_SHARED:
        return trusted_paths.open_path(source)
    try:
        return os.open(source, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        if trust == STAGED_OPTIONAL:
            return None
        raise


def _argument_file(arguments: list[str]) -> int:
    descriptor = os.memfd_create("arguments", os.MFD_CLOEXEC)
    content = memoryview(b"".join(os.fsencode(argument) + b"\0" for argument in arguments))
    while content:
        content = content[os.write(descriptor, content) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _place_descriptors(output: int, status: int, arguments: int) -> None:
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    # First out of the way of the fixed numbers, then onto them; everything else closes at exec.
    moved = [_moved_up(descriptor) for descriptor in (nothing, output, output, status, arguments)]
    for target, descriptor in enumerate(moved):
        if descriptor >= 0:
            os.dup2(descriptor, target, inheritable=True)


def _moved_up(descriptor: int) -> int:
    # A duplicate has the lowest free number, so a few of them reach beyond the fixed ones; all close at exec.
    while 0 <= descriptor <= ARGUMENTS_DESCRIPTOR:
        descriptor = os.dup(descriptor)
    return descriptor


def read_signals(signals: int) -> list[int]:
    """Numbers of the signals that arrived on a descriptor of `kernel.open_signals`."""
    try:
        records = os.read(signals, kernel.SIGNAL_RECORD_BYTES * 16)
    except BlockingIOError:
        return []
    return [
        int.from_bytes(records[start : start + 4], "little")
        for start in range(0, len(records), kernel.SIGNAL_RECORD_BYTES)
    ]


def _tell(failure: int, error: BaseException) -> None:
    try:
        text = (
            f"{error.strerror}: {error.filename or ''}"
            if isinstance(error, OSError) and error.strerror
            else repr(error)
        )
        os.write(failure, text.encode(errors="replace")[:4000])
    except OSError:
        pass
