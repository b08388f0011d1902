"""Models that no training of the platform made: an ONNX graph and a scikit-learn estimator, from a path to an answer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from journey_iris import ask
from journey_platform import RunningPlatform, clean_environment
from journey_scripts import SMALL_FLAVOR

pytestmark = pytest.mark.slow

TOOLS = (
    "joblib==1.6.0", "numpy==2.4.6", "onnx==1.23.2", "pandas==3.1.1", "scikit-learn==1.9.1", "skl2onnx==1.20.0",
)  # fmt: skip
MAKE = """
import sys, joblib, numpy as np
from pathlib import Path
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
place = Path(sys.argv[1])
x, y = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(x, y)
for name in ("onnx", "sklearn"):
    (place / name).mkdir()
joblib.dump(model, place / "sklearn" / "model.joblib")
graph = to_onnx(model, x[:1].astype(np.float32), options={"zipmap": False})
(place / "onnx" / "model.onnx").write_bytes(graph.SerializeToString())
"""
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


@pytest.fixture(scope="module")
def artifacts(tools_python: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("artifacts")
    command = [str(tools_python(*TOOLS)), "-c", MAKE, str(place)]
    subprocess.run(command, check=True, timeout=120, env=clean_environment())
    return place


@pytest.mark.parametrize("format_code", ["ONNX", "SKLEARN"])
def test_a_model_from_elsewhere_answers(
    platform: RunningPlatform, framework_python: Callable[[str, str], Path], artifacts: Path, format_code: str
) -> None:
    framework_python(format_code, "")
    client, name = platform.client, f"elsewhere-{format_code.lower()}"
    client.storage.upload(artifacts / format_code.lower(), f"formats/{name}")
    client.models.create(name, artifact=f"formats/{name}", format=format_code)
    client.endpoints.create(name, models={name: "/inference"}, flavor=SMALL_FLAVOR)
    endpoint = client.endpoints.wait(name, timeout_seconds=120)
    url = endpoint.endpoint_stage_list[0].endpoint_model_list[0].apigw_endpoint_uri
    answer = ask(str(url), {"instances": ROWS}, platform.credentials["caFile"])
    assert answer.status_code == 200, answer.text
    rows = answer.json()["predictions"]
    assert [row["label"] if isinstance(row, dict) else row for row in rows] == [0, 2]
    client.endpoints.delete(name)
