"""One run from its plan to its exit code: fetch, check, install, run, keep.

Imports of the steps stand where they are needed: a run without anything to fetch starts its script in a quarter of the time that the
import of an HTTP client alone would take.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import os
import sys

from modelyard.runner.journal import Journal
from modelyard.runner.outcomes import (
    BAD_PLAN,
    INTERNAL,
    NO_ENTRY_POINT,
    NO_SPACE,
    STOPPED,
    UPLOAD_FAILED,
    StepFailed,
    Stopped,
)
from modelyard.runner.plan import ALWAYS, BadPlan, Main, Plan, Upload
from modelyard.runner.process import become, run_main, signal_name
from modelyard.runner.stop import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from modelyard.runner.checkpoints import CheckpointSync
    from modelyard.runner.datacache import DataCache

_CACHE_SECONDS = 5.0
_FULL_BYTES = 1 << 20
_LISTED_COUNT = 50


def main(argv: list[str]) -> int:
    """Carry out the plan in the file named by the only argument; the exit code."""
    if len(argv) != 2:
        Journal().say("usage: python -m modelyard.runner PLAN.json")
        return BAD_PLAN
    try:
        with open(argv[1], encoding="utf-8") as file:
            plan = Plan.from_json(file.read())
    except (OSError, UnicodeDecodeError, BadPlan) as error:
        Journal().say(f"failed: the plan can't be read: {error}")
        return BAD_PLAN
    return Session(plan).run()


class Session:
    """A plan being carried out."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._journal = Journal(plan.report_path)
        self._stop = Stop()
        gang = plan.gang
        # Several instances would overwrite each other's files at the destination: the first one keeps them.
        self._uploads = plan.uploads if gang is None or gang.node == "0" else ()
        self._syncs: dict[Upload, CheckpointSync] = {}
        self._data_cache: DataCache | None = None
        self._was_killed = False

    def run(self) -> int:
        """Everything; the exit code. What is printed and reported last says how it ended."""
        self._stop.listen()
        try:
            code, message = self._steps()
        except StepFailed as failure:
            code, message = failure.exit_code, failure.message
        except Exception as failure:  # a fault of ours must be told like any other end
            import traceback

            for line in traceback.format_exc().splitlines():
                self._journal.say(line)
            code, message = INTERNAL, f"The runner itself failed: {failure!r}"
        if self._data_cache is not None and not self._stop.is_requested:
            self._data_cache.finish(
                _CACHE_SECONDS
            )  # a run that is shorter than its data is large would leave none of it
        if code == 0:
            self._journal.close("done", message, 0)
            self._journal.say("done")
        else:
            self._journal.close("failed", message, code)
            self._journal.say(f"failed: {message}")
        return code

    def _steps(self) -> tuple[int, str]:
        self._fetch()
        self._look()
        self._check()
        python = self._install()
        if self._plan.replace_process:
            self._stop.check()
            with self._journal.step("running", "starting"):
                become(self._plan.main, python)
        code, message = self._run_main(self._prepared(), python)
        problems = self._upload(is_success=code == 0)
        if code == 0 and self._stop.is_requested:
            code, message = STOPPED, "The run was stopped."
        if problems and code == 0:
            code = UPLOAD_FAILED
            message = " ".join(problems)
        elif problems:
            message = " ".join([message, *problems])
        return code, message

    def _fetch(self) -> None:
        if not self._plan.fetches:
            return
        with self._journal.step("fetching", "fetching source and data") as step:
            from modelyard.runner.fetch import fetch_all

            step.detail = fetch_all(self._plan, self._journal, self._stop, self._cache())

    def _look(self) -> None:
        if self._plan.looks:
            from modelyard.runner.listing import describe_directory

            for look in self._plan.looks:
                self._journal.record(look.record, describe_directory(look.path))

    def _check(self) -> None:
        for required in self._plan.must_exist:
            if os.path.exists(required.path):
                continue
            there = _listing(os.path.dirname(required.path))
            raise StepFailed(f"{required.message.rstrip('.')}. {there}", NO_ENTRY_POINT)

    def _install(self) -> str:
        self._stop.check()
        path = self._plan.requirements
        if path is None or not os.path.isfile(path):
            return sys.executable
        from modelyard.runner.listing import describe_file

        self._journal.record("requirements", describe_file(path))
        with self._journal.step("installing", "installing requirements") as step:
            from modelyard.runner.layer import prepare_layer

            python, step.detail = prepare_layer(self._plan, self._journal, self._stop)
        if python != sys.executable:
            self._cache().note_layer(os.path.basename(os.path.dirname(os.path.dirname(python))))
        return python

    def _cache(self) -> DataCache:
        if self._data_cache is None:
            from modelyard.runner.datacache import DataCache

            self._data_cache = DataCache(self._plan.data_cache, self._plan.data_door)
        return self._data_cache

    def _prepared(self) -> Main:
        """The process to start, with what is known only now: the checkpoints that were fetched, and where the other instances are."""
        main, gang, resume = self._plan.main, self._plan.gang, self._plan.resume
        if resume is not None and resume.attempt != "0" and _has_content(resume.directory):
            self._journal.say(
                f"attempt {int(resume.attempt) + 1}: it goes on from the checkpoints in {resume.directory}"
            )
            main = main._replace(env={**main.env, resume.variable: resume.directory})
        if gang is None:
            return main
        from modelyard.runner.gang import joined, meet

        with self._journal.step("waiting", "waiting for the other instances to be ready"):
            return joined(main, gang, meet(gang, self._stop))

    def _run_main(self, main: Main, python: str) -> tuple[int, str]:
        with self._journal.step("running", "running") as step:
            self._stop.check()
            shared = (main.env[name] for name in (self._plan.gang.shared if self._plan.gang is not None else ()))
            for directory in (*self._plan.directories, *(upload.source for upload in self._plan.uploads), *shared):
                _make_directory(directory)
            self._make_syncs()
            code = run_main(main, python, self._stop, self._plan.grace_seconds, self._start_syncs)
            self._was_killed = code < 0
            self._journal.note_end(code if code >= 0 else 128 - code)
            message = _ending(code, self._stop)
            if code != 0 and not self._stop.is_requested:
                message = f"{message} {_full_storage(self._plan)}".strip()
            step.detail = message
            self._journal.say(message)
            return (code if code >= 0 else 128 - code), message

    def _make_syncs(self) -> None:
        for upload in self._uploads:
            if upload.sync_seconds is None:
                continue
            from modelyard.runner.checkpoints import CheckpointSync
            from modelyard.runner.upload import Destination

            destination = Destination(upload, self._plan.token, self._journal, self._plan.retry_seconds)
            self._syncs[upload] = CheckpointSync(destination, upload.sync_seconds, self._journal)

    def _start_syncs(self) -> None:
        for sync in self._syncs.values():
            sync.start()

    def _upload(self, *, is_success: bool) -> list[str]:
        """Keep what has to be kept; the sentences of what could not be.

        What is kept always is kept also when the run is being stopped; the rest only in a run that succeeds and goes on to its end.
        """
        problems: list[str] = []
        always = [upload for upload in self._uploads if upload.on == ALWAYS]
        rest = [upload for upload in self._uploads if upload.on != ALWAYS]
        for upload in self._plan.uploads if not self._uploads else ():
            if _has_content(upload.source):
                self._journal.say(f"{upload.source} of this instance is not kept: instance 0 keeps {upload.label}")
        for upload in always:
            problems += self._upload_one(upload, Stop())
        for upload in rest:
            if is_success and not self._stop.is_requested:
                problems += self._upload_one(upload, self._stop)
        return problems

    def _upload_one(self, upload: Upload, stop: Stop) -> list[str]:
        from modelyard.runner.outputs import upload_output
        from modelyard.runner.upload import Destination

        with self._journal.step("uploading", f"uploading to {upload.label}") as step:
            try:
                sync = self._syncs.get(upload)
                if sync is not None:
                    step.detail = sync.finish(stop, was_killed=self._was_killed)
                else:
                    destination = Destination(upload, self._plan.token, self._journal, self._plan.retry_seconds)
                    step.detail = upload_output(destination, self._journal, stop)
            except Stopped as failure:
                step.detail = failure.message
            except StepFailed as failure:
                step.detail = failure.message
                self._journal.warn(failure.message)
                return [failure.message]
        return []


