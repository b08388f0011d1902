"""A keeper in the background: `python -m modelyard.cli.keep '{"home": …}'`. Started by `modelyard up --detach`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from modelyard.server.keeper import AlreadyRunning, Keeper, KeeperSettings


def main() -> None:
    """Keep."""
    options = json.loads(sys.argv[1])
    settings = KeeperSettings(Path(options["home"]), options["overrides"], options["servers"], options["deadline"])
    try:
        raise SystemExit(Keeper(settings).run())
    except AlreadyRunning as running:
        print(running, file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
