"""Routes that only those pass whom the platform's guard lets pass, in Envoy's words.

Each request of such a route, WebSockets included, is first told to the guard: a server of the platform on a Unix socket, asked through Envoy's
filter ext_authz. Both filters that this takes are off, except for entries that turn them on: `_TELL` writes into the request which route
it is about (over whatever the client wrote there), `_ASK` asks. Without an answer nothing passes.

Envoy has no way to end a WebSocket that is under way, whatever becomes of its route or upstream; but it ends the raw connections that a listener
holds when that listener goes. So a guarded route leads through a listener of its own inside Envoy (no port, no socket: `internal_listener`) which
passes bytes on to the target. Another epoch is another listener, and removing the one before ends what went through it (`DRAIN_SECONDS`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from modelyard.gateway.port import Access, Route

Json = dict[str, Any]

GUARD_CLUSTER = "guard"
ACCESS_HEADER = "x-modelyard-access"
"""Tells the guard which route a request is for: `{project_id}/{kind}/{target_id}`."""
DRAIN_SECONDS = 1
"""How long Envoy keeps the connections of a listener that was removed; it looks at twice that."""

_HTTP = "type.googleapis.com/envoy.extensions.filters.http"
_TELL = "modelyard.guard.tell"
_ASK = "modelyard.guard.ask"
_ANSWERS_WITHIN = "3s"
_CONNECT_ATTEMPTS = 4
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_TOLD = (
    "accept",
    "accept-language",
    "cookie",
    "origin",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-websocket-key",
    "sec-websocket-version",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-proto",
    ACCESS_HEADER,
)


def internal_listeners() -> Json:
    """The part of the bootstrap that makes listeners without a socket possible."""
    kind = "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
    return {"name": "envoy.bootstrap.internal_listener", "typed_config": {"@type": kind}}


def guard_filters() -> list[Json]:
    """The filters, off for all entries that don't turn them on."""
    ask: Json = {
        "@type": f"{_HTTP}.ext_authz.v3.ExtAuthz",
        "http_service": {
            "server_uri": {"uri": "http://guard", "cluster": GUARD_CLUSTER, "timeout": _ANSWERS_WITHIN},
            # Headers of the guard's answer that replace the client's. It names those to be removed itself (x-envoy-auth-headers-to-remove).
            "authorization_response": {
                "allowed_upstream_headers": {"patterns": [{"prefix": "x-modelyard-"}, {"exact": "cookie"}]}
            },
        },
        "allowed_headers": {"patterns": [{"exact": name} for name in _TOLD]},
        "failure_mode_allow": False,
        "status_on_error": {"code": "ServiceUnavailable"},
    }
    tell = {"@type": f"{_HTTP}.header_mutation.v3.HeaderMutation"}
    return [
        {"name": _TELL, "disabled": True, "typed_config": tell},
        {"name": _ASK, "disabled": True, "typed_config": ask},
    ]


def access_fault(access: Access) -> str | None:
    """What is wrong with it, as the end of a sentence."""
    for word in (access.project_id, access.kind, access.target_id):
        if not _WORD.fullmatch(word):
            return f"has '{word}' in its access, which is not 1 to 100 letters, digits, dots, dashes and underscores"
    return None


def entry_filters(access: Access) -> Json:
    """What turns the filters on for an entry (`typed_per_filter_config`)."""
    told = f"{access.project_id}/{access.kind}/{access.target_id}"
    tell = {
        "@type": f"{_HTTP}.header_mutation.v3.HeaderMutationPerRoute",
        "mutations": {
            "request_mutations": [
                {
                    "append": {
                        "header": {"key": ACCESS_HEADER, "value": told},
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                    }
                }
            ]
        },
    }
    return {_TELL: tell, _ASK: {"@type": f"{_HTTP}.ext_authz.v3.ExtAuthzPerRoute", "check_settings": {}}}


def relay_name(route: Route, access: Access, cluster: str) -> str:
    """The name of the listener that requests of the route go through on their way to the upstream, and of the cluster that leads there."""
    return "r-" + hashlib.sha256(f"{route.id}\n{access.epoch}\n{cluster}".encode()).hexdigest()[:24]


def relay_listener(name: str, cluster: str) -> bytes:
    """The listener (JSON): passes bytes on to the cluster, for as long as it takes."""
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "relay",
        "cluster": cluster,
        "idle_timeout": "0s",
        "max_connect_attempts": _CONNECT_ATTEMPTS,
    }
    listener: Json = {
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "internal_listener": {},
        "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}],
    }
    return orjson.dumps(listener)


def relay_address(name: str) -> Json:
    """The address of the listener, for the cluster that leads there."""
    return {"envoy_internal_address": {"server_listener_name": name}}


def guard_addresses(sockets: Sequence[Path]) -> list[Json]:
    """The addresses of the guards."""
    return [{"pipe": {"path": str(socket)}} for socket in sockets]
