"""One server process: `python -m modelyard.server --home DIR [--stop]` (`__main__.py`). Started and watched by `modelyard up`.

Signals: SIGTERM and SIGINT detach (workloads and the gateway go on), SIGUSR2 shuts everything down. Exit codes: 0 as asked, 3 for a problem that
starting again does not cure, 1 for anything else; why is told on stderr and in `run/problem.txt`. A server detaches also when its keeper is gone: the
next `modelyard up` brings a server of its own.
"""

from __future__ import annotations

import argparse
import json
import logging
import logging.handlers
import os
import tomllib
from pathlib import Path

from pydantic import ValidationError

from modelyard.server.giving_up import give_up
from modelyard.server.home import Home, HomeUnusable
from modelyard.server.settings import load_settings
from modelyard.wire import plain


def main() -> None:
    """Run."""
    arguments = _arguments()
    home = Home(Path(arguments.home).absolute())
    os.umask(0o022)
    try:
        home.prepare()
        settings = load_settings(home.config_file, json.loads(arguments.overrides))
    except HomeUnusable as problem:
        give_up(home, str(problem))
    except tomllib.TOMLDecodeError as problem:
        give_up(home, f"the settings in {home.config_file} are no TOML: {problem}")
    except ValidationError as problem:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {plain(fault)}" for fault in problem.errors()]
        give_up(
            home,
            f"the settings can't be used: {'; '.join(faults)} (from the command line, MODELYARD_… or {home.config_file})",
        )
    _configure_logging(home, arguments.index)
    if arguments.servers > 1 and not arguments.stop and settings.database_url is None:
        give_up(home, "more than one server needs PostgreSQL (--database-url): SQLite is for one")
    # All else takes a second to load; what is wrong so far is told before.
    from modelyard.server import life  # noqa: PLC0415  # see above

    if arguments.stop:
        life.stop(home, settings, arguments.deadline)
    else:
        seat = life.Seat(arguments.index, arguments.servers)
        life.live(home, settings, seat, keeper_pid=arguments.keeper, deadline_seconds=arguments.deadline)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m modelyard.server")
    parser.add_argument("--home", required=True)
    parser.add_argument("--overrides", default="{}", help="settings from the command line, as JSON")
    parser.add_argument("--index", type=int, default=0, help="which of the servers this is")
    parser.add_argument("--servers", type=int, default=1, help="how many there are")
    parser.add_argument("--keeper", type=int, help="the process that watches over this one")
    parser.add_argument("--stop", action="store_true", help="end what is left running, and exit")
    parser.add_argument("--deadline", type=float, default=30.0, help="seconds that workloads get to end")
    return parser.parse_args()


def _configure_logging(home: Home, index: int) -> None:
    path = home.log_file if index == 0 else home.log_file.with_name(f"server-{index}.log")
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=20 * 2**20, backupCount=5)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
