"""Looking into artifacts: what real frameworks write, and what nobody should."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.resources.models.inspection.files import Files
from modelyard.resources.models.inspection.findings import Findings, InspectionFailed
from modelyard.resources.models.inspection.look import inspect
from modelyard.resources.models.model import SignatureSpec

TOOLS = (
    "joblib==1.6.0", "numpy==2.4.6", "onnx==1.23.2", "pandas==3.1.1", "scikit-learn==1.9.1", "skl2onnx==1.20.0",
)  # fmt: skip

MAKE_SAVED_MODELS = """
import sys, tensorflow as tf
from pathlib import Path
place = Path(sys.argv[1])
model = tf.keras.Sequential([tf.keras.layers.Input((4,), name="flower"), tf.keras.layers.Dense(3, name="kind")])
(model.save if tf.__version__.startswith("2.15") else model.export)(str(place / "keras" / "7"))
class Two(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="words"), tf.TensorSpec([], tf.int64, name="limit")])
    def count(self, words, limit):
        return {"lengths": tf.minimum(tf.cast(tf.strings.length(words), tf.int64), limit)}
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
    def double(self, x):
        return {"y": 2 * x}
two = Two()
tf.saved_model.save(two, str(place / "two"), signatures={"serving_default": two.double, "count": two.count})
"""
MAKE_TORCH = """
import sys, torch
from pathlib import Path
place = Path(sys.argv[1])
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
    def forward(self, x):
        return self.layer(x)
net = Net().eval()
for name in ("script", "export", "weights"):
    (place / name).mkdir()
torch.jit.script(net).save(str(place / "script" / "model.pt"))
batch = torch.export.Dim("batch")
program = torch.export.export(net, (torch.zeros(2, 4),), dynamic_shapes={"x": {0: batch}})
torch.export.save(program, place / "export" / "model.pt2")
torch.save(net.state_dict(), place / "weights" / "model.pth")
"""
MAKE_OTHERS = """
import sys, joblib, numpy as np, onnx
from pathlib import Path
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
place = Path(sys.argv[1])
x, y = load_iris(return_X_y=True)
for name in ("onnx", "external", "sklearn", "forest", "compressed"):
    (place / name).mkdir()
pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
graph = to_onnx(pipeline, x[:1].astype(np.float32), options={"zipmap": False})
(place / "onnx" / "model.onnx").write_bytes(graph.SerializeToString())
weight = numpy_helper.from_array(np.zeros((4, 3000), np.float32), "w")
external = helper.make_model(helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3000])], [weight]))
onnx.save(external, place / "external" / "model.onnx", save_as_external_data=True, location="weights.bin")
joblib.dump(pipeline, place / "sklearn" / "model.joblib")
joblib.dump(RandomForestClassifier(50).fit(x, y), place / "forest" / "model.pkl")
joblib.dump(pipeline, place / "compressed" / "model.joblib", compress=3)
"""


def files_at(root: Path, **options: int) -> Files:
    def read(name: str, offset: int, length: int) -> bytes:
        with (root / name).open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in root.rglob("*") if path.is_file()}
    return Files(sizes, read, **options)


def files_of(contents: dict[str, bytes]) -> Files:
    sizes = {name: len(content) for name, content in contents.items()}
    return Files(sizes, lambda name, offset, length: contents[name][offset : offset + length])


def run(python: Path, source: str, place: Path) -> Path:
    script = place / "make.py"
    script.write_text(source)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [str(python), str(script), str(place)]
    subprocess.run(command, check=True, timeout=240, env=environment | {"TF_CPP_MIN_LOG_LEVEL": "3"})
    script.unlink()
    return place


def shapes(signature: SignatureSpec) -> tuple[list[object], list[object]]:
    def told(tensors: object) -> list[object]:
        return [(each.name, each.dtype, each.shape) for each in tensors]  # pyright: ignore  # a tuple of descriptions

    return told(signature.inputs), told(signature.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.15", "2.21"])
def test_saved_models(framework_python: Callable[[str, str], Path], tmp_path: Path, version: str) -> None:
    place = run(framework_python("TENSORFLOW", version), MAKE_SAVED_MODELS, tmp_path)
    keras = inspect(files_at(place / "keras"), "TENSORFLOW", "any")
    assert (keras.kind, keras.path) == ("SAVED_MODEL", "7")
    assert keras.framework_version is not None and keras.framework_version.startswith(version)
    serving = next(each for each in keras.signatures if each.name == "serving_default")
    [(_, dtype, shape)], [(_, out_dtype, out_shape)] = shapes(serving)  # pyright: ignore  # one input, one output
    assert (dtype, shape, out_dtype, out_shape) == ("float32", (None, 4), "float32", (None, 3))
    two = {each.name: shapes(each) for each in inspect(files_at(place / "two"), "TENSORFLOW", "any").signatures}
    assert two["count"] == ([("limit", "int64", ()), ("words", "string", (None,))], [("lengths", "int64", (None,))])
    assert two["serving_default"] == ([("x", "float32", None)], [("y", "float32", None)])


@pytest.mark.slow
def test_files_of_pytorch(framework_python: Callable[[str, str], Path], tmp_path: Path) -> None:
    place = run(framework_python("PYTORCH", "2.13"), MAKE_TORCH, tmp_path)
    assert inspect(files_at(place / "script"), "PYTORCH", "any").kind == "TORCHSCRIPT"
    export = inspect(files_at(place / "export"), "PYTORCH", "any")
    assert export.kind == "TORCH_EXPORT"
    assert [shapes(each) for each in export.signatures] == [
        ([("x", "float32", (None, 4))], [("output_0", "float32", (None, 3))])
    ]
    weights = inspect(files_at(place / "weights"), "PYTORCH", "any")
    assert weights.kind == "TORCH_WEIGHTS" and "weights alone need model.py" in weights.notes[0]


@pytest.mark.slow
def test_graphs_and_estimators(tools_python: Callable[..., Path], tmp_path: Path) -> None:
    place = run(tools_python(*TOOLS), MAKE_OTHERS, tmp_path)
    graph = inspect(files_at(place / "onnx"), "ONNX", "any")
    assert graph.kind == "ONNX" and graph.facts["producer"] == "skl2onnx"
    assert [shapes(each) for each in graph.signatures] == [
        ([("X", "float32", (None, 4))], [("label", "int64", (None,)), ("probabilities", "float32", (None, 3))])
    ]
    assert inspect(files_at(place / "external"), "ONNX", "any").signatures
    (place / "external" / "weights.bin").unlink()
    with pytest.raises(
        InspectionFailed, match=r"model\.onnx keeps weights in 'weights\.bin', which is not in the artifact"
    ):
        inspect(files_at(place / "external"), "ONNX", "any")
    estimator = inspect(files_at(place / "sklearn"), "SKLEARN", "any")
    assert estimator.facts["estimator"] == "sklearn.pipeline.Pipeline"
    assert estimator.framework_version == "1.9.1"
    assert inspect(files_at(place / "forest"), "SKLEARN", "any").framework_version == "1.9.1"
    assert "compressed" in inspect(files_at(place / "compressed"), "SKLEARN", "any").notes[0]
    content = (place / "onnx" / "model.onnx").read_bytes()
    for seed in range(300):  # damaged graphs are refused or read, and never more than that
        chance = random.Random(seed)
        damaged = bytearray(content[: chance.randrange(len(content))] if seed % 3 == 0 else content)
        for _ in range(chance.randrange(8)):
            damaged[chance.randrange(len(damaged) or 1)] = chance.randrange(256)
        try:
            assert isinstance(inspect(files_of({"model.onnx": bytes(damaged)}), "ONNX", "any"), Findings)
        except InspectionFailed as fault:
            assert str(fault).startswith("model.onnx ")


def archive(place: Path, name: str, configured: str | None = None, **options: str) -> Path:
    """An artifact with an archive of the real archiver's."""
    root = place / f"{name}-{configured}"
    (root / "model-store").mkdir(parents=True)
    (place / "handler.py").write_text("def handle(data, context):\n    return data\n")
    (place / "weights.pt").write_bytes(b"weights")
    command = [str(Path(sys.executable).with_name("torch-model-archiver")), "--model-name", name, "--version", "2.0"]
    command += [
        "--handler",
        "handler.py",
        "--serialized-file",
        "weights.pt",
        "--export-path",
        str(root / "model-store"),
    ]
    for option, value in options.items():
        command += [f"--{option.replace('_', '-')}", value]
    subprocess.run(command, check=True, cwd=place, capture_output=True, timeout=60)
    if configured is not None:
        (root / "config").mkdir()
        models = {configured: {"2.0": {"defaultVersion": True, "marName": f"{name}.mar"}}}
        (root / "config" / "config.properties").write_text(f"model_snapshot={json.dumps({'models': models})}\n")
    return root


