"""scikit-learn estimators, saved with joblib or pickle.

Loading runs the code of whoever made the file. That is why this process lies in its owner's sandbox, and why nothing outside one ever
loads such a file.
"""

from __future__ import annotations

import pickle
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.serving.config import ServingConfig
from modelyard.serving.contract import Array, Signature, Tensors, TensorSpec
from modelyard.serving.errors import BadRequest, LoadFailed

joblib: Any = import_module("joblib")

_METHODS = ("predict", "predict_proba", "decision_function", "transform")
_INPUT = "input"


def open_model(path: Path, config: ServingConfig) -> Estimator:
    """The estimator in a file. Raises `LoadFailed`."""
    try:
        estimator: Any = joblib.load(path)
    except ModuleNotFoundError as error:
        raise LoadFailed(f"{path.name} needs '{error.name}', which this image does not have") from error
    except (pickle.UnpicklingError, EOFError, OSError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise LoadFailed(
            f"{path.name} can't be loaded: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
    return Estimator(estimator, path)


class Estimator:
    """A fitted estimator; see `TensorRuntime`. Each of its methods is a signature: `predict`, `predict_proba` …

    Args:
        estimator: what was loaded.
        path: the file that it came from, for messages.
    """

    platform = "sklearn_joblib"

    def __init__(self, estimator: Any, path: Path) -> None:
        methods = [method for method in _METHODS if callable(getattr(estimator, method, None))]
        if not methods:
            raise LoadFailed(f"{path.name} holds a {type(estimator).__name__}, which can't predict")
        names = getattr(estimator, "feature_names_in_", None)
        self._names = None if names is None else [str(name) for name in names]
        inputs = _inputs(estimator, self._names)
        is_table = self._names is not None
        self.signatures = {name: Signature(name, inputs, (TensorSpec(name),), is_table) for name in methods}
        self.default_signature = methods[0]
        self._estimator = estimator

    def predict(self, signature: Signature, inputs: Tensors) -> Tensors:
        """Call the method; see `TensorRuntime`."""
        try:
            result = getattr(self._estimator, signature.name)(self._table(inputs))
        except (ValueError, TypeError) as error:
            raise BadRequest(f"the model refuses the input: {' '.join(str(error).split())[:500]}") from error
        array: Array = np.asarray(result.toarray() if hasattr(result, "toarray") else result)
        return {signature.name: array}

    def close(self) -> None:
        """Let the estimator go."""
        self._estimator = None

    def _table(self, inputs: Tensors) -> Any:
        if self._names is None:
            return _plain(inputs[_INPUT])
        columns = {name: _plain(inputs[name]) for name in self._names}
        if find_spec("pandas") is None:
            return np.column_stack(list(columns.values()))
        return import_module("pandas").DataFrame(columns)


def _inputs(estimator: Any, names: list[str] | None) -> tuple[TensorSpec, ...]:
    """What was fitted on a table with names takes a value per column, of any type; all else a matrix of numbers."""
    if names is not None:
        return tuple(TensorSpec(name, None, (None,), open_dtype="float64") for name in names)
    count: Any = getattr(estimator, "n_features_in_", None)
    return (TensorSpec(_INPUT, "float64", (None, count if isinstance(count, int) else None)),)


def _plain(array: Array) -> Array:
    if array.dtype.kind != "O":
        return array
    return np.array([item.decode() for item in array.reshape(-1)], dtype=object).reshape(array.shape)
