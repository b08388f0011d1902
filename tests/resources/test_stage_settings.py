"""Settings of stages and API keys over REST, and what becomes of them in a route; on both databases."""

from __future__ import annotations

import base64
import hashlib
import secrets

import pytest
from api_platform import ApiPlatform
from test_endpoint_statistics import Calls

from modelyard.gateway.backends.envoy.compiled import compile_route
from modelyard.resources.endpoints.instances import ServingSettings, stage_route
from modelyard.resources.endpoints.model import EndpointModelSpec
from modelyard.resources.endpoints.opening import Opening, mint_key, words_of
from modelyard.resources.endpoints.repository import default_stages
from modelyard.resources.endpoints.stage_settings import MirrorSettings, RateLimit, StageSettings
from modelyard.resources.routes.model import ApiKey, RouteSpec
from modelyard.resources.routes.reconciler import gateway_route


@pytest.fixture
async def stored(api: ApiPlatform) -> Calls:
    stored = Calls(api)
    await stored.store()
    return stored


async def default_of(stored: Calls) -> str:
    async with stored.api.database.read() as session:
        return next(iter(await default_stages(session, [stored.endpoint_id]))).id


async def test_settings_stay_change_and_go_one_by_one(stored: Calls) -> None:
    default = await default_of(stored)
    path = f"/endpoint-stages/{default}/settings"
    cors = {"allowOriginList": ["https://App.example.com"]}
    await stored.api.ask("PUT", path, {"maxBodyBytes": 1000, "cors": cors, "rateLimit": {"requests": 5}})
    answer = await stored.api.ask("PUT", path, {"rateLimit": None, "allowAddressList": ["192.0.2.7", "2001:db8::/32"]})
    assert answer["stageSettings"]["isDeployed"] is False  # nothing has brought it to a gateway here
    settings = (await stored.api.ask("GET", path))["stageSettings"]["settings"]
    assert settings["maxBodyBytes"] == 1000 and settings.get("rateLimit") is None
    assert settings["allowAddressList"] == ["192.0.2.7/32", "2001:db8::/32"]
    assert settings["cors"]["allowOriginList"] == ["https://app.example.com"]
    other = await stored.api.neighbour()
    for method, body in (("GET", None), ("PUT", {})):
        assert (await other.call(method, path, body)).status_code == 404


async def test_all_that_is_wrong_is_told_at_once(stored: Calls) -> None:
    default = await default_of(stored)
    wrong = {
        "maxBodyBytes": 0,
        "timeoutSeconds": 1e9,
        "rateLimit": {"requests": 0, "seconds": 100_000},
        "allowAddressList": ["10.0.0.1/8"],
        "cors": {"allowOriginList": ["https://a.example/path"], "allowMethodList": ["FETCH"]},
        "mirror": {"endpointStageId": default, "percent": 101},
    }
    answer = await stored.api.call("PUT", f"/endpoint-stages/{default}/settings", wrong)
    assert answer.status_code == 400
    sentence = answer.json()["header"]["resultMessage"]
    for field in ("maxBodyBytes", "timeoutSeconds", "rateLimit.requests", "rateLimit.seconds", "allowAddressList"):
        assert field in sentence, sentence
    for words in ("no path", "FETCH", "host bits", "mirror.percent"):
        assert words in sentence, sentence
    open_to_all = {"cors": {"allowOriginList": ["*"], "allowCredentials": True}}
    answer = await stored.api.call("PUT", f"/endpoint-stages/{default}/settings", open_to_all)
    assert answer.status_code == 400 and "name origins" in answer.text
    own = {"mirror": {"endpointStageId": default}, "maxBodyBytes": 2**40, "isApiKeyRequired": True}
    answer = await stored.api.call("PUT", f"/endpoint-stages/{default}/settings", own)
    for words in ("is the stage itself", "the platform's own limit", "make one first"):
        assert words in answer.text


async def test_a_key_is_shown_once_and_only_its_digest_kept(stored: Calls) -> None:
    path = f"/endpoints/{stored.endpoint_id}/api-keys"
    made = (await stored.api.ask("POST", path, {"name": "web", "rateLimit": {"requests": 3}}))["apiKey"]
    id, _, secret = base64.b64decode(made["apiKey"]).decode().partition(":")
    assert id == made["apiKeyId"] and len(secret) > 40 and made["apiKey"].isalnum()
    listed = await stored.api.ask("GET", path)
    assert [key["name"] for key in listed["apiKeyList"]] == ["web"] and secret not in str(listed)
    assert listed["apiKeyList"][0].get("apiKey") is None
    again = await stored.api.call("POST", path, {"name": "web"})
    assert again.status_code == 409 and "already has an API key named 'web'" in again.text
    other = await stored.api.neighbour()
    assert (await other.call("DELETE", f"{path}/{id}")).status_code == 404
    await stored.api.ask("DELETE", f"{path}/{id}")
    assert (await stored.api.call("DELETE", f"{path}/{id}")).status_code == 404


