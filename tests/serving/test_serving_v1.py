"""The V1 protocol, without a server and without a framework."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelyard.serving.contract import STRING, Signature, Tensors, TensorSpec
from modelyard.serving.errors import BadRequest
from modelyard.serving.protocol import v1


class Model:
    platform = "numpy"
    default_signature = "default"

    def __init__(self, *inputs: TensorSpec) -> None:
        self.signatures = {name: Signature(name, inputs) for name in ("default", "other")}

    def predict(self, signature: Signature, inputs: Tensors) -> Tensors:
        raise NotImplementedError

    def close(self) -> None: ...


ONE = Model(TensorSpec("x", "float32", (None, 2)))
TWO = Model(TensorSpec("a", "int64", (None,)), TensorSpec("b", STRING, (None, 1)))


@pytest.mark.parametrize(
    ("body", "is_rows"),
    [
        ({"instances": [[1, 2], [3, 4]]}, True),
        ({"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}, True),
        ({"inputs": [[1, 2], [3, 4]]}, False),
        ({"inputs": {"x": [[1, 2], [3, 4]]}, "signature_name": "default"}, False),
    ],
)
def test_one_input_in_every_form(body: Any, is_rows: bool) -> None:
    request = v1.parse_predict(body, ONE)
    assert request.is_rows is is_rows
    assert request.signature.name == "default"
    np.testing.assert_array_equal(request.inputs["x"], np.array([[1, 2], [3, 4]], np.float32))


def test_several_inputs_need_names() -> None:
    rows = v1.parse_predict({"instances": [{"a": 1, "b": ["x"]}, {"b": [{"b64": "eQ=="}], "a": 2}]}, TWO)
    assert rows.inputs["a"].tolist() == [1, 2]
    assert rows.inputs["b"].tolist() == [[b"x"], [b"y"]]
    columns = v1.parse_predict({"inputs": {"a": [1], "b": [["x"]]}, "signature_name": "other"}, TWO)
    assert columns.signature.name == "other"
    for body in ({"instances": [1, 2]}, {"inputs": [1, 2]}):
        with pytest.raises(BadRequest, match="names"):
            v1.parse_predict(body, TWO)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "neither"),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, "both"),
        ({"instances": []}, "empty"),
        ({"instances": {"x": 1}}, "must be a list"),
        ({"instances": [{"x": [1, 2]}, [1, 2]]}, "instances[1] is not an object"),
        ({"instances": [{"y": [1, 2]}]}, "lacks 'x' and has 'y'"),
        ({"instances": [[1, 2, 3]]}, "wants [*, 2]"),
        ({"inputs": {"x": [1, 2]}}, "inputs['x'] has the shape [2]"),
    ],
)
def test_faults_come_with_what_is_wanted(body: Any, sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        v1.parse_predict(body, ONE)
    assert sentence in caught.value.message
    assert "wants 'x' float32 [*, 2]" in caught.value.message
    assert '{"instances":[[0.0,0.0]]}' in caught.value.message


def test_unknown_signatures_and_bodies_that_are_no_object() -> None:
    with pytest.raises(BadRequest, match="'default', 'other'"):
        v1.parse_predict({"signature_name": "nope", "instances": [[1, 2]]}, ONE)
    for body in ([], "x", None, 1):
        with pytest.raises(BadRequest, match="JSON object"):
            v1.parse_predict(body, ONE)


def test_answers_have_the_form_of_the_request() -> None:
    rows = v1.parse_predict({"instances": [[1, 2], [3, 4]]}, ONE)
    columns = v1.parse_predict({"inputs": [[1, 2]]}, ONE)
    one = {"y": np.array([[1.5], [np.nan]], np.float32)}
    two = {
        "y": np.array([1, 2]),
        "text_bytes": np.array([b"a", b"\xff"], object),
        "text": np.array([b"a", b"\xff"], object),
    }
    assert json.loads(v1.render_predict(rows, one)) == {"predictions": [[1.5], [None]]}
    assert json.loads(v1.render_predict(columns, one)) == {"outputs": [[1.5], [None]]}
    assert json.loads(v1.render_predict(rows, two)) == {
        "predictions": [
            {"y": 1, "text_bytes": {"b64": "YQ=="}, "text": "a"},
            {"y": 2, "text_bytes": {"b64": "/w=="}, "text": {"b64": "/w=="}},
        ]
    }
    assert json.loads(v1.render_predict(columns, two))["outputs"]["y"] == [1, 2]
    with pytest.raises(BadRequest, match="one row each"):
        v1.render_predict(rows, {"a": np.zeros(2), "b": np.zeros(3)})


def test_metadata_is_that_of_tensorflow_serving() -> None:
    definition = v1.describe("m", "3", TWO)["metadata"]["signature_def"]["signature_def"]["default"]
    assert definition["inputs"]["b"] == {
        "dtype": "DT_STRING",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False},
        "name": "b",
    }