def test_an_archive_tells_its_name(tmp_path: Path) -> None:
    found = inspect(files_at(archive(tmp_path, "iris", "iris")), "PYTORCH", "iris")
    assert (found.kind, found.path) == ("TORCH_ARCHIVE", "model-store/iris.mar")
    assert found.facts == {"modelName": "iris", "modelVersion": "2.0", "handler": "handler.py"}
    alone = inspect(files_at(archive(tmp_path, "iris")), "PYTORCH", "iris")
    assert alone.facts["modelName"] == "iris"


def test_a_name_that_differs_is_told_with_both_names(tmp_path: Path) -> None:
    with pytest.raises(
        InspectionFailed, match=r"config\.properties has the model 'iris', but the model is called 'rose'"
    ):
        inspect(files_at(archive(tmp_path, "iris", "iris")), "PYTORCH", "rose")
    with pytest.raises(InspectionFailed, match="manifest has the model 'iris', but the model is called 'rose'"):
        inspect(files_at(archive(tmp_path, "iris")), "PYTORCH", "rose")
    with pytest.raises(InspectionFailed, match=r"names the archive 'gone\.mar', but the artifact has"):
        root = archive(tmp_path, "lily", "lily")
        text = (root / "config" / "config.properties").read_text()
        (root / "config" / "config.properties").write_text(text.replace("lily.mar", "gone.mar"))
        inspect(files_at(root), "PYTORCH", "lily")


def test_an_archive_without_what_it_names_is_refused(tmp_path: Path) -> None:
    root = archive(tmp_path, "iris")
    whole = root / "model-store" / "iris.mar"
    with zipfile.ZipFile(whole) as source:
        kept = {name: source.read(name) for name in source.namelist() if name != "weights.pt"}
    with zipfile.ZipFile(whole, "w") as target:
        for name, content in kept.items():
            target.writestr(name, content)
    with pytest.raises(InspectionFailed, match=r"iris\.mar names 'weights\.pt' in its manifest, but does not hold it"):
        inspect(files_at(root), "PYTORCH", "iris")
    whole.write_bytes(b"no zip file")
    with pytest.raises(InspectionFailed, match=r"iris\.mar can't be read as a zip file"):
        inspect(files_at(root), "PYTORCH", "iris")


@pytest.mark.parametrize(
    ("contents", "format_code", "sentence"),
    [
        ({"notes.txt": b"x"}, "TENSORFLOW", r"the artifact holds no SavedModel \(saved_model\.pb\); it has notes\.txt"),
        ({"model.keras": b"x"}, "TENSORFLOW", r"model\.keras is a file of Keras, not a SavedModel"),
        ({"saved_model.pb": b""}, "TENSORFLOW", "is empty"),
        ({"saved_model.pb": b"\xff" * 100}, "TENSORFLOW", "is no SavedModel, or damaged"),
        ({"saved_model.pb": b"\x08\x01"}, "TENSORFLOW", "has no graph for serving"),
        ({"model.onnx": b"plain text"}, "ONNX", "is no ONNX model"),
        ({"model.onnx": b"\x08\x07"}, "ONNX", "it has no graph"),
        ({"model.onnx": b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"}, "ONNX", "beyond its message"),
        ({"model.pt2": b"no zip"}, "PYTORCH", "can't be read as a zip file"),
        ({"model.joblib": b"hello"}, "SKLEARN", "neither a pickle nor a file of joblib"),
        ({"model.joblib": b""}, "SKLEARN", "is empty"),
    ],
)
def test_what_can_not_be_served_is_told(contents: dict[str, bytes], format_code: str, sentence: str) -> None:
    with pytest.raises(InspectionFailed, match=sentence):
        inspect(files_of(contents), format_code, "any")


def test_nothing_is_read_beyond_the_budget(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as target:
        for number in range(20_000):
            target.writestr(f"model/data/{number}", b"")
    found = inspect(files_at(tmp_path, budget_bytes=300_000), "PYTORCH", "any")
    assert "too large to be looked into" in found.notes[0]


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    bomb = b"\x80\x04cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    assert inspect(files_of({"model.joblib": bomb}), "SKLEARN", "any").kind == "SKLEARN"
    assert not (tmp_path / "ran").exists()
