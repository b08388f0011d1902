"""From method and path to what is asked. Pure; the door does the rest.

Clients of several families call the same model: TensorFlow Serving (`:predict`), the platform's official client (`/predict`, in its
older releases with the model's name before `/v1` or `/v2`), the Open Inference Protocol, and TorchServe (`/predictions/{name}`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from modelyard.serving.errors import MethodNotAllowed, NotServed


class Verb(Enum):
    """What can be asked."""

    ALIVE = "alive"
    READY = "ready"
    METRICS = "metrics"
    V1_LIST = "v1 list"
    V1_STATUS = "v1 status"
    V1_METADATA = "v1 metadata"
    V1_PREDICT = "v1 predict"
    V2_SERVER = "v2 server"
    V2_ALIVE = "v2 alive"
    V2_READY = "v2 ready"
    V2_MODEL = "v2 model"
    V2_MODEL_READY = "v2 model ready"
    V2_INFER = "v2 infer"


_POSTED = {Verb.V1_PREDICT, Verb.V2_INFER}
_FIXED = {
    "/": Verb.ALIVE,
    "/ping": Verb.ALIVE,
    "/metrics": Verb.METRICS,
    "/predict": Verb.V1_PREDICT,
    "/v1/models": Verb.V1_LIST,
    "/v2": Verb.V2_SERVER,
    "/v2/health/live": Verb.V2_ALIVE,
    "/v2/health/ready": Verb.V2_READY,
}
_V1 = {"": Verb.V1_STATUS, "metadata": Verb.V1_METADATA, "predict": Verb.V1_PREDICT}
_V2 = {"": Verb.V2_MODEL, "ready": Verb.V2_MODEL_READY, "infer": Verb.V2_INFER}


@dataclass(frozen=True)
class ServedName:
    """The one model that is here."""

    name: str
    version: str

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the model can be asked, for the answer to a wrong path."""
        v1, v2 = f"/v1/models/{self.name}", f"/v2/models/{self.name}"
        return (
            f"{v1}:predict",
            f"{v1}/predict",
            v1,
            f"{v1}/metadata",
            f"{v2}/infer",
            v2,
            f"{v2}/ready",
            "/v2/health/ready",
            "/metrics",
        )


def resolve(method: str, path: str, served: ServedName, asked: str | None = None) -> Verb:
    """What a method and a (decoded) path ask. Raises `NotServed` and `MethodNotAllowed`.

    Args:
        asked: the path that the caller used, where the gateway has rewritten it: errors speak of that one.
    """
    verb = _verb(path, served, asked or path)
    allowed = "POST" if verb in _POSTED else "GET"
    if method != allowed and not (allowed == "GET" and method == "HEAD"):
        raise MethodNotAllowed(method, asked or path, allowed)
    return verb


def _verb(path: str, served: ServedName, asked: str) -> Verb:
    plain = path.rstrip("/") or "/"
    prefix = f"/{served.name}/v"
    if plain.startswith(prefix):
        plain = plain[len(served.name) + 1 :]
    if plain in _FIXED:
        return _FIXED[plain]
    for root, verbs in (("/v1/models/", _V1), ("/v2/models/", _V2), ("/predictions/", {"": Verb.V1_PREDICT})):
        if plain.startswith(root):
            return _of_model(plain[len(root) :], path, verbs, served, asked)
    raise _not_served(path, served, asked)


def _of_model(rest: str, path: str, verbs: dict[str, Verb], served: ServedName, asked: str) -> Verb:
    """`rest` is `{name}`, `{name}/{action}`, `{name}:{action}`, each perhaps with `/versions/{version}` after the name."""
    if not rest.startswith(served.name) or rest[len(served.name) :][:1] not in ("", "/", ":"):
        other = rest.partition("/")[0].partition(":")[0]
        raise NotServed(f"there is no model '{other}' here, only '{served.name}'")
    rest = rest[len(served.name) :]
    if rest.startswith("/versions/"):
        version, mark, action = _split(rest.removeprefix("/versions/"))
        if version != served.version:
            raise NotServed(f"model '{served.name}' has no version '{version}', only '{served.version}'")
        rest = mark + action
    action = rest[1:]
    if action not in verbs:
        raise _not_served(path, served, asked)
    return verbs[action]


def _split(text: str) -> tuple[str, str, str]:
    at = min((index for index in (text.find("/"), text.find(":")) if index >= 0), default=len(text))
    return text[:at], text[at : at + 1], text[at + 1 :]


def _not_served(path: str, served: ServedName, asked: str) -> NotServed:
    base = asked.removesuffix(path) if asked.endswith(path) else ""  # what the gateway has taken off the caller's path
    return NotServed(
        f"nothing is served at {asked}; the model's paths are {', '.join(base + own for own in served.paths)}"
    )
