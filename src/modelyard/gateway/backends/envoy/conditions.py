"""Which requests of a route pass, in Envoy's words: CORS, clients' addresses, API keys, rates, sizes.

Every filter here is off, except for entries that turn it on, so that routes without conditions don't pay for them; all of them decide in
Envoy's own worker threads. Three turns need a word:

- *API keys.* Envoy's filter for API keys wants to know them in clear; its filter for passwords (`basic_auth`) is content with their digests. So a
  key is made as such a filter's credential, base64 of `{id}:{secret}`, and `_TELL_KEY` writes it from `x-api-key` to where the filter looks.
  SHA-1 is the only digest that it takes: for a secret of 240 random bits that is enough, since no collision helps to find it.
- *Sizes.* What model servers accept unless told otherwise is set once for the host, and entries with another limit, or none, say so themselves:
  a filter on each entry makes Envoy take twice as long to load routes.
- *Rates.* A filter's counters belong to the place in the configuration where it is configured, and a route has several entries. So rates are
  configured once for the host, with a bucket for each name, and entries only carry the name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any

from modelyard.gateway.port import Conditions, Cors, GatewayRefused, Rate, Route

Json = dict[str, Any]

METADATA = "modelyard"
KEY_HEADER = "x-api-key"
KEY_ID_HEADER = "x-modelyard-api-key"
"""Tells the target, and the counters, which key a request came with."""

_HTTP = "type.googleapis.com/envoy.extensions.filters.http"
_CREDENTIAL = "x-modelyard-credential"
_CORS = "modelyard.cors"
_ADDRESSES = "modelyard.addresses"
_TELL_KEY = "modelyard.key.tell"
_KEY = "modelyard.key"
_RATE = "modelyard.rate"
_SIZE = "modelyard.size"
_UNLIMITED = 4_000_000_000
_LARGEST_BODY = 2**63 - 1
_USUAL_BODY = (
    64 * 1024 * 1024
)  # the default of `serving.max_body_mib`: with another, loading takes longer, and that is all
_NAME = re.compile(r"[a-z0-9-]{1,100}")
_ID = re.compile(r"[A-Za-z0-9]{1,64}")
_DIGEST = re.compile(r"[A-Za-z0-9+/]{27}=")


def condition_filters() -> list[Json]:
    """The filters in their order. CORS comes first, so that pages can read why they were turned away."""
    nobody = {"inline_string": f"nobody:{{SHA}}{'A' * 27}="}
    return [
        _off(_CORS, {"@type": f"{_HTTP}.cors.v3.Cors"}),
        _off(_ADDRESSES, {"@type": f"{_HTTP}.rbac.v3.RBAC"}),
        _off(_TELL_KEY, {"@type": f"{_HTTP}.header_mutation.v3.HeaderMutation"}),
        _off(
            _KEY,
            {
                "@type": f"{_HTTP}.basic_auth.v3.BasicAuth",
                "users": nobody,
                "authentication_header": _CREDENTIAL,
                "forward_username_header": KEY_ID_HEADER,
            },
        ),
        _off(_RATE, {"@type": f"{_HTTP}.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "rate"}),
        _off(_SIZE, {"@type": f"{_HTTP}.filter_chain.v3.FilterChainConfig"}),
    ]


def early_mutations() -> list[Json]:
    """What happens to each request before all: no client says itself which key it has shown. (Counters have its names, too.)"""
    kind = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    return [{"name": "own-headers", "typed_config": {"@type": kind, "mutations": [{"remove": KEY_ID_HEADER}]}}]


def apply_conditions(route: Route, entry: Json) -> Json:
    """The entry with what turns its route's conditions on."""
    conditions = route.conditions
    filters = {**entry.get("typed_per_filter_config", {}), **_size_filter(route.max_body_bytes)}
    changed = dict(entry)
    if conditions is not None:
        filters |= _entry_filters(conditions)
        if conditions.keys is not None:
            changed["request_headers_to_remove"] = [KEY_HEADER, _CREDENTIAL]
        if _has_rates(conditions):
            changed["metadata"] = {"filter_metadata": {METADATA: {"rate": conditions.name}}}
    return {**changed, "typed_per_filter_config": filters} if filters else changed


def without_size_limit() -> Json:
    """What an entry needs that takes bodies of any size (`typed_per_filter_config`)."""
    return {_SIZE: {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}}


def host_filters(routes: Sequence[Route]) -> Json:
    """What holds for all routes of a host that don't say otherwise (`typed_per_filter_config` of the host): the usual size, and all rates."""
    usual = any(route.max_body_bytes == _USUAL_BODY for route in routes)
    return {**(_size_limit(_USUAL_BODY) if usual else {}), **_rate_filters(routes)}


def _rate_filters(routes: Iterable[Route]) -> Json:
    limited = {
        route.conditions.name: route.conditions
        for route in routes
        if route.conditions is not None and _has_rates(route.conditions)
    }
    if not limited:
        return {}
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}, "runtime_key": "modelyard.none"}
    name: Json = {
        "metadata": {
            "source": "ROUTE_ENTRY",
            "descriptor_key": "name",
            "metadata_key": {"key": METADATA, "path": [{"key": "rate"}]},
        }
    }
    key: Json = {"request_headers": {"header_name": KEY_ID_HEADER, "descriptor_key": "key"}}
    rate: Json = {
        "@type": f"{_HTTP}.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "rate",
        "filter_enabled": always,
        "filter_enforced": always,
        "enable_retry_after_header": True,
        "always_consume_default_token_bucket": False,
        "token_bucket": _bucket(Rate(_UNLIMITED)),  # Envoy wants one for requests that have no name
        # Only what has a rate is told it; the rest would hear that it may send four thousand million requests.
        "rate_limits": [
            {"actions": actions, "x_ratelimit_option": "DRAFT_VERSION_03"} for actions in ([name], [name, key])
        ],
        "descriptors": [item for each in limited.values() for item in _descriptors(each)],
    }
    return {_RATE: rate}


