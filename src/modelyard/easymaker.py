"""The official client `easymaker`, release by release: whom it calls, and how it has named and spelled things over the years.

The platform knows one wire form, that of the newest release (2.1.5). Everything in which the releases from 1.0.4 on differ stands here:
`as_newest` is applied to request bodies before they are checked, and the spellings of answers are looked up here. Where an answer must
carry a thing under two names at once, the wire shape has both fields and says so.

| what | by release | handled by |
|---|---|---|
| hosts | `…toast.com` for tokens and logs (1.0), `…nhncloudservice.com`, `…gov-nhncloudservice.com` (from 2.1.2) | `vendor_hosts` |
| credential | `X-Secret-Key` (to 2.0.1), `x-nhn-authorization: Bearer` (from 2.1.0), `X-EasyMaker-Token` (inside workloads) | `projects/access.py` |
| list-valued filters | comma-joined (1.1.6 to 2.0.1), repeated keys (from 2.1.0) | `web.listed` |
| absent fields | explicit nulls (to 2.0.1), left out (from 2.1.0); a null in an answer is a value (2.0) | `wire.NoneAsEmpty`, `web.WireRoute` |
| hyperparameters | `hyperparameterKey/Value` (to 1.1.5), `parameterKey/Value` (1.1.6), `parameterName/Value` | `HYPERPARAMETER` |
| format of a model | `frameworkCode` (1.x, 2.1.4), `modelTypeCode` (2.0.0 to 2.1.3), `modelFormatCode` (2.1.5) | `MODEL`, `newest_format` … |
| models of an endpoint | flat `modelId` and `apigwResourceUri` (to 1.1.0), a list (from 1.1.1), without paths (2.x) | `with_model_list` |
| a stage's autoscaler | fields `ca…` in requests (from 1.0.4), an object `autoScaler` in answers | `with_auto_scaler` |
| the default stage | `defaultStage` (to 2.1.1), `isDefaultStage` (from 2.1.2) | both in `EndpointStageOut` |
| the path of a prediction | its own (1.x), `/{model}/v1/…` (2.0.0 to 2.1.3), `/v1/…` (from 2.1.4) | a stage's routes, `endpoints/reconciler.py` |
| ids and names in lists | `xxxId`, `xxxName`; `id`, `name` read by the command line of 2.1.0 to 2.1.3 | both in `ResourceOut` |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

REGIONS: Final = ("kr1", "kr2", "kr3")
"""Regions that scripts in the world name. Which one a script names is all the same here."""

_DOMAINS = ("nhncloudservice.com", "gov-nhncloudservice.com")
_SINGLE_HOSTS = (
    "api-identity-infrastructure.nhncloudservice.com",
    "api-identity-infrastructure.gov-nhncloudservice.com",
    "api-identity.infrastructure.cloud.toast.com",
    "api-logncrash.nhncloudservice.com",
    "api-logncrash.cloud.toast.com",
    "oauth.api.nhncloudservice.com",
    "oauth.api.gov-nhncloudservice.com",
)

Names = Mapping[str, Sequence[str]]
"""The newest name of a field, with the older ones in the order in which they are looked for."""

HYPERPARAMETER: Final[Names] = {
    "parameterName": ("parameterKey", "hyperparameterKey", "hyperparameterName"),
    "parameterValue": ("hyperparameterValue",),
}
MODEL: Final[Names] = {"modelFormatCode": ("modelTypeCode", "frameworkCode")}
STAGE: Final[Names] = {"nodeCount": ("instanceCount",), "apigwStageName": ("stageName",)}

_AUTO_SCALER = {
    "caEnable": "enable",
    "caMinNodeCount": "minNodeCount",
    "caMaxNodeCount": "maxNodeCount",
    "caScaleDownEnable": "scaleDownEnable",
    "caScaleDownUtilThresh": "scaleDownUtilThreshPercentage",
    "caScaleDownUnneededTime": "scaleDownUnneededMinute",
    "caScaleDownDelayAfterAdd": "scaleDownDelayAfterAddMinute",
}
_NEWEST_FORMATS = {
    "SCIKIT_LEARN": "SKLEARN",
    "TENSORFLOW_TRITON": "TENSORFLOW",
    "PYTORCH_TRITON": "PYTORCH",
    "ONNX_TRITON": "ONNX",
}
_OLDER_FORMATS = {
    "TENSORFLOW": "TENSORFLOW",
    "PYTORCH": "PYTORCH",
    "SKLEARN": "SCIKIT_LEARN",
    "HUGGING_FACE": "HUGGING_FACE",
    "ONNX": "ONNX_TRITON",
}
_KNOWN_TO_2_1_5 = frozenset({"TENSORFLOW", "PYTORCH", "SKLEARN", "HUGGING_FACE", "TRITON", "SAPEON"})


def object_store_hosts(region: str = REGIONS[0]) -> tuple[str, ...]:
    """The hosts of `obs://` paths in scripts, those of `region` among them."""
    regions = dict.fromkeys((region, *REGIONS))
    return tuple(f"{each}-api-object-storage.{domain}" for domain in _DOMAINS for each in regions)


def vendor_hosts(region: str = REGIONS[0]) -> tuple[str, ...]:
    """Every host that some release calls by a name of its own, whatever the environment says: the API, identity, logs and object store."""
    regions = dict.fromkeys((region, *REGIONS))
    api = [f"{each}-easymaker.api.{domain}" for domain in _DOMAINS for each in regions]
    return (*api, *object_store_hosts(region), *_SINGLE_HOSTS)


def as_newest(value: Any, names: Names) -> Any:
    """A request's JSON object with its fields under their newest names; anything that is no object as it is.

    A field that is absent or null takes the value of the first older name that has one.
    """
    if not isinstance(value, dict):
        return value
    item = {str(key): held for key, held in cast(dict[Any, Any], value).items()}
    for newest, older in names.items():
        if item.get(newest) is None:
            found = next((item[name] for name in older if item.get(name) is not None), None)
            if found is not None:
                item[newest] = found
    return item


def with_model_list(value: Any) -> Any:
    """The body of an endpoint or stage with its model in the list, where it came flat."""
    if not isinstance(value, dict):
        return value
    item = cast(dict[str, Any], value)
    if item.get("endpointModelResourceList") or not item.get("modelId"):
        return item
    flat = {"modelId": item["modelId"], "apigwResourceUri": item.get("apigwResourceUri")}
    return {**item, "endpointModelResourceList": [flat]}


def with_auto_scaler(value: Any) -> Any:
    """The body of an endpoint or stage with its autoscaler as an object, as answers have it, where it came as fields `ca…`.

    Models that ask for more of themselves (`podAutoScaleEnable`) on a stage without an autoscaler may grow as far as a stage can.
    """
    if not isinstance(value, dict):
        return value
    item = cast(dict[str, Any], value)
    if item.get("autoScaler") is not None:
        return item
    if item.get("caEnable"):
        named = {name: item[older] for older, name in _AUTO_SCALER.items() if item.get(older) is not None}
        return {**item, "autoScaler": named}
    models: Any = item.get("endpointModelResourceList")
    scales = isinstance(models, list) and any(
        isinstance(model, dict) and cast(dict[str, Any], model).get("podAutoScaleEnable")
        for model in cast(list[Any], models)
    )
    if scales:
        return {**item, "autoScaler": {"enable": True, "minNodeCount": item.get("nodeCount") or 1}}
    return item


def newest_format(code: str) -> str:
    """A model's format as 2.1.5 spells it."""
    return _NEWEST_FORMATS.get(code, code)


def older_format(code: str) -> str | None:
    """A format as clients 2.0 to 2.1.4 spell it; None where they have no word (they refuse unknown ones)."""
    return _OLDER_FORMATS.get(code)


def newer_format(code: str) -> str | None:
    """A format as client 2.1.5 spells it; None where it has no word (it refuses unknown ones)."""
    return code if code in _KNOWN_TO_2_1_5 else None
