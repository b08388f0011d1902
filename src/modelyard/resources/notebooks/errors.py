"""Sentences of notebooks."""

from __future__ import annotations

from modelyard.kit.errors import Conflict


class NotebookNotStopped(Conflict):
    """Only a notebook that is stopped can get another instance type."""

    code = 409060

    def __init__(self, name: str, state: str) -> None:
        super().__init__(
            f"the notebook '{name}' is {state}; its instance type can be changed while it is STOPPED: stop it first"
        )


class NotebookCantStart(Conflict):
    """It is in a state that no start leads out of."""

    code = 409061

    def __init__(self, name: str, state: str) -> None:
        advice = {
            "CREATE_FAILED": "delete it and create a new one",
            "STOP_IN_PROGRESS": "wait until it is STOPPED and start it then",
            "STOP_FAILED": "stop it again first",
        }.get(state, "it is being deleted")
        super().__init__(f"the notebook '{name}' is {state} and can't be started; {advice}")


class NotebookCantStop(Conflict):
    """There is nothing to stop."""

    code = 409062

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"the notebook '{name}' is {state}; there is nothing to stop")


class NotebookNotRunning(Conflict):
    """What only a running notebook has was asked of one that does not run."""

    code = 409063

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"the notebook '{name}' is {state}; start it and wait until it is ACTIVE_HEALTHY")
