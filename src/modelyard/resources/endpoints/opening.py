"""How a stage's settings, its endpoint's API keys and its mirror become part of a route. Pure.

The endpoint's own address keeps the settings of its default stage, whatever stages share its requests.
"""

from __future__ import annotations

import base64
import hashlib
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.kit.errors import Fault
from modelyard.resources.endpoints.instances import ServingSettings, resource_path
from modelyard.resources.endpoints.model import MIRRORED, EndpointModelSpec
from modelyard.resources.endpoints.stage_settings import RateLimit, StageSettings
from modelyard.resources.routes.model import (
    ApiKey,
    Conditions,
    Cors,
    MirrorSpec,
    Rate,
    RouteSpec,
    RuleSpec,
    UpstreamSpec,
)

SETTINGS_LABEL = "settings"
_MIRROR_REQUESTS = (
    256  # copies under way at once: a mirror that does not keep up loses some, and costs no more than that
)
_KEY_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 9
_SECRET_LENGTH = (
    41  # id, colon and secret together are a multiple of 3, so that their base64 has letters and digits only
)

Models = Sequence[tuple[str, EndpointModelSpec]]


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new API key: `shown` is for its owner alone; id and digest are kept."""

    id: str
    digest: str
    shown: str


def mint_key(seed: bytes) -> MintedKey:
    """The API key of 64 random bytes, in the form that the gateway knows (`modelyard.gateway.port.ApiKey`)."""
    number = int.from_bytes(seed)
    letters: list[str] = []
    for _ in range(_ID_LENGTH + _SECRET_LENGTH):  # 298 of the 512 bits: what is over makes all letters as likely
        number, digit = divmod(number, len(_KEY_ALPHABET))
        letters.append(_KEY_ALPHABET[digit])
    id, secret = "mky" + "".join(letters[:_ID_LENGTH]), "".join(letters[_ID_LENGTH:])
    # SHA-1 is what the gateway takes; 240 random bits are not found by it, nor by any collision.
    digest = base64.b64encode(hashlib.sha1(secret.encode(), usedforsecurity=False).digest()).decode()
    return MintedKey(id, digest, base64.b64encode(f"{id}:{secret}".encode()).decode())


@dataclass(frozen=True, slots=True)
class Opening:
    """What a stage asks of requests, with all that it takes.

    Attributes:
        mirror: models of the stage that gets copies, and the addresses that answer for each; empty when none can.
    """

    stage_id: str
    settings: StageSettings
    keys: tuple[ApiKey, ...] = ()
    mirror: Models = ()
    mirror_addresses: Mapping[str, tuple[str, ...]] | None = None

    @property
    def digest(self) -> str:
        """Names what is asked, without the mirror's replicas, which come and go."""
        return hashlib.sha256(repr((self.settings, self._kept_keys)).encode()).hexdigest()[:16]

    def apply(self, spec: RouteSpec, models: Models) -> RouteSpec:
        """The route of the stage, or of the endpoint whose default stage it is, with all this; `models` are the stage's."""
        return self._mirrored(self.restrict(spec), models)

    def restrict(self, spec: RouteSpec) -> RouteSpec:
        """The route with what is asked of requests, leading where it led."""
        settings = self.settings
        limits = [limit for limit in (spec.max_body_bytes, settings.max_body_bytes) if limit is not None]
        return spec.model_copy(
            update={
                "max_body_bytes": min(limits, default=None),
                "timeout_seconds": settings.timeout_seconds or spec.timeout_seconds,
                "idle_seconds": settings.idle_timeout_seconds,
                "conditions": self._conditions(),
                "labels": {**spec.labels, SETTINGS_LABEL: self.digest},
            }
        )

    @property
    def _kept_keys(self) -> tuple[ApiKey, ...] | None:
        return self.keys if self.settings.is_api_key_required else None

    def _conditions(self) -> Conditions | None:
        settings, cors = self.settings, self.settings.cors
        conditions = Conditions(
            name=self.stage_id,
            keys=self._kept_keys,
            rate=rate_of(settings.rate_limit),
            key_rate=rate_of(settings.key_rate_limit) if settings.is_api_key_required else None,
            addresses=tuple(settings.allow_address_list),
            cors=None
            if cors is None
            else Cors(
                origins=tuple(cors.allow_origin_list),
                methods=tuple(cors.allow_method_list),
                headers=tuple(cors.allow_header_list),
                exposed_headers=tuple(cors.expose_header_list),
                allows_credentials=cors.allow_credentials,
                max_age_seconds=cors.max_age_seconds,
            ),
        )
        return None if conditions == Conditions(name=self.stage_id) else conditions

    def _mirrored(self, spec: RouteSpec, models: Models) -> RouteSpec:
        mirror = self.settings.mirror
        if mirror is None or not self.mirror_addresses:
            return spec
        pairs = _pairs(models, self.mirror)
        rules = tuple(_with_mirror(rule, pairs, mirror.percent) for rule in spec.rules)
        copies = tuple(
            UpstreamSpec(name=id + MIRRORED, addresses=self.mirror_addresses[id], max_requests=_MIRROR_REQUESTS)
            for id in dict.fromkeys(id for id, _ in pairs.values())
        )
        return spec.model_copy(update={"rules": rules, "upstreams": (*spec.upstreams, *copies)})


