"""The configuration that Envoy is started with: who listens, how HTTP is spoken, where the watched files are.

All that changes while Envoy runs (routes, upstreams, the certificate) stands in files of its own; the bootstrap only names them. It is a
pure function of the settings, so equal settings give equal bytes, and that is how a running Envoy is recognised as the right one.

Paths are not normalised: `%2F`, `//` and every other spelling reach the target as they came, because an object's name is exactly what
its client sent. What could mean two things is refused instead (`routes.py`).
"""

from __future__ import annotations

from typing import Any

from modelyard.gateway.backends.envoy.conditions import KEY_ID_HEADER, condition_filters, early_mutations
from modelyard.gateway.backends.envoy.decisions import DECIDED, decision_log
from modelyard.gateway.backends.envoy.guarded import guard_filters, internal_listeners
from modelyard.gateway.backends.envoy.replies import local_replies
from modelyard.gateway.backends.envoy.settings import EnvoySettings, Files, ListenAddress
from modelyard.gateway.backends.envoy.statistics import KEPT, LATENCY_BOUNDS_MS
from modelyard.gateway.backends.envoy.tunnel import tunnel_clusters

Json = dict[str, Any]

ROUTES = "front_door"
SECRET = "front_door"  # noqa: S105  # the name under which Envoy asks for the certificate, not a secret

_HTTP = "type.googleapis.com/envoy.extensions.filters.http"
_MEBIBYTE = 1024 * 1024
_CONNECTION_BUFFER_BYTES = _MEBIBYTE  # a body up to this size can be sent again when a connection fails
_MAX_HEADERS_KIBIBYTES = 96  # Keystone tokens with a service catalogue go beyond the usual 60
_IDLE_CONNECTION = "600s"
_IDLE_STREAM = "300s"  # for routes that have a time limit; a route without one has none here either
_HEADERS_ARRIVE = "30s"  # a client that trickles its headers gives up its connection


def bootstrap(settings: EnvoySettings) -> Json:
    """Envoy's bootstrap (envoy.config.bootstrap.v3.Bootstrap) as JSON values."""
    files = settings.files
    return {
        "node": {"id": "modelyard", "cluster": "modelyard"},
        "admin": {
            "address": {"pipe": {"path": str(files.admin_socket), "mode": 0o600}},
            "ignore_global_conn_limit": True,
        },
        "stats_config": {
            "stats_matcher": {"inclusion_list": {"patterns": _kept_statistics()}},
            "histogram_bucket_settings": [{"match": {"prefix": "cluster."}, "buckets": list(LATENCY_BOUNDS_MS)}],
        },
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "cluster_manager": {"enable_deferred_cluster_creation": True},
        "bootstrap_extensions": [internal_listeners()],
        "dynamic_resources": {
            "cds_config": _file_source(str(files.clusters)),
            "lds_config": _file_source(str(files.listeners)),
        },
        "static_resources": {"listeners": _listeners(settings), "clusters": tunnel_clusters(settings)},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": settings.max_connections,
                    },
                }
            ]
        },
    }


def _kept_statistics() -> list[Json]:
    # An Envoy left to itself keeps some hundred counters for each upstream; only what is read is kept.
    prefixes = (DECIDED, "http.ingress.", "cluster_manager.cds.", "server.", "listener_manager.", "sds.")
    counted: Json = {"safe_regex": {"google_re2": {}, "regex": KEPT}}
    return [counted, *({"prefix": prefix} for prefix in prefixes)]


def _listeners(settings: EnvoySettings) -> list[Json]:
    http = [_listener(f"http-{index}", address, _front_door(settings)) for index, address in enumerate(settings.http)]
    https = [
        _listener(f"https-{index}", address, _front_door(settings), _tls(settings.files))
        for index, address in enumerate(settings.https)
    ]
    # The front door comes first: Envoy files the counters of the shared routes under the listener that asked for them first.
    return [*http, *https, _probe(settings.files)]


def _listener(name: str, address: ListenAddress, manager: Json, tls: Json | None = None) -> Json:
    chain: Json = {"filters": [{"name": "http", "typed_config": manager}]}
    if tls is not None:
        chain |= {"transport_socket": tls, "transport_socket_connect_timeout": "15s"}
    return {
        "name": name,
        "address": {"socket_address": {"address": address.host, "port_value": address.port}},
        "per_connection_buffer_limit_bytes": _CONNECTION_BUFFER_BYTES,
        "filter_chains": [chain],
    }


