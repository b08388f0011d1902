"""The plan of a notebook: all that it is told, as values that the server writes and the session reads. Touches no disk and no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, cast


class BadPlan(ValueError):
    """The plan can't be read; the message names the field."""


class Plan(NamedTuple):
    """What a notebook consists of. Paths are those inside.

    Attributes:
        home: the user's home, on boot storage.
        data: the data storage, below it.
        base: where the default environment is made anew at each start.
        image: the image's environment, read-only.
        run: files of the platform, the Jupyter socket, the report.
        title: the default environment's name for people, e.g. `PyTorch 2.13 (CPU)`.
        variables: what kernels, terminals and start-up scripts find in their environment.
        token: the workload's token; it has to be known to keep it out of files.
        authority: PEM of a certificate authority to trust beside the system's; empty for none.
        idle_minutes: say that nobody uses the notebook after so long; None for never.
        grace_seconds: from SIGTERM to the end by force of what runs inside.
        has_own_network: the way out has to be opened (see `network`), where there is a sandbox.
        silence_seconds: a Jupyter server that answers nothing for so long is started again.
        skips_scripts: start-up scripts are not run.
        base_url: below which path Jupyter serves; begins and ends with a slash.
    """

    home: str
    data: str
    base: str
    image: str
    run: str
    title: str
    variables: Mapping[str, str]
    token: str = ""
    authority: str = ""
    idle_minutes: int | None = None
    grace_seconds: float = 15.0
    has_own_network: bool = False
    silence_seconds: float = 60.0
    skips_scripts: bool = False
    base_url: str = "/"

    def to_json(self) -> str:
        """The plan as a JSON object with the attributes' names as keys."""
        return json.dumps(self._asdict(), ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Plan:
        """Read what `to_json` wrote. Raises `BadPlan`."""
        try:
            content: Any = json.loads(text)
        except ValueError as error:
            raise BadPlan(f"the plan is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise BadPlan("the plan is not an object")
        fields = {name: value for name, value in cast("dict[str, Any]", content).items() if name in Plan._fields}
        texts = ("home", "data", "base", "image", "run", "title")
        missing = [name for name in texts if not isinstance(fields.get(name), str)]
        if missing or not isinstance(fields.get("variables"), dict):
            raise BadPlan(f"the plan lacks {', '.join(missing) or 'variables'}")
        return Plan(**fields)

    @property
    def environments(self) -> str:
        """Where environments that stay are kept."""
        return f"{self.data}/custom-conda-envs"

    @property
    def scripts(self) -> str:
        """Where start-up scripts are found."""
        return f"{self.data}/cont-init.d"

    @property
    def state(self) -> str:
        """What the notebook remembers from one start to the next."""
        return f"{self.data}/.modelyard"
