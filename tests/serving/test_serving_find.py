"""What is found in an artifact's directory, and the configuration file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.serving.config import parse_config, read_config
from modelyard.serving.errors import LoadFailed
from modelyard.serving.find import Kind, find_artifact, version_of


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("names", "kind", "place", "version"),
    [
        (["saved_model.pb", "checkpoint/x.pt"], Kind.SAVED_MODEL, ".", None),
        (["1/saved_model.pb", "9/saved_model.pb", "10/saved_model.pb", "notes/x"], Kind.SAVED_MODEL, "10", "10"),
        (["export/saved_model.pb"], Kind.SAVED_MODEL, "export", None),
        (["export/3/saved_model.pb", "export/20/saved_model.pb"], Kind.SAVED_MODEL, "export/20", "20"),
        (["model-store/a.mar", "config/config.properties"], Kind.TORCH_ARCHIVE, ".", None),
        (["a.mar"], Kind.TORCH_ARCHIVE, ".", None),
        (["handler.py", "w.pt"], Kind.TORCH_ARCHIVE, ".", None),
        (["my_handler.py", "model.py", "w.pt"], Kind.TORCH_ARCHIVE, ".", None),
        (["model-store/iris/MAR-INF/MANIFEST.json"], Kind.TORCH_ARCHIVE, ".", None),
        (["model.pt2", "model.pt"], Kind.TORCH_EXPORT, "model.pt2", None),
        (["2/model.pt", "1/model.pt"], Kind.TORCH_FILE, "2/model.pt", "2"),
        (["model.onnx"], Kind.ONNX, "model.onnx", None),
        (["model.joblib"], Kind.SKLEARN, "model.joblib", None),
    ],
)
def test_what_is_found(tmp_path: Path, names: list[str], kind: Kind, place: str, version: str | None) -> None:
    artifact = find_artifact(put(tmp_path, *names), "auto")
    assert (artifact.kind, artifact.path) == (kind, tmp_path / place)
    assert version_of(artifact, tmp_path) == version


def test_the_format_chooses(tmp_path: Path) -> None:
    put(tmp_path, "saved_model.pb", "model.onnx")
    assert find_artifact(tmp_path, "ONNX").kind is Kind.ONNX
    assert find_artifact(tmp_path, "TENSORFLOW").kind is Kind.SAVED_MODEL


@pytest.mark.parametrize(
    ("names", "wanted", "sentence"),
    [
        ([], "auto", "the model directory is empty"),
        (["model.keras"], "TENSORFLOW", r"model\.export\(directory\) in Keras 3"),
        (["readme.txt"], "PYTORCH", "no PyTorch model .* it has readme.txt"),
        ([f"f{number:02}" for number in range(12)], "auto", "f07 and 4 more"),
    ],
)
def test_nothing_found_says_what_is_there(tmp_path: Path, names: list[str], wanted: str, sentence: str) -> None:
    with pytest.raises(LoadFailed, match=sentence):
        find_artifact(put(tmp_path, *names), wanted)
    with pytest.raises(LoadFailed, match="does not exist"):
        find_artifact(tmp_path / "absent", wanted)


def test_a_configuration(tmp_path: Path) -> None:
    config = parse_config(
        {"model_dir": "/m", "model_name": "iris", "listen": "127.0.0.1:80", "cpus": 2, "deadline_seconds": 5}
    )
    assert (config.address, config.socket_path, config.processor_count) == (("127.0.0.1", 80), None, 2)
    assert parse_config({"model_dir": "/m", "model_name": "i", "listen": "unix:/a/b.sock"}).socket_path == Path(
        "/a/b.sock"
    )
    assert parse_config({"model_dir": "/m", "model_name": "i"}).socket_path == Path("/run/modelyard/http.sock")
    path = tmp_path / "serving.json"
    path.write_text(json.dumps({"model_dir": "/m", "model_name": "iris", "parameters": {"a": "b"}}))
    assert read_config(path).parameters == {"a": "b"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model_name": "i"}, "'model_dir' is missing"),
        ({"model_dir": "/m", "model_name": ""}, "'model_name' is missing"),
        ({"model_dir": "/m", "model_name": "i", "format": "CAFFE"}, "unknown format 'CAFFE'"),
        ({"model_dir": "/m", "model_name": "i", "listen": "nowhere"}, "host:port"),
        ({"model_dir": "/m", "model_name": "i", "listen": "h:99999"}, "host:port"),
        ({"model_dir": "/m", "model_name": "i", "queue_size": -1}, "'queue_size' must not be negative"),
        ({"model_dir": "/m", "model_name": "i", "queue_size": True}, "'queue_size' must be int"),
        ({"model_dir": "/m", "model_name": "i", "deadline_seconds": 0}, "'deadline_seconds' must be above 0"),
        ({"model_dir": "/m", "model_name": "i", "wrokers": 3}, "'wrokers' is not a setting"),
        ({"model_dir": 3, "model_name": "i"}, "'model_dir' must be str"),
    ],
)
def test_a_wrong_configuration_is_told(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        parse_config(values)
    assert sentence in caught.value.message


def test_an_unreadable_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="can't be read"):
        read_config(tmp_path / "absent.json")
    for text in ("{", "[]"):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(LoadFailed, match="not"):
            read_config(tmp_path / "c.json")