def _tls(files: Files) -> Json:
    return {
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificate_sds_secret_configs": [{"name": SECRET, "sds_config": _file_source(str(files.secret))}],
            },
        },
    }


def _front_door(settings: EnvoySettings) -> Json:
    return {
        **_manager("ingress", settings.files),
        "codec_type": "AUTO",
        # The client is who connected, and no client sets the gateway's own headers: being on this machine earns no trust.
        "use_remote_address": True,
        "xff_num_trusted_hops": settings.trusted_proxy_count,
        "internal_address_config": {"unix_sockets": False},
        "early_header_mutation_extensions": early_mutations(),
        "append_x_forwarded_port": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        # The target answers `Expect: 100-continue`, so that it can refuse an upload before the first byte of it.
        "proxy_100_continue": True,
        "server_header_transformation": "PASS_THROUGH",
        "max_request_headers_kb": _MAX_HEADERS_KIBIBYTES,
        "common_http_protocol_options": {"idle_timeout": _IDLE_CONNECTION},
        "stream_idle_timeout": _IDLE_STREAM,
        "request_headers_timeout": _HEADERS_ARRIVE,
        # Python before 3.12 asks for tunnels in HTTP/1.0 (`tunnel.py`).
        "http_protocol_options": {"accept_http_10": True},
        "http2_protocol_options": {
            "allow_connect": True,
            "max_concurrent_streams": 256,
            "initial_stream_window_size": _MEBIBYTE,
            "initial_connection_window_size": 4 * _MEBIBYTE,
        },
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "local_reply_config": local_replies(),
        "access_log": [_access_log(settings.files), decision_log()],
        "http_filters": [*guard_filters(), *condition_filters(), _repeats(), _router()],
    }


def _probe(files: Files) -> Json:
    manager = {**_manager("probe", files), "http_filters": [_router()]}
    return {
        "name": "probe",
        "address": {"pipe": {"path": str(files.probe_socket), "mode": 0o600}},
        "ignore_global_conn_limit": True,
        # Spreads connections evenly, so that as many connections as there are workers reach each worker once (`probe.py`).
        "connection_balance_config": {"exact_balance": {}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _manager(name: str, files: Files) -> Json:
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "rds": {"route_config_name": ROUTES, "config_source": _file_source(str(files.routes))},
        "generate_request_id": name == "ingress",
    }


def _repeats() -> Json:
    """Requests that may be sent twice (RFC 9110, section 9.2.2) are, when their target dies before it has begun to answer.

    The routes' own retries are for what no target has seen, so they hold for every method; these two add to them.
    """
    input_ = {
        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
        "header_name": ":method",
    }
    is_one_of = [
        {
            "single_predicate": {
                "input": {"name": "method", "typed_config": input_},
                "value_match": {"exact": method},
            }
        }
        for method in ("GET", "HEAD")
    ]
    skip = {"@type": "type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter"}
    mutation = {"append": {"header": {"key": "x-envoy-retry-on", "value": "reset"}}}
    return {
        "name": "repeats",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher",
            "extension_config": {
                "name": "envoy.filters.http.header_mutation",
                "typed_config": {
                    "@type": f"{_HTTP}.header_mutation.v3.HeaderMutation",
                    "mutations": {"request_mutations": [mutation]},
                },
            },
            "xds_matcher": {
                "matcher_list": {
                    "matchers": [
                        {
                            "predicate": {"not_matcher": {"or_matcher": {"predicate": is_one_of}}},
                            "on_match": {"action": {"name": "skip", "typed_config": skip}},
                        }
                    ]
                }
            },
        },
    }


def _router() -> Json:
    return {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_HTTP}.router.v3.Router"}}


def _access_log(files: Files) -> Json:
    # Paths are logged without their query, which may carry a signature or a token.
    fields = {
        "time": "%START_TIME%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "route": "%ROUTE_NAME%",
        "method": "%REQ(:METHOD)%",
        "host": "%REQ(:AUTHORITY)%",
        "path": "%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)%",
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "duration_ms": "%DURATION%",
        "first_byte_ms": "%RESPONSE_DURATION%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "upstream": "%UPSTREAM_HOST%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "api_key": f"%REQ({KEY_ID_HEADER})%",
        "user_agent": "%REQ(USER-AGENT)%",
    }
    return {
        "name": "file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(files.access_log),
            "log_format": {
                "json_format": fields,
                "formatters": [
                    {
                        "name": "envoy.formatter.req_without_query",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery"
                        },
                    }
                ],
            },
        },
    }


def _file_source(path: str) -> Json:
    return {"resource_api_version": "V3", "path_config_source": {"path": path}}
