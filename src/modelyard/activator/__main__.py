"""`python -m modelyard.activator DIRECTORY`: one process for all models of a platform that may rest."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from modelyard.activator.board import Board
from modelyard.activator.relay import Activator


def main() -> None:
    """Serve until told to end, or until no model may rest any more."""
    board = Board(Path(sys.argv[1]))
    if board.hold_lock() is None:  # kept until the process ends
        return
    asyncio.run(Activator(board).run())


if __name__ == "__main__":
    main()
