"""ONNX graphs and scikit-learn estimators, run by the real libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.compute.backends.local.build import build_environment
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.compute.port import Environment

pytestmark = pytest.mark.slow

REQUIREMENTS = (
    "granian==2.8.7", "joblib==1.6.0", "numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.31.1", "orjson==3.13.0", "scikit-learn==1.9.1",
)  # fmt: skip

MAKE = """
import sys, joblib, numpy as np, onnx
from pathlib import Path
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
place = Path(sys.argv[1])
x, y = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(x, y)
for name in ("sklearn", "onnx", "text"):
    (place / name).mkdir()
joblib.dump(model, place / "sklearn" / "model.joblib")
weight = numpy_helper.from_array(model.coef_.T.astype(np.float32), "w")
bias = numpy_helper.from_array(model.intercept_.astype(np.float32), "b")
def save(path, nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
save(place / "onnx" / "model.onnx",
     [helper.make_node("Gemm", ["x", "w", "b"], ["z"]), helper.make_node("Softmax", ["z"], ["p"], axis=1),
      helper.make_node("ArgMax", ["p"], ["label"], axis=1, keepdims=0)],
     [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
     [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["batch", 3]),
      helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"])], [weight, bias])
save(place / "text" / "model.onnx", [helper.make_node("Identity", ["s"], ["t"])],
     [helper.make_tensor_value_info("s", TensorProto.STRING, ["n"])],
     [helper.make_tensor_value_info("t", TensorProto.STRING, ["n"])])
"""

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


@pytest.fixture(scope="module")
def python(environment_store: EnvironmentStore) -> Path:
    environment = Environment("ONNX Runtime and scikit-learn", "3.11", REQUIREMENTS)
    build_environment(environment, environment_store.root, lambda step, message, progress: None)
    return environment_store.python(environment)


@pytest.fixture(scope="module")
def made(python: Path, run_script: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("others")
    run_script(python, MAKE, place)
    return place


def test_an_estimator_predicts(start_server: Any, python: Path, made: Path) -> None:
    server = start_server(made / "sklearn", python, format="SKLEARN")
    server.wait_for("ready")
    assert server.predict({"instances": ROWS}).json() == {"predictions": [0, 2]}
    chances = server.predict({"instances": ROWS, "signature_name": "predict_proba"}).json()["predictions"]
    assert [max(range(3), key=row.__getitem__) for row in chances] == [0, 2]
    wrong = server.predict({"instances": [[1, 2, 3]]})
    assert wrong.status_code == 400
    assert "float64 [*, 4]" in wrong.json()["error"]
    request = {"inputs": [{"name": "input", "shape": [2, 4], "datatype": "FP64", "data": ROWS}]}
    assert server.infer(request).json()["outputs"][0]["data"] == [0, 2]


def test_a_graph_predicts(start_server: Any, python: Path, made: Path) -> None:
    server = start_server(made / "onnx", python, format="ONNX")
    server.wait_for("ready")
    predictions = server.predict({"instances": ROWS}).json()["predictions"]
    assert [row["label"] for row in predictions] == [0, 2]
    assert sum(predictions[0]["p"]) == pytest.approx(1, abs=1e-5)
    assert server.predict({"instances": [[1]]}).status_code == 400
    assert server.client.get("/v2/models/m").json()["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    texts = start_server(made / "text", python)
    texts.wait_for("ready")
    assert texts.predict({"instances": ["a", "한"]}).json() == {"predictions": ["a", "한"]}


def test_damaged_files_and_missing_frameworks_are_told(
    start_server: Any, python: Path, made: Path, framework_python: Callable[[str, str], Path], tmp_path: Path
) -> None:
    for kind, file in (("onnx", "model.onnx"), ("sklearn", "model.joblib")):
        place = tmp_path / kind
        place.mkdir()
        content = (made / kind / file).read_bytes()
        (place / file).write_bytes(content[: len(content) // 3])
        message = start_server(place, python).wait_for("failed")["message"]
        assert f"{file} can't be loaded" in message
        assert "\n" not in message
    absent = start_server(made / "onnx", framework_python("PYTORCH", "2.13"))
    assert "model.onnx needs ONNX Runtime, which this image does not have" in absent.wait_for("failed")["message"]