def rate_of(limit: RateLimit | None) -> Rate | None:
    """The limit in the gateway's words."""
    return None if limit is None else Rate(limit.requests, limit.seconds)


def body_limit_faults(settings: StageSettings, serving: ServingSettings, place: str) -> list[Fault]:
    """A limit above the platform's own would promise what the model servers refuse."""
    if settings.max_body_bytes is None or settings.max_body_bytes <= serving.max_body_bytes:
        return []
    sentence = f"must be at most {serving.max_body_bytes}, the platform's own limit (serving.max_body_mib)"
    return [Fault(f"{place}maxBodyBytes", sentence)]


def words_of(spec: RouteSpec) -> list[str]:
    """What a route asks of requests, in sentences."""
    conditions = spec.conditions or Conditions(name="none")
    words = [f"An answer may take {spec.timeout_seconds:g} s; what takes longer is answered 504."]
    if spec.max_body_bytes is not None:
        words.append(f"A request body may have {spec.max_body_bytes:,} bytes; a larger one is answered 413.")
    if spec.idle_seconds is not None:
        words.append(f"A request or answer of which nothing arrives for {spec.idle_seconds:g} s is given up.")
    if conditions.addresses:
        words.append(f"Clients must come from {', '.join(conditions.addresses)}; others are answered 403.")
    if conditions.keys is not None:
        count = len(conditions.keys)
        known = "none exists, so nobody passes" if not count else f"{count} exist{'s' if count == 1 else ''}"
        words.append(f"A request needs an API key in the header x-api-key ({known}); without, it is answered 401.")
    if conditions.rate is not None:
        words.append(f"The stage takes {_rate_words(conditions.rate)}; what is over is answered 429.")
    if conditions.key_rate is not None:
        words.append(f"An API key without a limit of its own may be used for {_rate_words(conditions.key_rate)}.")
    if own := [key for key in conditions.keys or () if key.rate is not None]:
        words.append(f"{len(own)} API key{'s have' if len(own) > 1 else ' has'} a limit of its own.")
    if conditions.cors is not None:
        words.append(_cors_words(conditions.cors))
    shares = {mirror.percent for rule in spec.rules for mirror in rule.mirrors}
    if shares:
        words.append(f"A copy of {max(shares):g} % of the requests goes to another stage; its answers go nowhere.")
    return words


def _rate_words(rate: Rate) -> str:
    requests = f"{rate.requests:,} request{'s' if rate.requests > 1 else ''}"
    return f"{requests} a second" if rate.seconds == 1 else f"{requests} in {rate.seconds:,} s"


def _cors_words(cors: Cors) -> str:
    pages = "all origins" if "*" in cors.origins else ", ".join(cors.origins)
    return f"Pages of {pages} may call with {', '.join(cors.methods)}; the gateway answers their preflights."


def _pairs(models: Models, mirror: Models) -> dict[str, tuple[str, bool]]:
    """Each model of the stage → the model that gets its copies (it answers on the same path), and whether both have the same name."""
    by_path = {resource_path(spec, len(mirror)) or spec.model_name: (id, spec) for id, spec in mirror}
    found: dict[str, tuple[str, bool]] = {}
    for id, spec in models:
        twin = by_path.get(resource_path(spec, len(models)) or spec.model_name)
        if twin is not None:
            found[id] = (twin[0], twin[1].model_name == spec.model_name)
    return found


def _with_mirror(rule: RuleSpec, pairs: Mapping[str, tuple[str, bool]], percent: float) -> RuleSpec:
    """A path that names the model says nothing to a model of another name, so that is not mirrored."""
    twin = next((pairs[id] for id in rule.upstreams if id in pairs), None)
    if twin is None or not (twin[1] or rule.rewrite == "/predict"):
        return rule
    return rule.model_copy(update={"mirrors": (MirrorSpec(upstream=twin[0] + MIRRORED, percent=percent),)})