def _has_content(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def _make_directory(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise StepFailed(f"'{path}' can't be made: {error.strerror}.", NO_SPACE) from error


def _ending(code: int, stop: Stop) -> str:
    if code < 0:
        name = signal_name(-code)
        if stop.is_requested:
            return f"The run was stopped: the process was ended by {name}."
        reason = " The system mostly does that when memory runs out." if name == "SIGKILL" else ""
        return f"The process was ended by {name} (signal {-code}).{reason}"
    if stop.is_requested:
        return f"The run was stopped: the process ended with exit code {code}."
    return f"The process ended with exit code {code}."


def _full_storage(plan: Plan) -> str:
    """A sentence when the run has failed and its storage is full, which is then mostly why; empty otherwise."""
    try:
        found = os.statvfs(plan.data_storage)
    except OSError:
        return ""
    if found.f_bavail * found.f_frsize > _FULL_BYTES and found.f_favail > 0:
        return ""
    if plan.data_storage_gib:
        return (
            f"Out of space: its data storage of {plan.data_storage_gib:g} GB is full. Ask for a larger data storage "
            "(dataStorageSize), or write less."
        )
    return "Out of space: the disk of the machine is full. Free some of it, or write less."


def _listing(directory: str) -> str:
    """What is in a directory, as a sentence."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return f"There is no directory {directory}."
    if not names:
        return f"The directory {directory} is empty."
    more = f" and {len(names) - _LISTED_COUNT} more" if len(names) > _LISTED_COUNT else ""
    return f"There is: {', '.join(names[:_LISTED_COUNT])}{more}."
