"""Requests as rows for handlers, and their answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelyard.serving.contract import Reply
from modelyard.serving.errors import BadRequest, ModelFailed
from modelyard.serving.protocol import v2
from modelyard.serving.protocol.rows import as_row, parse_rows, render_row_tensors, render_rows, tensor_rows

JSON = "application/json"


@pytest.mark.parametrize(
    ("body", "content_type", "unpacks", "rows", "is_instances"),
    [
        (b'{"instances": [[1, 2], [3]]}', JSON, True, [[1, 2], [3]], True),
        (b'{"instances": [[1, 2]]}', JSON, False, [{"body": {"instances": [[1, 2]]}}], False),
        (b'{"instances": [1]}', "application/x-www-form-urlencoded", True, [1], True),
        (b'{"instances": [1]}', "", True, [1], True),
        (b'{"text": "x"}', "application/json; charset=utf-8", True, [{"body": {"text": "x"}}], False),
        (b"[1, 2]", JSON, True, [{"body": [1, 2]}], False),
        (b"a=1&b=%ED%95%9C", "application/x-www-form-urlencoded", True, [{"a": "1", "b": "한"}], False),
        ("글".encode(), "text/plain; charset=utf-8", True, [{"body": "글"}], False),
        (b"\x89PNG", "image/png", True, [{"body": b"\x89PNG"}], False),
    ],
)
def test_bodies_of_every_kind(
    body: bytes, content_type: str, unpacks: bool, rows: list[Any], is_instances: bool
) -> None:
    assert parse_rows(body, content_type, unpacks_instances=unpacks) == (rows, is_instances)


def test_forms_with_files() -> None:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="data"; filename="a.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\x00\r\n\xff\r\n"
        b'--B\r\nContent-Disposition: form-data; name="more"\r\nContent-Type: application/json\r\n\r\n{"a": 1}\r\n--B--\r\n'
    )
    ((fields,), is_instances) = parse_rows(body, "multipart/form-data; boundary=B", unpacks_instances=True)
    assert (fields, is_instances) == ({"data": b"\x00\r\n\xff", "more": {"a": 1}}, False)
    with pytest.raises(BadRequest, match="no field"):
        parse_rows(b"nothing", "multipart/form-data; boundary=B", unpacks_instances=True)


def test_instances_answer_to_both_habits() -> None:
    numbers, thing, wrapped, text = as_row([1.5, 2.5]), as_row({"a": 1}), as_row({"data": [1]}), as_row("x")
    for row, value in ((numbers, [1.5, 2.5]), (thing, {"a": 1}), (text, "x")):
        assert row == value
        assert (row.get("data") or row.get("body")) == value
        assert row["body"] == value
        assert row.get("other") is None
    assert (wrapped.get("data"), wrapped.get("body")) == ([1], None)
    assert numbers[0] == 1.5
    assert text[0] == "x"
    assert np.array([numbers, numbers]).shape == (2, 2)
    assert json.dumps([numbers, thing, text]) == '[[1.5, 2.5], {"a": 1}, "x"]'
    assert as_row(3) == 3
    with pytest.raises(KeyError):
        thing["other"]


@pytest.mark.parametrize("body", [b'{"instances": []}', b'{"instances": 3}', b"{"])
def test_bad_bodies_are_told(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_rows(body, JSON, unpacks_instances=True)


@pytest.mark.parametrize(
    ("rows", "is_instances", "body", "content_type"),
    [
        ([[1, 2], {"a": float("nan")}], True, '{"predictions":[[1,2],{"a":null}]}', JSON),
        ([np.float32(0.5), np.array([1, 2])], True, '{"predictions":[0.5,[1,2]]}', JSON),
        ([{"predictions": [1]}], True, '{"predictions":[1]}', JSON),
        ([{"a": 1}], False, '{"a":1}', JSON),
        (["text"], False, "text", "text/plain; charset=utf-8"),
        ([b"raw"], False, "raw", "application/octet-stream"),
    ],
)
def test_answers(rows: list[Any], is_instances: bool, body: str, content_type: str) -> None:
    assert render_rows(Reply(rows), is_instances=is_instances) == (body.encode(), content_type)


def test_answers_that_can_not_be_given() -> None:
    with pytest.raises(ModelFailed, match="answered 2"):
        render_rows(Reply([1, 2]), is_instances=False)
    with pytest.raises(ModelFailed, match="not JSON serializable: object"):
        render_rows(Reply([object()]), is_instances=False)


def test_v2_tensors_are_rows_and_back() -> None:
    def request(*tensors: dict[str, Any]) -> v2.V2Request:
        return v2.parse_body(json.dumps({"inputs": tensors}).encode(), None)

    numbers = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}
    texts = {"name": "t", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}
    assert tensor_rows(request(numbers)) == [[1, 2], [3, 4]]
    assert tensor_rows(request(texts)) == ["a", "b"]
    both = request(numbers, texts)
    assert tensor_rows(both) == [{"x": [1, 2], "t": "a"}, {"x": [3, 4], "t": "b"}]
    for shape, count in (([0], 0), ([], 1), ([3], 3)):
        with pytest.raises(BadRequest, match="first dimension"):
            tensor_rows(
                request(numbers, {"name": "y", "shape": shape, "datatype": "INT8", "data": [1] * count if shape else 1})
            )
    body, _ = render_row_tensors(both, Reply([[1, 2], [3, 4]]), "m", "1")
    assert json.loads(body)["outputs"] == [
        {"name": "output_0", "datatype": "INT64", "shape": [2, 2], "data": [1, 2, 3, 4]}
    ]
    body, _ = render_row_tensors(both, Reply([{"a": 1}, "x"]), "m", "1")
    assert json.loads(body)["outputs"] == [
        {"name": "output_0", "datatype": "BYTES", "shape": [2], "data": ['{"a":1}', "x"]}
    ]
