"""SavedModels of every origin, loaded and asked by the real TensorFlow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

KERAS = """
import sys, numpy as np, tensorflow as tf
tf.keras.utils.set_random_seed(7)
model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(8, activation="relu"),
                             tf.keras.layers.Dense(3, activation="softmax")])
(model.save if tf.__version__.startswith("2.15") else model.export)(sys.argv[1])
np.save(sys.argv[2], model(np.array([[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]], np.float32)).numpy())
"""

MODULE = """
import sys, tensorflow as tf

class Several(tf.Module):
    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(2.0)
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64)), -1)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "left"), tf.TensorSpec([None], tf.int64, "right")])
    def both(self, left, right):
        total = tf.reduce_sum(left, axis=1) * self.scale + tf.cast(right, tf.float32)
        return {"total": total, "right_twice": right * 2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "words")])
    def look_up(self, words):
        return {"number": self.table.lookup(words), "echo": words, "raw_bytes": words}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, "x")])
    def root(self, x):
        return {"y": tf.sqrt(x)}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, "a"), tf.TensorSpec([None, None], tf.float32, "b")])
    def product(self, a, b):
        return {"c": tf.matmul(a, b)}

module = Several()
tf.saved_model.save(module, sys.argv[1], signatures={
    "serving_default": module.both, "look_up": module.look_up, "root": module.root, "product": module.product})
