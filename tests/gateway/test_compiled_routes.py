"""Routes in Envoy's words, without an Envoy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from modelyard.gateway.backends.envoy.compiled import compile_route
from modelyard.gateway.backends.envoy.routes import check_places, observed_routes, route_resource
from modelyard.gateway.backends.envoy.saved import saved_routes
from modelyard.gateway.port import GatewayRefused, ObservedRoute, Route, Rule, Target, Upstream, route_digest

ROUTE = Route(
    "stage-1",
    "/gateway/x/default",
    rules=(
        Rule("/inference", ("blue", "green"), rewrite="/v1/models/m:predict", methods=("POST",)),
        Rule("/", ("blue",), is_prefix=True),
    ),
    upstreams=(
        Upstream("blue", (Target("/run/a.sock"), Target("/run/b.sock")), 9),
        Upstream("green", (Target("127.0.0.1:80"),), 1),
    ),
    host="ml.example.com",
    timeout_seconds=12.5,
    max_body_bytes=1000,
    labels=(("endpoint", "e"), ("stage", "default")),
)


def changed(**fields: Any) -> Route:
    return dataclasses.replace(ROUTE, **fields)


@pytest.mark.parametrize(
    ("route", "sentence"),
    [
        (changed(id="Bad_Id"), "an id has"),
        (changed(id=""), "an id has"),
        (changed(host="not a host"), "is not a host name"),
        (changed(prefix="gateway"), "must begin with '/'"),
        (changed(prefix="/a?b"), "must not have '\\?'"),
        (changed(prefix="/a//b"), "empty segment"),
        (changed(prefix="/a/../b"), "'.' or '..' segment"),
        (changed(prefix="/a/%2E%2e/b"), "'.' or '..' segment"),
        (changed(prefix="/a/ä"), "printable ASCII"),
        (changed(prefix="/a b"), "printable ASCII"),
        (changed(timeout_seconds=-1), "time limit"),
        (changed(max_body_bytes=-1), "body limit"),
        (changed(rules=()), "needs a rule"),
        (changed(labels=(("endpoint", "\ud800"),)), "surrogates"),
        (changed(rules=(Rule("/", ("red",)),)), "'red', which the route does not have"),
        (changed(rules=(Rule("/", ()),)), "no upstream with a weight above 0"),
        (changed(rules=(Rule("/", ("blue",), answer="{}"),)), "nothing is asked for it"),
        (changed(rules=(Rule("inference", ("blue",)),)), "must begin with '/'"),
        (changed(rules=(Rule("/", ("blue",), rewrite="/a#b"),)), "must not have '\\?', '#'"),
        (changed(rules=(Rule("/", ("blue",), methods=("get",)),)), "not an HTTP method"),
        (changed(upstreams=(*ROUTE.upstreams, ROUTE.upstreams[0])), "same name"),
        (changed(upstreams=(Upstream("blue", (), -1), ROUTE.upstreams[1])), "must not be negative"),
        (
            changed(upstreams=(Upstream("blue", (Target("example.com:80"),)), ROUTE.upstreams[1])),
            "neither the path of a Unix socket",
        ),
        (
            changed(upstreams=(Upstream("blue", (Target("127.0.0.1:0"),)), ROUTE.upstreams[1])),
            "neither the path of a Unix socket",
        ),
        (
            changed(upstreams=(Upstream("blue", (Target("127.0.0.1"),)), ROUTE.upstreams[1])),
            "neither the path of a Unix socket",
        ),
    ],
)
def test_nonsense_is_refused_with_a_sentence(route: Route, sentence: str) -> None:
    with pytest.raises(GatewayRefused, match=sentence):
        compile_route(route)


def test_upstreams_are_named_by_their_targets_alone() -> None:
    one = compile_route(ROUTE)
    blue, green = ROUTE.upstreams
    turned = dataclasses.replace(blue, targets=blue.targets[::-1], weight=3)
    assert compile_route(changed(upstreams=(turned, green))).clusters == one.clusters
    fewer = dataclasses.replace(blue, targets=blue.targets[:1])
    assert len(compile_route(changed(upstreams=(fewer, green))).clusters.keys() & one.clusters.keys()) == 1


def test_two_routes_may_not_claim_one_place() -> None:
    one, two = compile_route(ROUTE), compile_route(changed(id="stage-2", prefix=ROUTE.prefix + "/"))
    with pytest.raises(GatewayRefused, match=r"ml\.example\.com/gateway/x/default belongs to route 'stage-1' already"):
        check_places([one, two])
    check_places([one, compile_route(changed(id="stage-2", host=None))])


def test_what_is_configured_is_observed() -> None:
    routes = [
        compile_route(ROUTE),
        compile_route(changed(id="stage-2", prefix="")),
        compile_route(changed(id="other", host=None)),
    ]
    resource = route_resource(routes, "1")
    expected = [ObservedRoute(compiled.route.id, route_digest(compiled.route)) for compiled in routes]
    assert observed_routes(resource) == sorted(expected, key=lambda route: route.id)


def test_a_route_with_entries_missing_is_observed_as_another() -> None:
    resource = orjson.loads(route_resource([compile_route(ROUTE)], "1"))
    found = resource["resources"][0]["virtual_hosts"][1]["matcher"]["on_no_match"]["matcher"]
    found["matcher_tree"]["exact_match_map"]["map"].clear()
    assert observed_routes(orjson.dumps(resource)) == [ObservedRoute("stage-1", "incomplete")]


def test_saved_routes_are_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "wanted.json"
    path.write_bytes(orjson.dumps({"routes": [orjson.Fragment(compile_route(ROUTE).saved)]}))
    assert list(saved_routes(path)) == [ROUTE]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"routes": 5}', '{"routes": [{"id": 5}]}', '{"routes": [7]}'])
def test_a_broken_file_of_saved_routes_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "wanted.json"
    path.write_text(content)
    assert list(saved_routes(path)) == []
    assert list(saved_routes(tmp_path / "missing.json")) == []


def test_a_rendering_of_thousands_takes_no_longer_per_route(make_route: Callable[..., Route]) -> None:
    routes = [
        compile_route(make_route(f"r{number}", f"/gateway/{number}", Target("127.0.0.1:80"))) for number in range(2000)
    ]
    assert len(observed_routes(route_resource(routes, "1"))) == 2000
