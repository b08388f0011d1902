"""SavedModels that are converted beside the server that answers, by the real tf2onnx."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SECONDS = 400.0

MODEL = """
import sys, numpy as np, tensorflow as tf

class Mixed(tf.Module):
    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(np.random.default_rng(3).standard_normal((4, 3)), dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
    def chances(self, x):
        chances = tf.nn.softmax(x @ self.weights)
        return {"chances": chances, "best": tf.argmax(chances, axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "words")])
    def lengths(self, words):
        return {"length": tf.strings.length(words)}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
    def noisy(self, x):
        return {"y": x + tf.random.uniform(tf.shape(x))}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
    def odd(self, x):
        return {"y": tf.math.betainc(tf.abs(x) + 1.0, tf.abs(x) + 2.0, tf.sigmoid(x))}

module = Mixed()
tf.saved_model.save(module, sys.argv[1], signatures={
    "serving_default": module.chances, "lengths": module.lengths, "noisy": module.noisy, "odd": module.odd})
"""

SPOIL = """
import sys, numpy as np
from pathlib import Path
weights = np.random.default_rng(3).standard_normal((4, 3)).astype(np.float32)
path = Path(sys.argv[1])
content = path.read_bytes()
assert weights.tobytes() in content
path.write_bytes(content.replace(weights.tobytes(), (-weights).tobytes()))
"""


def test_signatures_that_agree_change_over_and_the_others_stay(
    start_server: Any, framework_python: Callable[[str, str], Path], run_script: Any, tmp_path: Path
) -> None:
    python = framework_python("TENSORFLOW", "2.21")
    run_script(python, MODEL, tmp_path / "model")
    cache = tmp_path / "cache"
    cache.mkdir()
    server = start_server(tmp_path / "model", python, converts_to_onnx=True, cache_dir=str(cache))
    server.wait_for("ready")
    row = {"instances": [[6.8, 2.8, 4.8, 1.4]], "signature_name": "serving_default"}
    before = server.predict(row).json()["predictions"][0]  # answered at once, by TensorFlow
    assert server.client.get("/v2/models/m").json()["platform"] == "tensorflow_savedmodel"
    deadline = time.monotonic() + SECONDS
    while "signature 'odd' stays" not in server.stderr:
        assert time.monotonic() < deadline, server.stderr
        assert "goes on without ONNX" not in server.stderr, server.stderr
        time.sleep(0.1)
    assert "ONNX Runtime answers signature 'serving_default' from now on: it differs by at most" in server.stderr
    assert "signature 'lengths' stays with the SavedModel: 'words' is text" in server.stderr
    assert "signature 'noisy' stays with the SavedModel: output 'y' differs by up to" in server.stderr
    assert "Betainc" in server.stderr.partition("signature 'odd' stays with the SavedModel: ")[2]
    assert server.client.get("/v2/models/m").json()["platform"] == "onnxruntime_onnx"
    after = server.predict(row).json()["predictions"][0]
    assert after["best"] == before["best"]
    assert after["chances"] == pytest.approx(before["chances"], rel=1e-4)
    answer = server.predict({"inputs": {"words": ["abc", "de"]}, "signature_name": "lengths"})
    assert answer.json() == {"outputs": [3, 2]}
    wrong = server.predict({"instances": [[1.0, 2.0]]})
    assert wrong.status_code == 400
    # Another replica on the machine has the graphs at once.
    again = start_server(tmp_path / "model", python, converts_to_onnx=True, cache_dir=str(cache))
    again.wait_for("ready")
    deadline = time.monotonic() + 60
    while again.client.get("/v2/models/m").json()["platform"] != "onnxruntime_onnx":
        assert time.monotonic() < deadline, again.stderr
        time.sleep(0.05)
    assert "converted and compared" not in again.stderr
    # The graph that tf2onnx wrote is an ONNX model like any other.
    (tmp_path / "graph").mkdir()
    [graph] = (cache / "layers").glob("*/3.onnx")
    assert {len(path.name) for path in (cache / "layers").iterdir()} == {64, len("onnx.lock")}
    shutil.copy(graph, tmp_path / "graph" / "model.onnx")
    alone = start_server(tmp_path / "graph", framework_python("ONNX", ""))
    alone.wait_for("ready")
    assert alone.predict({"instances": row["instances"]}).json()["predictions"][0]["chances"] == pytest.approx(
        after["chances"]
    )
    # What somebody has changed since is not taken.
    run_script(python, SPOIL, graph)
    careful = start_server(tmp_path / "model", python, converts_to_onnx=True, cache_dir=str(cache))
    careful.wait_for("ready")
    deadline = time.monotonic() + 60
    while "signature 'odd' stays" not in careful.stderr:
        assert time.monotonic() < deadline, careful.stderr
        time.sleep(0.05)
    assert "'serving_default' stays with the SavedModel: of the graph that was kept, output" in careful.stderr
    assert careful.client.get("/v2/models/m").json()["platform"] == "tensorflow_savedmodel"
