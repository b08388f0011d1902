"""JSON values as arrays, and the sentences where they do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelyard.serving.contract import STRING, TensorSpec
from modelyard.serving.errors import BadRequest
from modelyard.serving.protocol.arrays import check_shape, example_value, to_array
from modelyard.serving.protocol.json_text import jsonable, read_json, write_json

FLOATS = TensorSpec("x", "float32", (None, 2))


@pytest.mark.parametrize(
    ("value", "dtype", "wanted"),
    [
        ([[1, 2.5]], "float32", np.array([[1, 2.5]], np.float32)),
        ([[1.0, 2.0]], "int64", np.array([[1, 2]], np.int64)),
        ([255, 0], "uint8", np.array([255, 0], np.uint8)),
        ([True, False], "bool", np.array([True, False])),
        ([2**64 - 1], "uint64", np.array([2**64 - 1], np.uint64)),
        ([[1, 2]], None, np.array([[1, 2]], np.int64)),
        ([0.5], None, np.array([0.5], np.float32)),
        (1.5, "float64", np.array(1.5)),
        ([], "int32", np.array([], np.int32)),
        ([[], []], "float32", np.zeros((2, 0), np.float32)),
        ([float("nan")], "float32", np.array([np.nan], np.float32)),
    ],
)
def test_values_become_arrays_of_the_wanted_type(value: Any, dtype: str | None, wanted: Any) -> None:
    array = to_array(value, TensorSpec("x", dtype), "x")
    assert array.dtype == wanted.dtype
    np.testing.assert_array_equal(array, wanted)


def test_texts_and_base64_become_bytes() -> None:
    array = to_array([["a", {"b64": "/w=="}], ["한", ""]], TensorSpec("x", STRING), "x")
    assert array.tolist() == [[b"a", b"\xff"], ["한".encode(), b""]]
    assert to_array("a", TensorSpec("x", STRING), "x").tolist() == b"a"


@pytest.mark.parametrize(
    ("value", "dtype", "sentence"),
    [
        ([[1, 2], [3]], "float32", "x[1] has 1 values where its neighbours have 2"),
        ([[1, 2], 3], "float32", "x[1] is the number 3 where its neighbours are lists"),
        ([1, [2]], "float32", "x[1] is a list where its neighbours are single values"),
        ([[1, "a"]], "float32", "x[0][1] is the text 'a', but 'x' wants float32"),
        ([["1.5", "2"]], "float32", "x[0][0] is the text '1.5'"),
        ([None], "float32", "x[0] is null"),
        ([True], "float32", "x[0] is true"),
        ([1], "bool", "x[0] is the number 1, but 'x' wants bool"),
        ([{"b64": "AA=="}], "float32", "x[0] is an object"),
        ([1.5], "int32", "fraction"),
        ([float("nan")], "int32", "fraction"),
        ([2**31], "int32", "2147483648, which does not fit in int32"),
        ([-1], "uint8", "-1, which does not fit in uint8"),
        ([2**70], "int64", "too large"),
        ([1], STRING, "x[0] must be text"),
        ([{"b64": "!"}], STRING, "x[0] is not valid base64"),
        ([["a"], ["b", "c"]], STRING, "x[1] has 2 values"),
    ],
)
def test_values_that_do_not_fit_are_told(value: Any, dtype: str, sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        to_array(value, TensorSpec("x", dtype), "x")
    assert sentence in caught.value.message


def test_deep_nesting_is_refused() -> None:
    value: Any = 1.0
    for _ in range(100):
        value = [value]
    with pytest.raises(BadRequest):
        to_array(value, FLOATS, "x")


def test_shapes_are_checked() -> None:
    check_shape(np.zeros((5, 2)), FLOATS, "x")
    check_shape(np.zeros((1, 2, 3)), TensorSpec("x", "float32"), "x")
    for shape in ((2,), (1, 3), (1, 2, 1)):
        with pytest.raises(BadRequest, match=r"wants \[\*, 2\]"):
            check_shape(np.zeros(shape), FLOATS, "x")


def test_examples_fit_their_spec() -> None:
    for spec in (
        FLOATS,
        TensorSpec("x", "int8", (None, 2, 1)),
        TensorSpec("x", STRING, (None,)),
        TensorSpec("x", "bool", (None, 1)),
    ):
        array = to_array([example_value(spec, is_row=True)], spec, "x")
        check_shape(array, spec, "x")
    assert example_value(TensorSpec("x", "float32", (None, 224, 224, 3)), is_row=True) is None
    assert example_value(TensorSpec("x"), is_row=True) is None


def test_nan_is_read_and_written_as_null() -> None:
    value = read_json(b'{"a": [NaN, Infinity, -Infinity]}')
    assert np.isnan(value["a"][0])
    assert write_json(value) == b'{"a":[null,null,null]}'
    assert write_json({"a": jsonable(np.array([np.nan, 1.5], np.float32))}) == b'{"a":[null,1.5]}'
    assert write_json(jsonable(np.array([0.1], np.float16))) == b"[0.099975586]"
    for text in (b"", b"nope NaN", b'{"a": NaN', b"\xff\xfe"):
        with pytest.raises(BadRequest, match="not JSON"):
            read_json(text)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [([1, 2**63 + 1], "uint64"), ([1, 2**64 - 1], "uint64"), ([2**53 + 1, 1.0], "int64"), ([-1.0, 2**63 - 1], "int64")],
)
def test_large_whole_numbers_stay_what_they_are_whatever_their_neighbours(value: list[Any], dtype: str) -> None:
    assert to_array(value, TensorSpec("x", dtype), "x").tolist() == value


@pytest.mark.parametrize(
    ("value", "dtype"),
    [([float("inf")], "int64"), ([1, float("nan")], "int32"), ([-1, 2**63], "int64"), (["a\ud800"], "string")],
)
def test_what_is_no_value_of_the_kind_is_the_callers_fault(value: list[Any], dtype: str) -> None:
    with pytest.raises(BadRequest):
        to_array(value, TensorSpec("x", dtype), "x")
