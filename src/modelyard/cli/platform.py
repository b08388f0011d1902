"""`modelyard up`, `down`, `status`, `doctor`, `credentials`: the platform itself, on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from modelyard.server.keeper import AlreadyRunning, Keeper, KeeperSettings, child_environment, keeper_pid

platform = typer.Typer(add_completion=False)

HOME_VARIABLE = "MODELYARD_HOME"
DEFAULT_HOME = Path("~/.modelyard")
_READY_SECONDS = 120.0
_LEAST_ROOM_BYTES = 2**20  # with less a start would fail somewhere inside, and could not even write down why

HomeOption = Annotated[
    Path, typer.Option("--home", envvar=HOME_VARIABLE, help="Directory that holds everything.", show_default=True)
]
OutputOption = Annotated[str, typer.Option("--output", "-o", help="table or json")]


def read_credentials(home: Path = DEFAULT_HOME) -> dict[str, Any]:
    """What `modelyard credentials` shows, as a mapping. Raises `HomeUnusable` before the first start."""
    from modelyard.server.credentials import show_credentials
    from modelyard.server.home import Home

    place = Home(home.expanduser().absolute())
    return show_credentials(place, _settings(place.root))


@platform.command()
def up(
    home: HomeOption = DEFAULT_HOME,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the platform is up.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    http_port: Annotated[int | None, typer.Option(help="[default: 10090]")] = None,
    https_port: Annotated[int | None, typer.Option(help="[default: 10443]")] = None,
    database_url: Annotated[
        str | None,
        typer.Option(help="postgresql://…; SQLite in the home when absent.", envvar="MODELYARD_DATABASE_URL"),
    ] = None,
    servers: Annotated[int, typer.Option(min=1, max=16, help="Server processes; more than one needs PostgreSQL.")] = 1,
    deadline: Annotated[float, typer.Option(help="Seconds that workloads get to end at a shutdown.")] = 30.0,
) -> None:
    """Start the platform."""
    place = home.expanduser().absolute()
    overrides: dict[str, Any] = {
        "host": host,
        "http_port": http_port,
        "https_port": https_port,
        "database_url": database_url,
    }
    overrides = {name: value for name, value in overrides.items() if value is not None}
    settings = KeeperSettings(place, overrides, servers, deadline)
    if keeper_pid(place) is not None:
        _fail(str(AlreadyRunning(place, str(keeper_pid(place)))))
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        (place / "run").mkdir(mode=0o700, exist_ok=True)
        (place / "run" / "problem.txt").unlink(missing_ok=True)
        (place / "run" / "server-0.json").unlink(missing_ok=True)  # of a server whose keeper was killed
        (place / "run" / "overrides.json").write_text(json.dumps(overrides))
    except OSError as error:
        _fail(f"the home directory {place} can't be written ({error.strerror}); choose another one with --home")
    if shutil.disk_usage(place).free < _LEAST_ROOM_BYTES:
        _fail(f"no space is left on the disk of {place}; free some, or choose another home with --home")
    if detach:
        _detach(settings)
        return
    _announce_when_ready(place)
    try:
        raise typer.Exit(Keeper(settings).run())
    except AlreadyRunning as running:
        _fail(str(running))


@platform.command()
def down(home: HomeOption = DEFAULT_HOME) -> None:
    """End the platform and everything that it runs. Data stays."""
    place = home.expanduser().absolute()
    pid = keeper_pid(place)
    if pid is None:
        if not (place / "run").exists():
            _say(f"No platform runs on {place}.")
            return
        # The keeper is gone, but what it started may not be.
        argv = [sys.executable, "-m", "modelyard.server", "--home", str(place), "--stop"]
        overrides = _running_overrides(place)
        code = subprocess.run(
            [*argv, "--overrides", json.dumps(overrides)], env=child_environment(), check=False
        ).returncode
        _say(
            "The platform was not running; nothing of it is left."
            if code == 0
            else "The platform could not be ended whole."
        )
        raise typer.Exit(code)
    os.kill(pid, 15)
    while keeper_pid(place) is not None:
        time.sleep(0.05)
    _say("The platform has ended.")


@platform.command()
def status(home: HomeOption = DEFAULT_HOME, output: OutputOption = "table") -> None:
    """Show the platform's processes and every running instance: process id, role, state, memory."""
    from modelyard.server.home import Home
    from modelyard.server.running import read_status

    place = Home(home.expanduser().absolute())
    rows = read_status(place, _settings(place.root))
    if output == "json":
        _say(json.dumps([_camel(asdict(row)) for row in rows], indent=2))
    else:
        _table(
            ("ROLE", "PID", "STATE", "MEMORY", "NAME", "OF"),
            [
                (row.role, _dash(row.pid), row.state, _mib(row.memory_bytes), row.name, _dash(row.title or None))
                for row in rows
            ],
        )
    if any(row.state == "STOPPED" for row in rows):
        raise typer.Exit(1)