def check_conditions(conditions: Conditions) -> None:
    """Raise `GatewayRefused` with the end of a sentence when they make no sense."""
    if not _NAME.fullmatch(conditions.name):
        raise GatewayRefused(
            "the name of its conditions has other characters than lower-case letters, digits and dashes"
        )
    for key in conditions.keys or ():
        if not _ID.fullmatch(key.id) or not _DIGEST.fullmatch(key.digest):
            raise GatewayRefused(f"the API key '{key.id}' is not an id of letters and digits with a SHA-1 in base64")
    for network in conditions.addresses:
        try:
            ipaddress.ip_network(network)
        except ValueError as cause:
            raise GatewayRefused(f"'{network}' is not a network: {cause}") from cause
    rates = [conditions.rate, conditions.key_rate, *(key.rate for key in conditions.keys or ())]
    if any(rate is not None and (rate.requests < 1 or rate.seconds < 1) for rate in rates):
        raise GatewayRefused("a rate is at least 1 request and at least 1 second")


def _off(name: str, config: Json) -> Json:
    return {"name": name, "disabled": True, "typed_config": config}


def _has_rates(conditions: Conditions) -> bool:
    return bool(conditions.rate or conditions.key_rate or any(key.rate for key in conditions.keys or ()))


def _entry_filters(conditions: Conditions) -> Json:
    filters: Json = {}
    if conditions.cors is not None:
        filters[_CORS] = _cors(conditions.cors)
    if conditions.addresses:
        filters[_ADDRESSES] = _addresses(conditions.addresses)
    if conditions.keys is not None:
        filters |= _keys(conditions)
    return filters


def _cors(cors: Cors) -> Json:
    policy: Json = {
        "@type": f"{_HTTP}.cors.v3.CorsPolicy",
        "allow_origin_string_match": [_origin(origin) for origin in cors.origins],
        "allow_methods": ", ".join(cors.methods),
        "max_age": str(cors.max_age_seconds),
        "allow_credentials": cors.allows_credentials,
        "forward_not_matching_preflights": False,
    }
    if cors.headers:
        policy["allow_headers"] = ", ".join(cors.headers)
    if cors.exposed_headers:
        policy["expose_headers"] = ", ".join(cors.exposed_headers)
    return policy


def _origin(origin: str) -> Json:
    if "*" not in origin:
        return {"exact": origin}
    pattern = ".*" if origin == "*" else re.escape(origin).replace(r"\*", r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
    return {"safe_regex": {"regex": pattern}}


def _addresses(networks: tuple[str, ...]) -> Json:
    ranges = [ipaddress.ip_network(network) for network in networks]
    principals = [
        {"remote_ip": {"address_prefix": str(item.network_address), "prefix_len": item.prefixlen}} for item in ranges
    ]
    policies = {"listed": {"permissions": [{"any": True}], "principals": principals}}
    return {
        "@type": f"{_HTTP}.rbac.v3.RBACPerRoute",
        "rbac": {"rules": {"action": "ALLOW", "policies": policies}},
    }


def _keys(conditions: Conditions) -> Json:
    written = {"header": {"key": _CREDENTIAL, "value": f"Basic %REQ({KEY_HEADER})%"}}
    tell: Json = {
        "@type": f"{_HTTP}.header_mutation.v3.HeaderMutationPerRoute",
        "mutations": {
            "request_mutations": [{"append": {**written, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}],
        },
    }
    # Without any key nobody passes: the filter wants at least one user, and no secret has this digest.
    users = [f"{key.id}:{{SHA}}{key.digest}" for key in conditions.keys or ()] or [f"nobody:{{SHA}}{'A' * 27}="]
    ask = {"@type": f"{_HTTP}.basic_auth.v3.BasicAuthPerRoute", "users": {"inline_string": "\n".join(users)}}
    return {_TELL_KEY: tell, _KEY: ask}


def _size_filter(limit: int | None) -> Json:
    if limit == _USUAL_BODY:
        return {}
    return without_size_limit() if limit is None or limit >= _LARGEST_BODY else _size_limit(limit)


def _size_limit(limit: int) -> Json:
    """Counts the body as it streams by: with a Content-Length it is turned away at once, without one when it has become too large."""
    inner = {"@type": f"{_HTTP}.body_size_limit.v3.BodySizeLimit", "max_request_bytes": limit}
    return {
        _SIZE: {
            "@type": f"{_HTTP}.filter_chain.v3.FilterChainConfigPerRoute",
            "filter_chain": {"filters": [{"name": "size", "typed_config": inner}]},
        }
    }


def _descriptors(conditions: Conditions) -> list[Json]:
    name = {"key": "name", "value": conditions.name}
    found: list[Json] = []
    if conditions.rate is not None:
        found.append({"entries": [name], "token_bucket": _bucket(conditions.rate)})
    for key in conditions.keys or ():
        rate = key.rate or conditions.key_rate
        if rate is not None:
            found.append({"entries": [name, {"key": "key", "value": key.id}], "token_bucket": _bucket(rate)})
    return found


def _bucket(rate: Rate) -> Json:
    return {"max_tokens": rate.requests, "tokens_per_fill": rate.requests, "fill_interval": f"{rate.seconds}s"}
