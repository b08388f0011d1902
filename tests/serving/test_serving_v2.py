"""The V2 protocol and its binary extension, without a server and without a framework."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelyard.serving.contract import STRING, Signature, Tensors, TensorSpec
from modelyard.serving.errors import BadRequest
from modelyard.serving.protocol import v2
from modelyard.serving.protocol.v2_binary import from_bytes, to_bytes


class Model:
    platform = "numpy"
    default_signature = "main"

    def __init__(self, *inputs: TensorSpec) -> None:
        self.signatures = {"main": Signature("main", inputs)}

    def predict(self, signature: Signature, inputs: Tensors) -> Tensors:
        raise NotImplementedError

    def close(self) -> None: ...


ONE = Model(TensorSpec("x", "float32", (None, 2)))


def tensor(data: Any, shape: Any = (2, 2), datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": "x", "shape": list(shape), "datatype": datatype, "data": data, **more}


def parse(*tensors: dict[str, Any], **more: Any) -> v2.V2Request:
    return v2.parse_body(json.dumps({"inputs": tensors, **more}).encode(), None)


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT32", "FP16"])
def test_flat_and_nested_values_of_types_that_fit(data: Any, datatype: str) -> None:
    signature, inputs = v2.fit(parse(tensor(data, datatype=datatype)), ONE)
    assert signature.name == "main"
    assert inputs["x"].dtype == np.float32
    np.testing.assert_array_equal(inputs["x"], [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (tensor([1, 2, 3]), "has 3 values, but the shape [2, 2] wants 4"),
        (tensor([1, 2], shape=(1, 2), datatype="FP99"), "datatype 'FP99'"),
        (tensor([1, 2], shape=(1, -2)), "not negative"),
        (tensor([1, 2], shape=(True, 2)), "whole numbers"),
        (tensor(["a", "b"], shape=(1, 2)), "is the text 'a'"),
        (tensor(["a", "b"], shape=(1, 2), datatype="BYTES"), "is BYTES, but the model wants FP32"),
        (tensor([1, 2, 3], shape=(1, 3)), "wants [*, 2]"),
        (tensor([1, 2], shape=(1, 2), name="y"), "lacks 'x' and has 'y'"),
        ({"name": "x", "shape": [1, 2], "datatype": "FP32"}, "neither data nor binary_data_size"),
        (tensor([1, 2], parameters={"binary_data_size": 8}), "0 bytes follow"),
        (tensor([1, 2], parameters=3), "must be an object"),
        ({"shape": [1]}, "has no name"),
        (tensor([], shape=(0, 2**60)), "too large"),
        (tensor([1], shape=(1,) * 70), "too large"),
        (tensor([], shape=(0, 2**31, 2**31, 2**31)), "too large"),
    ],
)
def test_faults_are_told(entry: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        v2.fit(parse(entry), ONE)
    assert sentence in caught.value.message


def test_a_float_is_not_taken_where_whole_numbers_are_wanted() -> None:
    with pytest.raises(BadRequest, match="FP32, but the model wants INT64") as caught:
        v2.fit(parse(tensor([1, 2], (1, 2))), Model(TensorSpec("x", "int64", (None, 2))))
    assert '"datatype":"INT64"' in caught.value.message


def test_bodies_that_are_no_request() -> None:
    for text in (b"[]", b"{}", b'{"inputs": []}', b'{"inputs": [1]}', b'{"inputs": {"x": 1}}'):
        with pytest.raises(BadRequest):
            v2.parse_body(text, None)
    with pytest.raises(BadRequest, match="twice"):
        parse(tensor([1], (1,)), tensor([1], (1,)))
    with pytest.raises(BadRequest, match="no signature 'nope'"):
        v2.fit(parse(tensor([1, 2], (1, 2)), parameters={"signature_name": "nope"}), ONE)


@pytest.mark.parametrize("length", ["", "x", "-1", "99999", "²"])
def test_a_wrong_header_length_is_refused(length: str) -> None:
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length"):
        v2.parse_body(b"{}", length)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.array([[1.5, -2.25]], np.float16),
        np.array([True, False]),
        np.zeros((0, 4), np.float64),
        np.array([[b"abc", b""], [b"\xff\x00", "한".encode()]], object),
    ],
)
def test_raw_tensors_survive_the_way_there_and_back(array: Any) -> None:
    dtype = STRING if array.dtype.kind == "O" else array.dtype.name
    again = from_bytes(memoryview(to_bytes(array)), dtype, array.shape, "x")
    assert again.shape == array.shape
    assert again.tolist() == array.tolist()


def test_raw_tensors_are_read_one_after_the_other() -> None:
    first, second = np.arange(4, dtype="<f4"), np.array([b"a", b"bc"], object)
    head = {
        "inputs": [
            {"name": "f", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}},
            {"name": "plain", "shape": [1], "datatype": "INT8", "data": [7]},
            {"name": "s", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 11}},
        ]
    }
    text = json.dumps(head).encode()
    body = b"".join([text, to_bytes(first), to_bytes(second)])
    tensors = v2.parse_body(body, str(len(text))).tensors
    assert tensors["f"].tolist() == [[0, 1], [2, 3]]
    assert tensors["plain"].tolist() == [7]
    assert tensors["s"].tolist() == [b"a", b"bc"]
    with pytest.raises(BadRequest, match="1 bytes follow"):
        v2.parse_body(body + b"x", str(len(text)))
    with pytest.raises(BadRequest, match="binary_data_size 11, but 10 bytes"):
        v2.parse_body(body[:-1], str(len(text)))


@pytest.mark.parametrize("raw", [b"\x05\x00\x00\x00abc", b"\x01\x00", b"\xff\xff\xff\xffa"])
def test_a_text_that_is_cut_off_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest, match="inside a text"):
        from_bytes(memoryview(raw), STRING, [1], "x")


def test_bfloat16_is_read_as_float32() -> None:
    raw = (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    assert from_bytes(memoryview(raw), "bfloat16", [2], "x").tolist() == [1.5, -2.0]


def test_outputs_are_chosen_and_mixed() -> None:
    outputs = {"y": np.array([[1.5, np.inf]], np.float32), "s": np.array([b"\xff"], object), "n": np.array([3])}
    request = parse(
        tensor([1, 2], (1, 2)), id="a", outputs=[{"name": "s", "parameters": {"binary_data": True}}, {"name": "y"}]
    )
    body, raw = v2.render_infer(request, outputs, "m", "1")
    head = json.loads(body)
    assert (head["id"], head["model_name"], head["model_version"]) == ("a", "m", "1")
    assert head["outputs"][0] == {"name": "s", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}
    assert head["outputs"][1] == {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]}
    assert raw == [b"\x01\x00\x00\x00\xff"]
    every = parse(tensor([1, 2], (1, 2)))
    body, raw = v2.render_infer(every, outputs, "m", "1")
    assert raw == []
    assert [entry["name"] for entry in json.loads(body)["outputs"]] == ["y", "s", "n"]
    with pytest.raises(BadRequest, match="no output 'z'"):
        v2.render_infer(parse(tensor([1, 2], (1, 2)), outputs=[{"name": "z"}]), outputs, "m", "1")


def test_bodies_of_this_protocol_are_known_at_sight() -> None:
    assert v2.looks_like_v2({"inputs": [tensor([1])]})
    for body in ({"inputs": [[1, 2]]}, {"inputs": {"x": 1}}, {"inputs": []}, {"instances": [tensor([1])]}, [], None):
        assert not v2.looks_like_v2(body)
