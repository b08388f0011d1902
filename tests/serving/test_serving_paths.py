"""Which path asks what."""

from __future__ import annotations

import pytest

from modelyard.serving.errors import MethodNotAllowed, NotServed
from modelyard.serving.paths import ServedName, Verb, resolve

IRIS = ServedName("iris", "3")


@pytest.mark.parametrize(
    ("method", "path", "verb"),
    [
        ("POST", "/v1/models/iris:predict", Verb.V1_PREDICT),
        ("POST", "/v1/models/iris/predict", Verb.V1_PREDICT),
        ("POST", "/v1/models/iris/versions/3:predict", Verb.V1_PREDICT),
        ("POST", "/v1/models/iris/versions/3/predict", Verb.V1_PREDICT),
        ("POST", "/iris/v1/models/iris/predict", Verb.V1_PREDICT),
        ("POST", "/iris/v1/models/iris:predict", Verb.V1_PREDICT),
        ("POST", "/predictions/iris", Verb.V1_PREDICT),
        ("POST", "/predictions/iris/", Verb.V1_PREDICT),
        ("GET", "/v1/models", Verb.V1_LIST),
        ("GET", "/v1/models/iris", Verb.V1_STATUS),
        ("HEAD", "/v1/models/iris/versions/3", Verb.V1_STATUS),
        ("GET", "/v1/models/iris/metadata", Verb.V1_METADATA),
        ("GET", "/v2", Verb.V2_SERVER),
        ("GET", "/v2/", Verb.V2_SERVER),
        ("GET", "/v2/health/live", Verb.V2_ALIVE),
        ("GET", "/v2/health/ready", Verb.V2_READY),
        ("GET", "/v2/models/iris", Verb.V2_MODEL),
        ("GET", "/v2/models/iris/versions/3", Verb.V2_MODEL),
        ("GET", "/v2/models/iris/versions/3/ready", Verb.V2_MODEL_READY),
        ("POST", "/v2/models/iris/infer", Verb.V2_INFER),
        ("POST", "/v2/models/iris/versions/3/infer", Verb.V2_INFER),
        ("POST", "/iris/v2/models/iris/infer", Verb.V2_INFER),
        ("GET", "/iris/v2/health/ready", Verb.V2_READY),
        ("GET", "/", Verb.ALIVE),
        ("GET", "/ping", Verb.ALIVE),
        ("GET", "/metrics", Verb.METRICS),
    ],
)
def test_paths_of_all_clients(method: str, path: str, verb: Verb) -> None:
    assert resolve(method, path, IRIS) is verb


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/inference", "nothing is served at /inference"),
        ("/v1/models/iris/explode", "/v2/models/iris/infer"),
        ("/v1/models/iris:classify", "/v1/models/iris:predict"),
        ("/v1/models/rose:predict", "no model 'rose' here, only 'iris'"),
        ("/v1/models/iris2:predict", "no model 'iris2'"),
        ("/v2/models/iris/versions/4/infer", "no version '4', only '3'"),
        ("/rose/v1/models/iris/predict", "nothing is served"),
        ("/v3/models/iris", "nothing is served"),
        ("/predictions/iris/explain", "nothing is served"),
        ("/v1/models/iris/versions/", "nothing is served"),
    ],
)
def test_wrong_paths_say_what_there_is(path: str, sentence: str) -> None:
    with pytest.raises(NotServed) as caught:
        resolve("POST", path, IRIS)
    assert sentence in caught.value.message


@pytest.mark.parametrize(
    ("path", "asked", "sentence"),
    [
        (
            "/inferense",
            "/gateway/x/default/inferense",
            "/gateway/x/default/inferense; the model's paths are /gateway/x/default/v1/models/iris:predict,",
        ),
        (
            "/v1/models/iris/a",
            "/gateway/x/v1/models/iris/a",
            "/gateway/x/v1/models/iris/a; the model's paths are /gateway/x/v1/models/iris:predict,",
        ),
        ("/predicted", "/gateway/x/inference", "/gateway/x/inference; the model's paths are /v1/models/iris:predict,"),
    ],
)
def test_errors_speak_of_the_path_that_the_caller_used(path: str, asked: str, sentence: str) -> None:
    with pytest.raises(NotServed) as caught:
        resolve("GET", path, IRIS, asked)
    assert caught.value.message.startswith(f"nothing is served at {sentence}")
    with pytest.raises(MethodNotAllowed) as refused:
        resolve("GET", "/predict", IRIS, "/gateway/x/default/inference")
    assert refused.value.message == "/gateway/x/default/inference answers POST, not GET"


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("GET", "/v2/models/iris/infer", "POST"), ("POST", "/v2", "GET")]
)
def test_wrong_methods_are_told_the_right_one(method: str, path: str, allowed: str) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        resolve(method, path, IRIS)
    assert caught.value.headers == (("allow", allowed),)


def test_names_may_hold_any_character() -> None:
    odd = ServedName("내 model:v/1", "1")
    assert resolve("POST", "/v1/models/내 model:v/1:predict", odd) is Verb.V1_PREDICT
    assert resolve("POST", "/내 model:v/1/v2/models/내 model:v/1/infer", odd) is Verb.V2_INFER
