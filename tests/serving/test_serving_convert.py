"""When a graph counts as the SavedModel's equal, and what becomes of one that can't be had. The converter itself: `test_serving_twin.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modelyard.serving import twin
from modelyard.serving.config import ServingConfig
from modelyard.serving.contract import Signature, Tensors, TensorSpec
from modelyard.serving.convert import Disagrees, compare
from modelyard.serving.errors import BadRequest, LoadFailed

INPUT = TensorSpec("x", "float32", (None, 4))


class Saved:
    """A model of one function; refuses more rows than it is told to take."""

    platform = "numpy"
    default_signature = "f"

    def __init__(self, call: Callable[[Tensors], Tensors], dtype: str = "float32", most_rows: int = 1000) -> None:
        self.signatures = {"f": Signature("f", (INPUT,), (TensorSpec("y", dtype, (None, 4)),))}
        self._call, self._most = call, most_rows

    def predict(self, signature: Signature, inputs: Tensors) -> Tensors:
        if len(inputs["x"]) > self._most:
            raise BadRequest("too many rows")
        return self._call(inputs)

    def close(self) -> None:
        pass


def double(inputs: Tensors) -> Tensors:
    return {"y": inputs["x"] * np.float32(2)}


def compared(call: Callable[[Tensors], Tensors], other: Callable[[Tensors], Tensors], **options: object) -> float:
    saved = Saved(call, **options)  # type: ignore[arg-type]  # the options of the test
    return compare(saved, saved.signatures["f"], other)


def test_small_differences_are_told_and_larger_ones_refused() -> None:
    assert compared(double, double) == 0.0
    assert 0 < compared(double, lambda inputs: {"y": inputs["x"] * np.float32(2.00001)}) < 1e-3
    with pytest.raises(Disagrees, match="output 'y' differs by up to"):
        compared(double, lambda inputs: {"y": inputs["x"] * np.float32(2.01)})


def test_a_difference_in_the_last_of_the_sizes_counts() -> None:
    def other(inputs: Tensors) -> Tensors:
        return {"y": inputs["x"] * np.float32(2 if len(inputs["x"]) < 32 else 3)}

    with pytest.raises(Disagrees):
        compared(double, other)


def test_types_shapes_and_whole_numbers_must_be_equal() -> None:
    with pytest.raises(Disagrees, match="float64"):
        compared(double, lambda inputs: {"y": inputs["x"].astype("float64") * 2})
    with pytest.raises(Disagrees, match="not float32"):
        compared(double, lambda inputs: {"y": (inputs["x"] * np.float32(2))[:, :3]})
    whole = lambda inputs: {"y": (inputs["x"] * 100).astype("int64")}  # noqa: E731  # a word for the line below
    with pytest.raises(Disagrees, match="other values"):
        compared(whole, lambda inputs: {"y": whole(inputs)["y"] + 1}, dtype="int64")


def test_nan_must_be_where_it_was() -> None:
    def root(inputs: Tensors) -> Tensors:
        with np.errstate(invalid="ignore"):
            return {"y": np.sqrt(inputs["x"] + np.float32(2.5))}

    def filled(inputs: Tensors) -> Tensors:
        return {"y": np.nan_to_num(root(inputs)["y"])}

    assert compared(root, root) == 0.0
    with pytest.raises(Disagrees):
        compared(root, filled)


def test_sizes_that_the_model_refuses_are_passed_over_but_some_must_remain() -> None:
    assert compared(double, double, most_rows=2) == 0.0
    with pytest.raises(Disagrees, match="no inputs were found"):
        compared(double, double, most_rows=1)


def test_a_graph_that_fails_where_the_model_answers_is_refused() -> None:
    def fails(inputs: Tensors) -> Tensors:
        raise RuntimeError("no kernel")

    with pytest.raises(Disagrees, match="no kernel"):
        compared(double, fails)


def test_tools_that_can_not_be_had_leave_the_saved_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(requirements: Path, target: Path, **options: object) -> None:
        assert "tf2onnx==" in requirements.read_text()
        raise LoadFailed("the tools of the conversion can't be installed: no index")

    monkeypatch.setattr(twin, "install_requirements", refuse)
    model = twin.Twin(Saved(double), tmp_path, ServingConfig(str(tmp_path), "m", work_dir=str(tmp_path)))
    model._change_over()
    assert (
        "the SavedModel goes on without ONNX: the tools of the conversion can't be installed: no index"
        in capsys.readouterr().err
    )
    assert model.platform == "numpy"
    assert model.predict(model.signatures["f"], {"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[2.0] * 4]


def test_what_a_graph_refuses_the_saved_model_answers(tmp_path: Path) -> None:
    model = twin.Twin(Saved(double), tmp_path, ServingConfig(str(tmp_path), "m"))

    def refuses(inputs: Tensors) -> Tensors:
        raise BadRequest("invalid rank")

    model._calls["f"] = refuses
    assert model.platform == "onnxruntime_onnx"
    assert model.predict(model.signatures["f"], {"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[2.0] * 4]
