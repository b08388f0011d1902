"""How a server process ends that can't do its work: with a sentence for a person."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import NoReturn

from modelyard.server.home import Home


def give_up(home: Home, message: str, exit_code: int = 3) -> NoReturn:
    """Say why on stderr and in `run/problem.txt`, and end. Code 3: starting again does not cure it."""
    print(message, file=sys.stderr)
    with suppress(OSError):  # the home itself may be the problem; stderr has it
        (home.run / "problem.txt").write_text(message + "\n")
    raise SystemExit(exit_code)
