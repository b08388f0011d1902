"""The names of TorchServe's package, for handlers in images without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.serving.torchserve.context import Context
from modelyard.serving.torchserve.utils.util import PredictionException, load_label_mapping, map_class_to_label

USE = """
import importlib.util
from modelyard.serving.torchserve.offer import offer_ts
assert importlib.util.find_spec("ts") is None
offer_ts()
import ts.context
from ts.context import Context
from ts.utils.util import PredictionException
import modelyard.serving.torchserve.context as own
assert Context is own.Context and ts.context is own
assert own.__spec__.name == own.__name__ == "modelyard.serving.torchserve.context"
assert PredictionException.__module__ == "modelyard.serving.torchserve.utils.util"
for absent in ("ts.nothing", "ts.utils.nothing"):
    try:
        __import__(absent)
    except ModuleNotFoundError as error:
        assert error.name == absent, error.name
    else:
        raise SystemExit("found " + absent)
"""


def test_ts_means_this_package_where_torchserve_is_absent(tmp_path: Path) -> None:
    sources = str(Path(__file__).parents[2] / "src")
    done = subprocess.run([sys.executable, "-c", USE], env={"PYTHONPATH": sources}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_installed_torchserve_is_used(tmp_path: Path) -> None:
    (tmp_path / "ts").mkdir()
    (tmp_path / "ts" / "__init__.py").write_text("theirs = True\n")
    sources = str(Path(__file__).parents[2] / "src")
    script = "from modelyard.serving.torchserve.offer import offer_ts\noffer_ts()\nimport ts\nassert ts.theirs\n"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": f"{sources}:{tmp_path}"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_context_tells_of_the_request_and_takes_the_answer() -> None:
    context = Context("iris", "/m", {"model": {"modelName": "iris"}}, 4, None, "1.0")
    assert context.system_properties["model_dir"] == "/m"
    assert context.system_properties["batch_size"] == 4
    context.begin("7", {"X-Asked": "yes"})
    assert context.get_request_id(3) == "7"
    assert context.get_request_header(0, "x-asked") == "yes"
    assert context.get_request_header(2, "absent") is None
    context.set_response_content_type(0, "image/png")
    context.set_response_status(202, "Accepted", 0)
    assert context.get_response_headers(0) == {"content-type": "image/png"}
    assert context.get_response_status(0) == (202, "Accepted")
    context.begin("8", {})
    assert context.get_response_status(0) == (None, None)
    context.metrics.add_time("t", 1.5, None, "ms")


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "index_to_name.json"
    path.write_text(json.dumps({"0": "setosa", "1": ["n01", "virginica"]}))
    mapping = load_label_mapping(path)
    assert map_class_to_label([[0.75, 0.25]], mapping, [[1, 0]]) == [{"virginica": 0.75, "setosa": 0.25}]
    assert map_class_to_label([[0.75, 0.25]]) == [{"0": 0.75, "1": 0.25}]
    assert load_label_mapping(tmp_path / "absent") is None
    path.write_text(json.dumps({"object_type_names": ["cat", "dog"]}))
    assert load_label_mapping(path, is_object_detection=True) == {"0": "cat", "1": "dog"}
    with pytest.raises(PredictionException, match="no : 422"):
        raise PredictionException("no", 422)