"""


@pytest.fixture(scope="module", params=["2.15", "2.21"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def python(framework_python: Callable[[str, str], Path], version: str) -> Path:
    return framework_python("TENSORFLOW", version)


@pytest.fixture(scope="module")
def keras_dir(python: Path, run_script: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("keras")
    run_script(python, KERAS, place / "model", place / "wanted.npy")
    return place


@pytest.fixture(scope="module")
def module_dir(python: Path, run_script: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("module") / "model"
    run_script(python, MODULE, place)
    return place


def test_a_keras_export_predicts_what_keras_predicts(start_server: Any, python: Path, keras_dir: Path) -> None:
    import numpy as np

    server = start_server(keras_dir / "model", python, format="TENSORFLOW", model_name="iris")
    server.wait_for("ready")
    rows = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]
    answer = server.predict({"instances": rows}, name="iris")
    wanted = np.load(keras_dir / "wanted.npy")
    assert answer.status_code == 200
    np.testing.assert_allclose(answer.json()["predictions"], wanted, rtol=1e-5)
    assert "outputs" in server.predict({"inputs": rows}, name="iris").json()

    (tensor,) = server.client.get("/v2/models/iris").json()["inputs"]
    assert (tensor["datatype"], tensor["shape"]) == ("FP32", [-1, 4])
    request = {"id": "7", "inputs": [{"name": tensor["name"], "shape": [2, 4], "datatype": "FP32", "data": rows}]}
    inferred = server.infer(request, name="iris").json()
    assert (inferred["id"], inferred["model_name"], inferred["outputs"][0]["shape"]) == ("7", "iris", [2, 3])
    np.testing.assert_allclose(inferred["outputs"][0]["data"], wanted.reshape(-1), rtol=1e-5)

    sizes = {"binary_data_size": 32}
    head = {
        "inputs": [{"name": tensor["name"], "shape": [2, 4], "datatype": "FP32", "parameters": sizes}],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(head).encode()
    raw = server.client.post(
        "/v2/models/iris/infer",
        content=text + np.array(rows, "<f4").tobytes(),
        headers={"Inference-Header-Content-Length": str(len(text))},
    )
    length = int(raw.headers["inference-header-content-length"])
    assert json.loads(raw.content[:length])["outputs"][0]["parameters"] == {"binary_data_size": 24}
    np.testing.assert_allclose(np.frombuffer(raw.content[length:], "<f4").reshape(2, 3), wanted, rtol=1e-5)
    assert server.stop() == 0
    assert server.report["step"] == "stopped"


def test_bad_bodies_are_told_what_was_expected(start_server: Any, python: Path, keras_dir: Path) -> None:
    server = start_server(keras_dir / "model", python)
    server.wait_for("ready")
    for body in (
        {"instances": [[1, 2, 3]]},
        {"instances": [[1, 2, 3, "x"]]},
        {"instances": [[1, 2, 3, 4], [1, 2]]},
        {"instances": []},
        {"instances": [[1, 2, 3, None]]},
        {"rows": 1},
        [1, 2],
    ):
        answer = server.predict(body)
        assert answer.status_code == 400, body
        assert "float32 [*, 4]" in answer.json()["error"] or body == [1, 2]
    assert '{"instances":[[0.0,0.0,0.0,0.0]]}' in server.predict({"instances": [[1]]}).json()["error"]
    wrong = {"inputs": [{"name": "nope", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    assert server.infer(wrong).status_code == 400
    assert "'nope'" in server.infer(wrong).json()["error"]


def test_several_signatures_inputs_outputs_and_texts(start_server: Any, python: Path, module_dir: Path) -> None:
    server = start_server(module_dir, python)
    server.wait_for("ready")
    rows = server.predict({"instances": [{"left": [1, 2], "right": 3}, {"left": [0, 0], "right": -1}]}).json()
    assert rows == {"predictions": [{"right_twice": 6, "total": 9.0}, {"right_twice": -2, "total": -1.0}]}
    columns = server.predict({"inputs": {"left": [[1, 2]], "right": [3]}}).json()
    assert columns == {"outputs": {"right_twice": [6], "total": [9.0]}}
    words = server.predict({"signature_name": "look_up", "instances": ["b", {"b64": "/w=="}, "한"]}).json()
    assert words["predictions"] == [
        {"number": 2, "echo": "b", "raw_bytes": {"b64": "Yg=="}},
        {"number": -1, "echo": {"b64": "/w=="}, "raw_bytes": {"b64": "/w=="}},
        {"number": -1, "echo": "한", "raw_bytes": {"b64": "7ZWc"}},
    ]
    inferred = server.infer(
        {
            "parameters": {"signature_name": "look_up"},
            "inputs": [{"name": "words", "shape": [2], "datatype": "BYTES", "data": ["a", "c"]}],
            "outputs": [{"name": "number"}],
        }
    ).json()["outputs"]
    assert inferred == [{"name": "number", "datatype": "INT64", "shape": [2], "data": [1, -1]}]
    assert server.predict({"signature_name": "root", "inputs": 9.0}).json() == {"outputs": 3.0}
    assert server.predict({"signature_name": "root", "inputs": [[4.0], [-1.0]]}).json() == {"outputs": [[2.0], [None]]}
    unknown = server.predict({"signature_name": "nope", "instances": [1]})
    assert unknown.status_code == 400
    assert "'look_up'" in unknown.json()["error"]
    missing = server.predict({"instances": [{"left": [1, 2]}]}).json()["error"]
    assert "lacks 'right'" in missing
    unfit = server.predict({"signature_name": "product", "inputs": {"a": [[1.0, 2.0]], "b": [[1.0, 2.0]]}})
    assert unfit.status_code == 400
    assert "the model refuses the input" in unfit.json()["error"]
    metadata = server.client.get("/v1/models/m/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert metadata["serving_default"]["inputs"]["right"]["dtype"] == "DT_INT64"
    assert "__saved_model_init_op" not in metadata


def test_the_newest_version_directory_is_served(
    start_server: Any, python: Path, keras_dir: Path, tmp_path: Path
) -> None:
    for number in ("2", "10"):
        shutil.copytree(keras_dir / "model", tmp_path / "versions" / number)
    server = start_server(tmp_path / "versions", python)
    server.wait_for("ready")
    assert server.client.get("/v2/models/m").json()["versions"] == ["10"]
    row = {"instances": [[1, 2, 3, 4]]}
    assert server.client.post("/v1/models/m/versions/10:predict", json=row).status_code == 200
    assert server.client.post("/v1/models/m/versions/2:predict", json=row).status_code == 404


def test_damaged_models_end_the_server_with_a_sentence(
    start_server: Any, python: Path, keras_dir: Path, tmp_path: Path
) -> None:
    def failure(name: str, damage: Callable[[Path], None], **settings: Any) -> str:
        place = tmp_path / name
        shutil.copytree(keras_dir / "model", place)
        damage(place)
        server = start_server(place, python, **settings)
        report = server.wait_for("failed")
        assert server.process.wait(timeout=30) == 3
        assert report["message"] in server.stderr
        assert "\n" not in report["message"]
        return str(report["message"])

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    assert "broken" in failure("proto", lambda place: cut(place / "saved_model.pb"))
    assert "variables are missing" in failure("variables", lambda place: shutil.rmtree(place / "variables"))
    index = "variables/variables.data-00000-of-00001"
    assert "variables" in failure("shard", lambda place: (place / index).unlink())
    assert "variables" in failure("half", lambda place: cut(place / index))
    assert "PyTorch" in failure("format", lambda place: None, format="PYTORCH")
