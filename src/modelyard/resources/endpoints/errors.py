"""Sentences of endpoints and stages."""

from __future__ import annotations

from modelyard.kit.errors import Conflict


class EndpointNameTaken(Conflict):
    """The project has an endpoint of this name."""

    code = 409070

    def __init__(self, name: str) -> None:
        super().__init__(f"there is already an endpoint named '{name}' in this project; choose another name")


class StageNameTaken(Conflict):
    """The endpoint has a stage of this name."""

    code = 409071

    def __init__(self, name: str) -> None:
        super().__init__(f"the endpoint already has a stage named '{name}'; choose another name")


class EndpointHasStages(Conflict):
    """Other stages stand in the way of a deletion."""

    code = 409072

    def __init__(self, stages: list[str]) -> None:
        listed = ", ".join(f"'{stage}'" for stage in stages)
        super().__init__(f"the endpoint has stages besides its default one ({listed}); delete them first")


class StageIsDefault(Conflict):
    """The default stage goes only with its endpoint."""

    code = 409073

    def __init__(self, name: str) -> None:
        super().__init__(
            f"'{name}' is the endpoint's default stage and can't be deleted; make another stage the default first, or delete the endpoint"
        )


class BeingDeleted(Conflict):
    """It is on its way out."""

    code = 409074

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"the {kind} '{name}' is being deleted")


class GatewayQuotaExceeded(Conflict):
    """The project may not have more of it."""

    code = 409075

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"at most {limit} {what} are allowed; delete one, or ask an admin to raise the quota")