async def test_a_key_whose_answer_was_lost_can_be_asked_for_again(stored: Calls) -> None:
    path, headers = f"/endpoints/{stored.endpoint_id}/api-keys", {"Idempotency-Key": "mine"}
    made = (await stored.api.ask("POST", path, {"name": "web"}, headers=headers))["apiKey"]
    again = (await stored.api.ask("POST", path, {"name": "web"}, headers=headers))["apiKey"]
    assert again == made and made["apiKey"]
    assert len((await stored.api.ask("GET", path))["apiKeyList"]) == 1
    other = (await stored.api.ask("POST", path, {"name": "b"}, headers={"Idempotency-Key": "other"}))["apiKey"]
    assert other["apiKey"] != made["apiKey"]
    reused = await stored.api.call("POST", path, {"name": "c"}, headers=headers)
    assert reused.status_code == 409 and "was used for another request" in reused.text
    await stored.api.ask("DELETE", f"{path}/{made['apiKeyId']}")
    assert (await stored.api.call("POST", path, {"name": "web"}, headers=headers)).status_code == 404


def test_minted_keys_are_what_the_gateway_reads() -> None:
    minted = mint_key(secrets.token_bytes(64))
    id, _, secret = base64.b64decode(minted.shown).decode().partition(":")
    assert base64.b64encode(hashlib.sha1(secret.encode()).digest()).decode() == minted.digest
    assert id == minted.id and minted.shown != mint_key(secrets.token_bytes(64)).shown


def spec_of(name: str, path: str | None = "/inference") -> EndpointModelSpec:
    return EndpointModelSpec(
        model_id="m", model_name=name, format_code="ONNX", artifact_uri="", image_id="i", resource_path=path
    )


def plain(models: list[tuple[str, EndpointModelSpec]]) -> RouteSpec:
    addresses = {id: (f"/run/{id}.sock",) for id, _ in models}
    return stage_route("stage", "t", "/gateway/s/blue", models, addresses, ServingSettings(), {})


def test_a_stage_of_several_models_lists_them_all() -> None:
    rules = plain([("one", spec_of("iris", "/a")), ("two", spec_of("꽃", "/b"))]).rules
    assert [rule.answer for rule in rules if rule.path == "/v1/models"] == ['{"models":["iris","꽃"]}']
    assert rules[-1].path == "/" and all(rule.answer is None for rule in plain([("one", spec_of("iris"))]).rules)


def test_an_opening_becomes_conditions_that_the_gateway_takes() -> None:
    settings = StageSettings(
        max_body_bytes=10,
        is_api_key_required=True,
        rate_limit=RateLimit(requests=5, seconds=60),
        idle_timeout_seconds=2.0,
    )
    opening = Opening("stage", settings, (ApiKey("mky1", mint_key(secrets.token_bytes(64)).digest),))
    models = [("one", spec_of("iris"))]
    route = opening.apply(plain(models), models)
    assert route.max_body_bytes == 10 and route.conditions is not None and route.conditions.name == "stage"
    compile_route(gateway_route("stage", route))
    words = " ".join(words_of(route))
    assert "10 bytes" in words and "1 exists" in words and "5 requests in 60 s" in words and "2 s is given up" in words
    assert opening.apply(route, models) == route
    assert Opening("stage", StageSettings()).apply(plain(models), models).conditions is None


def test_copies_go_where_they_mean_something() -> None:
    mirror = StageSettings(mirror=MirrorSettings(endpoint_stage_id="other", percent=12.5))
    models = [("one", spec_of("iris")), ("two", spec_of("rose", "/rose"))]
    copies = [("three", spec_of("iris")), ("four", spec_of("tulip", "/rose"))]
    opening = Opening("stage", mirror, (), copies, {"three": ("/run/3.sock",), "four": ("/run/4.sock",)})
    route = opening.apply(plain(models), models)
    compile_route(gateway_route("stage", route))
    mirrored = {rule.path: rule.mirrors[0].upstream if rule.mirrors else None for rule in route.rules}
    assert mirrored["/inference"] == "three_mirrored" and mirrored["/rose"] == "four_mirrored"
    assert mirrored["/"] == "three_mirrored"
    assert mirrored["/v1/models/rose"] is None  # the other stage knows no model of this name
    assert {upstream.name: upstream.max_requests for upstream in route.upstreams}["four_mirrored"] == 256
