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
        columns = getattr(estimator, "n_features_in_", None)
        names = getattr(estimator, "feature_names_in_", None)
        spec = TensorSpec(
            _INPUT, "float64" if names is None else None, (None, columns if isinstance(columns, int) else None)
        )
        self.signatures = {method: Signature(method, (spec,), (TensorSpec(method),)) for method in methods}
        self.default_signature = methods[0]
        self._estimator = estimator
        self._names = None if names is None else [str(name) for name in names]

    def predict(self, signature: Signature, inputs: Tensors) -> Tensors:
        """Call the method; see `TensorRuntime`."""
        try:
            result = getattr(self._estimator, signature.name)(self._table(inputs[_INPUT]))
        except (ValueError, TypeError) as error:
            raise BadRequest(f"the model refuses the input: {' '.join(str(error).split())[:500]}") from error
        array: Array = np.asarray(result.toarray() if hasattr(result, "toarray") else result)
        return {signature.name: array}

    def close(self) -> None:
        """Let the estimator go."""
        self._estimator = None

    def _table(self, array: Array) -> Any:
        if array.dtype.kind == "O":
            array = np.array([item.decode() for item in array.reshape(-1)], dtype=object).reshape(array.shape)
        if self._names is None or find_spec("pandas") is None:
            return array
        return import_module("pandas").DataFrame(array, columns=self._names)
