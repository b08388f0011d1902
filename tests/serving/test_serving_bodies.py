"""Bodies as callers really send them: images in base64, a thousand rows, numbers that are none, and fifty megabytes."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

MAKE = """
import sys, tensorflow as tf
from pathlib import Path
place = Path(sys.argv[1])
class Pictures(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def mean(self, image_bytes):
        def one(raw):
            return tf.reduce_mean(tf.cast(tf.io.decode_png(raw, channels=3), tf.float32))
        return {"mean": tf.map_fn(one, image_bytes, fn_output_signature=tf.float32)}
    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="x")])
    def total(self, x):
        return {"total": tf.reduce_sum(x, axis=1)}
pictures = Pictures()
tf.saved_model.save(pictures, str(place / "pictures"), signatures={"serving_default": pictures.mean, "total": pictures.total})
"""


@pytest.fixture(scope="module")
def python(framework_python: Callable[[str, str], Path]) -> Path:
    return framework_python("TENSORFLOW", "2.15")


@pytest.fixture(scope="module")
def pictures(python: Path, run_script: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bodies")
    run_script(python, MAKE, place)
    return place / "pictures"


def png(value: int) -> bytes:
    """A picture of 2 × 2 grey points (PNG specification, section 5)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + bytes([value]) * 6) * 2
    head = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_bodies_of_all_sizes(start_server: Any, python: Path, pictures: Path) -> None:
    server = start_server(pictures, python, max_body_bytes=64 * 2**20, max_batch_size=64, log_sample_rate=1.0)
    server.wait_for("ready")

    images = [{"image_bytes": {"b64": base64.b64encode(png(value)).decode()}} for value in (0, 90, 200)]
    assert server.predict({"instances": images}).json() == {"predictions": [0.0, 90.0, 200.0]}
    bare = [image["image_bytes"] for image in images]
    assert server.predict({"instances": bare}).json() == {"predictions": [0.0, 90.0, 200.0]}
    no_picture = server.predict({"instances": [{"b64": base64.b64encode(b"no picture").decode()}]})
    assert no_picture.status_code == 400 and "refuses the input" in no_picture.json()["error"]
    not_base64 = server.predict({"instances": [{"b64": "not base64!"}]})
    assert not_base64.status_code == 400 and "base64" in not_base64.json()["error"]

    rows = {"signature_name": "total", "instances": [[1.0, 2.0]] * 1000}
    assert server.predict(rows).json() == {"predictions": [3.0] * 1000}
    assert server.predict({"signature_name": "total", "instances": [[0.5]]}).json() == {"predictions": [0.5]}
    strange = b'{"signature_name": "total", "instances": [[NaN, 1.0], [Infinity, 1.0], [1.0, 2.0]]}'
    assert server.client.post("/v1/models/m:predict", content=strange).json() == {"predictions": [None, None, 3.0]}

    values = np.ones((12, 1024 * 1024), "<f4")  # 48 MiB
    tensor = {
        "name": "x",
        "shape": list(values.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": values.nbytes},
    }
    text = json.dumps({"inputs": [tensor], "parameters": {"signature_name": "total"}}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    answer = server.client.post("/v2/models/m/infer", content=text + values.tobytes(), headers=headers)
    assert answer.status_code == 200, answer.text[:500]
    assert answer.json()["outputs"][0]["data"] == [1024.0 * 1024] * 12
    large = (
        b'{"signature_name": "total", "instances": [[' + b",".join([b"1.0000000000"] * 4_000_000) + b"]]}"
    )  # 52 MB of JSON
    assert server.client.post("/v1/models/m:predict", content=large).json() == {"predictions": [4_000_000.0]}
    too_large = server.client.post("/v1/models/m:predict", content=b"[" + b"1," * (33 * 2**20) + b"1]")
    assert too_large.status_code == 413
    assert server.client.get("/v2/health/ready").status_code == 200
    assert server.stop() == 0
    logged = [line for line in server.stderr.splitlines() if '"action": "Inference.Request"' in line]
    assert len(logged) >= 8 and max(map(len, logged)) < 16_000
