"""A release of the official client in an environment of its own, and how its scripts and commands are run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from journey_platform import clean_environment

SCRIPTS = Path(__file__).parent / "scripts"
SCRIPT_SECONDS = 400.0


@dataclass
class Client:
    """One release, pointed at the platform in one way."""

    python: Path
    variables: Mapping[str, str]
    given: dict[str, Any] = field(default_factory=dict[str, Any])

    def script(self, file: str, **given: Any) -> dict[str, Any]:
        """Run one of the scripts to its end; what it said."""
        environment = clean_environment(**self.variables, GIVEN=json.dumps({**self.given, **given}))
        done = self.run(str(SCRIPTS / file), environment=environment)
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        return dict(json.loads(lines[-1].removeprefix("RESULT ")))

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m easymaker …`, as users of the older releases list things."""
        return self.run("-m", "easymaker", *arguments, environment=clean_environment(**self.variables))

    def run(self, *arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """The release's interpreter."""
        return subprocess.run(
            [str(self.python), *arguments],
            capture_output=True,
            text=True,
            timeout=SCRIPT_SECONDS,
            check=False,
            env=dict(environment),
        )


MakeClient = Callable[..., Client]
"""The fixture `make_client`: a release, and the way in which it is pointed at the platform."""
