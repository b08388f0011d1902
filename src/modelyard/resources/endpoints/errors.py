"""Sentences of endpoints and stages."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.kit.errors import Blocked, Blocker, Conflict


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


class EndpointHasStages(Blocked):
    """Other stages stand in the way of a deletion."""

    code = 409072

    def __init__(self, stages: Sequence[Blocker]) -> None:
        super().__init__("the endpoint has stages besides its default one ({blockers}); delete them first", stages)


class StageIsDefault(Conflict):
    """The default stage goes only with its endpoint."""

    code = 409073

    def __init__(self, name: str) -> None:
        super().__init__(
            f"'{name}' is the endpoint's default stage and can't be deleted; make another stage the default first, or delete the endpoint"
        )


class OnlyModelOfStage(Conflict):
    """A stage without a model would answer nothing."""

    code = 409079

    def __init__(self, model: str, stage: str) -> None:
        super().__init__(f"'{model}' is the only model of stage '{stage}'; delete the stage, or its endpoint, instead")


class StageNameReserved(Conflict):
    """The name stands for whichever stage is the default one."""

    code = 409076

    def __init__(self, name: str) -> None:
        super().__init__(f"'{name}' in an endpoint's address stands for its default stage; choose another name")


class StageNotReady(Conflict):
    """It can't take requests over yet."""

    code = 409077

    def __init__(self, name: str, state: str) -> None:
        super().__init__(
            f"the stage '{name}' can't take requests: it is {state}; wait until it is ACTIVE, or look at why it is not"
        )


class ApiKeyNameTaken(Conflict):
    """The endpoint has an API key of this name."""

    code = 409083

    def __init__(self, name: str) -> None:
        super().__init__(f"the endpoint already has an API key named '{name}'; choose another name, or revoke that one")


class TooManyApiKeys(Conflict):
    """The endpoint may not have more of them."""

    code = 409084

    def __init__(self, limit: int) -> None:
        super().__init__(f"an endpoint can have at most {limit} API keys; revoke one that is not used any more")


class StageAsksForLess(Conflict):
    """It would open the endpoint's address to more than the stage that is the default one."""

    code = 409085

    def __init__(self, name: str, default: str, what: Sequence[str]) -> None:
        super().__init__(
            f"the default stage '{default}' asks for {' and '.join(what)}, '{name}' does not, and the endpoint's address would be open to more; "
            f"give '{name}' these settings first, or say isWeakerAllowed"
        )


class NothingToRevert(Conflict):
    """The former default stage is gone."""

    code = 409078

    def __init__(self, endpoint: str) -> None:
        super().__init__(
            f"the endpoint '{endpoint}' keeps no former default stage; say keepMinutes when the default stage is changed"
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
