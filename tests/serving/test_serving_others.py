"""ONNX graphs and scikit-learn estimators, run by the real libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

# The frameworks that users make their models with, in the releases that the images can read.
TOOLS = (
    "joblib==1.6.0", "numpy==2.4.6", "onnx==1.23.2", "pandas==3.1.1", "scikit-learn==1.9.1", "skl2onnx==1.20.0",
)  # fmt: skip

MAKE = """
import sys, joblib, numpy as np, onnx, pandas as pd
from pathlib import Path
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
place = Path(sys.argv[1])
x, y = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(x, y)
for name in ("sklearn", "pipeline", "onnx", "converted", "text"):
    (place / name).mkdir()
joblib.dump(model, place / "sklearn" / "model.joblib")
table = pd.DataFrame({"width": [5.0, 5.2, 6.8, 6.9], "size": ["small", "small", "large", "large"]})
columns = ColumnTransformer([("scale", StandardScaler(), ["width"]), ("one", OneHotEncoder(), ["size"])])
pipeline = make_pipeline(columns, LogisticRegression()).fit(table, ["no", "no", "yes", "yes"])
joblib.dump(pipeline, place / "pipeline" / "model.joblib")
converted = to_onnx(make_pipeline(StandardScaler(), clone(model)).fit(x, y), x[:1].astype(np.float32))
(place / "converted" / "model.onnx").write_bytes(converted.SerializeToString())
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


Frameworks = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def made(
    tools_python: Callable[..., Path], run_script: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A directory with a directory for each model."""
    place = tmp_path_factory.mktemp("others")
    run_script(tools_python(*TOOLS), MAKE, place)
    return place


def test_an_estimator_predicts(start_server: Any, framework_python: Frameworks, made: Path) -> None:
    server = start_server(made / "sklearn", framework_python("SKLEARN", ""), format="SKLEARN")
    server.wait_for("ready")
    assert server.predict({"instances": ROWS}).json() == {"predictions": [0, 2]}
    chances = server.predict({"instances": ROWS, "signature_name": "predict_proba"}).json()["predictions"]
    assert [max(range(3), key=row.__getitem__) for row in chances] == [0, 2]
    wrong = server.predict({"instances": [[1, 2, 3]]})
    assert wrong.status_code == 400
    assert "float64 [*, 4]" in wrong.json()["error"]
    request = {"inputs": [{"name": "input", "shape": [2, 4], "datatype": "FP64", "data": ROWS}]}
    assert server.infer(request).json()["outputs"][0]["data"] == [0, 2]


def test_a_pipeline_gets_its_columns_by_name(start_server: Any, framework_python: Frameworks, made: Path) -> None:
    server = start_server(made / "pipeline", framework_python("SKLEARN", ""), format="SKLEARN")
    server.wait_for("ready")
    assert server.predict({"instances": [[5.1, "small"], [6.7, "large"]]}).json() == {"predictions": ["no", "yes"]}
    named = [{"size": "large", "width": 6.7}, {"width": 5.1, "size": "small"}]
    assert server.predict({"instances": named}).json() == {"predictions": ["yes", "no"]}
    wrong = server.predict({"instances": [[5.1]]})
    assert wrong.status_code == 400
    assert "instances[0] must be a list of 2 values (width, size) or an object" in wrong.json()["error"]
    tensors = [
        {"name": "width", "shape": [2, 1], "datatype": "FP64", "data": [5.1, 6.7]},
        {"name": "size", "shape": [2], "datatype": "BYTES", "data": ["small", "large"]},
    ]
    assert server.infer({"inputs": tensors}).json()["outputs"][0]["data"] == ["no", "yes"]
    inputs = server.client.get("/v2/models/m").json()["inputs"]
    assert [(item["name"], item["shape"]) for item in inputs] == [("width", [-1]), ("size", [-1])]


def test_a_converted_classifier_says_its_chances(start_server: Any, framework_python: Frameworks, made: Path) -> None:
    """skl2onnx writes them as maps unless it is told not to."""
    server = start_server(made / "converted", framework_python("ONNX", ""), format="ONNX")
    server.wait_for("ready")
    rows = server.predict({"instances": ROWS}).json()["predictions"]
    assert [row["output_label"] for row in rows] == [0, 2]
    assert [sum(row["output_probability"]) for row in rows] == [pytest.approx(1, abs=1e-5)] * 2
    assert server.client.get("/v2/models/m").json()["outputs"][1]["shape"] == [-1, -1]


def test_a_graph_predicts(start_server: Any, framework_python: Frameworks, made: Path) -> None:
    python = framework_python("ONNX", "")
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


ONE_BESIDE_ANOTHER = """
import sys, threading, time
from pathlib import Path
import numpy as np
from modelyard.serving.runtimes.onnx import OnnxModel

class Held:
    "A session whose first run waits until it is let go."
    def __init__(self, session):
        self.session, self.begun, self.go_on, self.runs = session, threading.Event(), threading.Event(), 0
    def run(self, *given):
        self.runs += 1
        self.begun.set()
        assert self.go_on.wait(60)
        return self.session.run(*given)

def ask():
    return model.predict(model.signatures["main"], {"x": np.array([[6.7, 3.0, 5.2, 2.3]], np.float32)})["label"].tolist()

for processors, runs in ((2, 1), (1, 2)):
    model = OnnxModel(Path(sys.argv[1]) / "model.onnx", processors)
    assert ask() == [2] and model._crowd is None
    held = model._session = Held(model._session)
    answers = []
    first = threading.Thread(target=lambda: answers.append(ask()))
    first.start()
    assert held.begun.wait(60)
    if runs == 2:
        held.go_on.set()
    assert ask() == [2]
    held.go_on.set()
    first.join()
    assert answers == [[2]] and held.runs == runs and (model._crowd is None) == (processors == 1), (held.runs, runs)
    assert model._crowded_until > 0
    model._crowded_until = time.monotonic() + 60  # the others may come back at once
    assert ask() == [2] and held.runs == (runs if model._crowd else runs + 1)
    model._crowded_until, runs = 0.0, held.runs
    assert ask() == [2] and held.runs == runs + 1
"""


def test_predictions_beside_each_other_use_a_processor_each(
    framework_python: Frameworks, run_script: Callable[..., None], made: Path
) -> None:
    run_script(framework_python("ONNX", ""), ONE_BESIDE_ANOTHER, made / "onnx")


def test_damaged_files_and_missing_frameworks_are_told(
    start_server: Any, framework_python: Frameworks, made: Path, tmp_path: Path
) -> None:
    for kind, file in (("onnx", "model.onnx"), ("sklearn", "model.joblib")):
        python = framework_python(kind.upper(), "")
        place = tmp_path / kind
        place.mkdir()
        content = (made / kind / file).read_bytes()
        (place / file).write_bytes(content[: len(content) // 3])
        message = start_server(place, python).wait_for("failed")["message"]
        assert f"{file} can't be loaded" in message
        assert "\n" not in message
    absent = start_server(made / "onnx", framework_python("PYTORCH", "2.13"))
    assert "model.onnx needs ONNX Runtime, which this image does not have" in absent.wait_for("failed")["message"]
