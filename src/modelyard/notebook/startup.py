"""Start-up scripts of the user: `cont-init.d` on the data storage, in order, at every start.

Each gets `.exitcode` and `.output` beside it; all output together is in `cont-init.output`. A script that fails or takes too long does not keep
the notebook from starting: otherwise nobody could mend it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping

from modelyard.notebook.plan import Plan
from modelyard.notebook.telling import Telling, write_whole

_SCRIPT_SECONDS = 300.0
_ALL_SECONDS = 900.0
_RESULTS = (".exitcode", ".output", ".new")
_TIMED_OUT, _NOT_EXECUTABLE, _NOT_STARTED = 124, 126, 127


def run_scripts(plan: Plan, variables: Mapping[str, str], telling: Telling) -> None:
    """Run all of them, one after the other."""
    names = _names(plan)
    if not names:
        return
    deadline = time.monotonic() + _ALL_SECONDS
    with telling.step("scripts", "Running start-up scripts.") as record:
        failed = 0
        for name in names:
            telling.tell("scripts", f"Running the start-up script {name}.")
            code = _run(plan, name, variables, min(_SCRIPT_SECONDS, deadline - time.monotonic()))
            with contextlib.suppress(OSError):
                write_whole(f"{plan.scripts}/{name}.exitcode", f"{code}\n")
            telling.say(f"start-up script {name}: exit code {code}")
            failed += code != 0
        record["detail"] = f"{len(names)} scripts, {failed} failed" if failed else f"{len(names)} scripts"
        with contextlib.suppress(OSError):
            write_whole(f"{plan.data}/cont-init.output", "".join(_output(plan, name) for name in names))


def _names(plan: Plan) -> list[str]:
    try:
        names = sorted(os.listdir(plan.scripts))
    except OSError:
        return []
    return [
        n for n in names if os.path.isfile(f"{plan.scripts}/{n}") and not n.startswith(".") and not n.endswith(_RESULTS)
    ]


def _run(plan: Plan, name: str, variables: Mapping[str, str], seconds: float) -> int:
    path = f"{plan.scripts}/{name}"
    with open(f"{path}.output", "wb") as output:
        if not os.access(path, os.X_OK):
            output.write(f"{path} is not executable: chmod +x {path}\n".encode())
            return _NOT_EXECUTABLE
        try:
            process = subprocess.Popen(
                [path],
                cwd=plan.home,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            output.write(f"{path} could not be started: {error.strerror}. Does it begin with a '#!' line?\n".encode())
            return _NOT_STARTED
        try:
            return process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            output.write(f"\nended by force after {seconds:.0f} s\n".encode())
            return _TIMED_OUT


def _output(plan: Plan, name: str) -> str:
    with (
        contextlib.suppress(OSError),
        open(f"{plan.scripts}/{name}.output", encoding="utf-8", errors="replace") as file,
    ):
        return f"==> {name} <==\n{file.read()}\n"
    return ""
