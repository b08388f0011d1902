"""Whatever a caller sends is either answered or refused; nothing else is raised."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.serving.contract import STRING, Reply, Signature, Tensors, TensorSpec
from modelyard.serving.errors import LoadFailed, Refusal
from modelyard.serving.paths import ServedName, resolve
from modelyard.serving.protocol import v1, v2
from modelyard.serving.protocol.json_text import read_json
from modelyard.serving.protocol.rows import parse_rows, render_row_tensors, render_rows, tensor_rows
from modelyard.serving.runtimes.archive import parse_properties
from modelyard.serving.service import TensorService

pytestmark = pytest.mark.slow

WORDS = st.sampled_from(
    [
        "instances",
        "inputs",
        "x",
        "t",
        "b64",
        "name",
        "shape",
        "datatype",
        "data",
        "FP32",
        "BYTES",
        "INT8",
        "BF16",
        "parameters",
        "AAAA",
    ]
)
KINDS = st.sampled_from(
    ["", "application/json", "text/plain", "multipart/form-data; boundary=B", "multipart/form-data",
     "application/x-www-form-urlencoded", "image/png"]
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5), max_leaves=25
)


class Echo:
    """Gives its inputs back."""

    platform = "echo"
    default_signature = "main"

    def __init__(self) -> None:
        specs = (TensorSpec("x", "float32", (None, 2)), TensorSpec("t", STRING))
        self.signatures = {
            "main": Signature("main", specs[:1]),
            "both": Signature("both", specs),
            "any": Signature("any", (TensorSpec("x"),)),
        }

    def predict(self, signature: Signature, inputs: Tensors) -> Tensors:
        return inputs

    def close(self) -> None: ...


SERVICE = TensorService(Echo(), ServedName("m", "1"))


@settings(max_examples=400, deadline=None)
@given(body=JSON, signature=st.sampled_from(["main", "both", "any"]), key=st.sampled_from(["instances", "inputs"]))
def test_any_json_is_answered_or_refused(body: Any, signature: str, key: str) -> None:
    for value in (
        body,
        {key: body, "signature_name": signature},
        {key: [body], "parameters": {"signature_name": signature}},
    ):
        text = json.dumps(value).encode()
        with contextlib.suppress(Refusal):
            json.loads(SERVICE.answer_v1(text, {}).body)
        with contextlib.suppress(Refusal):
            json.loads(SERVICE.answer_v2(text, {}).body)


@settings(max_examples=300, deadline=None)
@given(data=JSON, shape=JSON, datatype=WORDS, size=st.none() | st.integers(-1, 20), raw=st.binary(max_size=20))
def test_any_tensor_is_answered_or_refused(data: Any, shape: Any, datatype: str, size: int | None, raw: bytes) -> None:
    entry: dict[str, Any] = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    if size is not None:
        entry["parameters"] = {"binary_data_size": size}
    body = {"inputs": [entry], "parameters": {"signature_name": "any", "binary_data_output": True}}
    text = json.dumps(body).encode()
    with contextlib.suppress(Refusal):
        SERVICE.answer_v2(text + raw, {v2.HEADER_LENGTH: str(len(text))})
    with contextlib.suppress(Refusal):
        request = v2.parse_body(text + raw, str(len(text)))
        render_row_tensors(request, Reply(tensor_rows(request)), "m", "1")


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=60), length=st.none() | st.text(max_size=3), kind=KINDS)
def test_any_bytes_are_answered_or_refused(body: bytes, length: str | None, kind: str) -> None:
    for text in (body, b"--B\r\n" + body, b"{" + body):
        with contextlib.suppress(Refusal):
            SERVICE.answer_v1(text, {})
        with contextlib.suppress(Refusal):
            v2.parse_body(text, length)
        with contextlib.suppress(Refusal):
            rows, is_instances = parse_rows(text, kind, unpacks_instances=True)
            render_rows(Reply(rows), is_instances=is_instances)


@settings(max_examples=200, deadline=None)
@given(
    path=st.text(alphabet="/:mv12 predictnfo", max_size=40),
    prefix=st.sampled_from(["", "/v1/models/m", "/v2/models/m", "/m/v1"]),
)
def test_any_path_is_resolved_or_refused(path: str, prefix: str) -> None:
    with contextlib.suppress(Refusal):
        resolve("POST", prefix + path, ServedName("m", "1"))


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet='ab=:\\ \n\t#!u0041{}"', max_size=80))
def test_any_properties_file_is_read(text: str) -> None:
    with contextlib.suppress(LoadFailed):
        parse_properties(text)


def test_deeply_nested_json_is_refused() -> None:
    for text in (b"[" * 100_000, b"[" * 100_000 + b"NaN", b'{"instances": ' + b"[" * 600 + b"1" + b"]" * 600 + b"}"):
        with contextlib.suppress(Refusal):
            SERVICE.answer_v1(text, {})
    with contextlib.suppress(Refusal):
        v1.parse_predict(read_json(b'{"instances": ' + b"[" * 1000 + b"]" * 1000 + b"}"), Echo())
