"""Models that no training of the platform makes."""

from __future__ import annotations

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