@platform.command()
def doctor(home: HomeOption = DEFAULT_HOME, output: OutputOption = "table") -> None:
    """Check whether this machine is fit to run the platform, and say what to do where it is not."""
    from modelyard.server.home import Home
    from modelyard.server.inspection import examine

    place = Home(home.expanduser().absolute())
    findings = examine(place, _settings(place.root), is_running=keeper_pid(place.root) is not None)
    if output == "json":
        _say(json.dumps([_camel(asdict(finding)) for finding in findings], indent=2))
    else:
        marks = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}
        for finding in findings:
            _say(f"{marks[finding.level]:8} {finding.check}: {finding.message}")
            if finding.advice:
                _say(f"{'':8} → {finding.advice}")
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


@platform.command()
def credentials(home: HomeOption = DEFAULT_HOME, output: OutputOption = "table") -> None:
    """Show how to connect: URLs, app key, access token, the system account to grant access to, the admin's password."""
    from modelyard.server.home import HomeUnusable

    try:
        known = read_credentials(home)
    except HomeUnusable as problem:
        _fail(str(problem))
    if output == "json":
        _say(json.dumps(known, indent=2))
        return
    width = max(len(name) for name in known)
    for name, value in known.items():
        _say(f"{name:{width}}  {value}")


def _settings(home: Path) -> Any:
    from modelyard.server.home import Home
    from modelyard.server.settings import load_settings

    return load_settings(Home(home).config_file, _running_overrides(home))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[index]) for row in (head, *rows)) for index in range(len(head))]
    for row in (head, *rows):
        _say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _camel(values: dict[str, Any]) -> dict[str, Any]:
    words = {name: name.split("_") for name in values}
    return {first + "".join(part.title() for part in rest): values[name] for name, (first, *rest) in words.items()}


def _dash(value: object) -> str:
    return "-" if value is None else str(value)


def _mib(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else f"{size_bytes / 2**20:.0f} MiB"


def _detach(settings: KeeperSettings) -> None:
    """Start a keeper of its own session, and wait until it serves."""
    log = settings.home / "logs" / "keeper.log"
    log.parent.mkdir(mode=0o700, exist_ok=True)
    options = {
        "home": str(settings.home),
        "overrides": dict(settings.overrides),
        "servers": settings.servers,
        "deadline": settings.deadline_seconds,
    }
    argv = [sys.executable, "-m", "modelyard.cli.keep", json.dumps(options)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=child_environment(),
        )
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        state = _state(settings.home)
        if state is not None:
            _welcome(settings.home, state)
            return
        if process.poll() is not None or (settings.home / "run" / "problem.txt").exists():
            _end(process)
            _fail(_problem(settings.home, log))
        time.sleep(0.02)
    _end(process)
    _fail(
        f"the platform did not start within {_READY_SECONDS:.0f} s; {settings.home}/logs/server.log says how far it came"
    )


def _end(keeper: subprocess.Popen[bytes]) -> None:
    """A start that has failed leaves nothing that tries on behind one's back."""
    keeper.terminate()
    keeper.wait()


def _state(home: Path) -> dict[str, Any] | None:
    """What the server says of itself once it serves; None while it does not."""
    try:
        state = json.loads((home / "run" / "server-0.json").read_text())
        os.kill(state["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    return state


def _announce_when_ready(home: Path) -> None:
    """Print where the platform is once it serves, from a thread, since the keeper holds the main one."""
    import threading

    def _wait() -> None:
        while True:
            state = _state(home)
            if state is not None:
                _welcome(home, state)
                return
            time.sleep(0.05)

    threading.Thread(target=_wait, daemon=True).start()


def _welcome(home: Path, state: dict[str, Any]) -> None:
    _say(f"Modelyard is up: {state['httpsUrl']} (and {state['httpUrl']})")
    suffix = "" if home == DEFAULT_HOME.expanduser() else f" --home {home}"
    _say(f"`modelyard credentials{suffix}` shows how to log in, `modelyard down{suffix}` ends it.")


def _problem(home: Path, log: Path) -> str:
    try:
        return (home / "run" / "problem.txt").read_text().strip()
    except OSError:
        pass
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"the platform did not start: {lines[-1] if lines else 'no reason was given'} (see {home}/logs)"


def _running_overrides(home: Path) -> dict[str, Any]:
    try:
        return json.loads((home / "run" / "overrides.json").read_text())
    except (OSError, ValueError):
        return {}


def _say(text: str) -> None:
    print(text, flush=True)


def _fail(message: str) -> NoReturn:
    print(f"modelyard: {message}", file=sys.stderr, flush=True)
    raise typer.Exit(1)
