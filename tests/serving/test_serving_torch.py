"""PyTorch artifacts of every form, made by the real tools and run by the real PyTorch."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

MODEL = """
import torch

class Iris(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))

    def forward(self, x):
        return self.layers(x)
"""

MAKE = (
    MODEL
    + """
import sys, json
place = sys.argv[1]
torch.manual_seed(7)
model = Iris().eval()
rows = torch.tensor([[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.0, 1.0]])
json.dump(model(rows).tolist(), open(place + "/wanted.json", "w"))
torch.save(model.state_dict(), place + "/weights.pt")
torch.jit.script(model).save(place + "/script.pt")
batch = torch.export.Dim("batch", min=1, max=1024)
torch.export.save(torch.export.export(model, (rows,), dynamic_shapes=({0: batch},)), place + "/program.pt2")

class Embedded(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(10, 2)

    def forward(self, ids, weight):
        return {"mean": (self.embedding(ids) * weight.unsqueeze(-1)).mean(dim=1), "count": torch.tensor([ids.shape[1]])}

torch.jit.script(Embedded()).save(place + "/embedded.pt")
"""
)

WRAPPED = """
import logging, torch
from ts.torch_handler.base_handler import BaseHandler

logger = logging.getLogger(__name__)

class IrisHandler(BaseHandler):
    def preprocess(self, data):
        rows = [row.get("data") or row.get("body") for row in data]
        return torch.tensor(rows, dtype=torch.float32)

    def postprocess(self, data):
        return [{"label": int(row.argmax()), "scores": row.tolist()} for row in data]
"""

PLAIN = """
import json, os
import torch
from ts.utils.util import PredictionException

class Service:
    def initialize(self, context):
        self.context = context
        properties = context.system_properties
        assert properties["batch_size"] == 1 and properties["server_name"]
        self.greeting = open("greeting.txt").read()
        self.names = json.load(open(os.path.join(properties["model_dir"], "index_to_name.json")))
        self.manifest = context.manifest["model"]["modelVersion"]

    def handle(self, data, context):
        body = data[0].get("body")
        if isinstance(body, (bytes, bytearray)):
            context.set_response_content_type(0, "image/png")
            context.set_response_header(0, "x-kind", "bytes")
            return [bytes(body)[::-1]]
        if body == "boom":
            raise ValueError("no such flower")
        if body == "refuse":
            raise PredictionException("not today", 422)
        if body == "teapot":
            context.set_response_status(418, "teapot")
            return ["short and stout"]
        if isinstance(body, dict) and "instances" in body:
            return [{"sum": sum(body["instances"]), "header": context.get_request_header(0, "X-Asked")}]
        return [{"greeting": self.greeting, "name": self.names["1"], "version": self.manifest, "got": body}]
"""

RAISING = """
class H:
    def initialize(self, context):
        raise OSError("no disk")

    def handle(self, data, context):
        return data
"""

FUNCTION = """
import torch

model = None

def predict_flower(data, context):
    global model
    if model is None:
        model = torch.jit.load(context.system_properties["model_dir"] + "/" + context.manifest["model"]["serializedFile"])
    if data is None:
        return None
    with torch.no_grad():
        return model(torch.tensor(data, dtype=torch.float32)).argmax(dim=1).tolist()
"""


@pytest.fixture(scope="module")
def python(framework_python: Callable[[str, str], Path]) -> Path:
    return framework_python("PYTORCH", "2.13")


@pytest.fixture(scope="module")
def made(python: Path, run_script: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("torch")
    run_script(python, MAKE, place)
    return place


@pytest.fixture
def artifact(made: Path, tmp_path: Path) -> Callable[..., Path]:
    """`artifact(archiver options…, models=…)` is an artifact directory with an archive of the real archiver's."""

    def make(
        handler: str, *, name: str = "iris", configured: str | None = "iris", files: dict[str, str] | None = None,
        properties: str = "", **options: str,
    ) -> Path:  # fmt: skip
        sources = tmp_path / "sources"
        sources.mkdir(exist_ok=True)
        for file_name, text in (files or {}).items():
            (sources / file_name).write_text(text)
        root = tmp_path / f"artifact-{len(list(tmp_path.iterdir()))}"
        (root / "model-store").mkdir(parents=True)
        command = [
            str(Path(sys.executable).with_name("torch-model-archiver")),
            "--model-name",
            name,
            "--version",
            "1.0",
        ]
        command += ["--handler", handler, "--export-path", str(root / "model-store"), "--force"]
        for option, value in options.items():
            command += [f"--{option.replace('_', '-')}", value]
        done = subprocess.run(command, cwd=sources, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        if configured is not None:
            entry = {"1.0": {"defaultVersion": True, "marName": f"{name}.mar", "batchSize": 1, "responseTimeout": 120}}
            (root / "config").mkdir()
            (root / "config" / "config.properties").write_text(
                "# as users write it\ninference_address=http://0.0.0.0:8085\nmodel_store=/mnt/models/model-store\n"
                f'model_snapshot={{"name":"startup.cfg","modelCount":1,"models":{json.dumps({configured: entry})}}}\n'
                + properties
            )
        return root

    return make


ROWS = [[6.8, 2.8, 4.8, 1.4], [6, 3.4, 4, 1]]


def wanted(made: Path) -> Any:
    return pytest.approx([number for row in json.loads((made / "wanted.json").read_text()) for number in row], rel=1e-4)


def flat(rows: Any) -> list[float]:
    return [number for row in rows for number in row]


@pytest.mark.parametrize("form", ["script", "eager"])
def test_an_archive_with_the_base_handler(
    start_server: Any, python: Path, made: Path, artifact: Callable[..., Path], form: str
) -> None:
    options = {"serialized_file": str(made / ("script.pt" if form == "script" else "weights.pt"))}
    if form == "eager":
        options["model_file"] = "model.py"
    root = artifact("base_handler", files={"model.py": MODEL}, **options)
    server = start_server(root, python, model_name="iris", format="PYTORCH")
    server.wait_for("ready")
    answer = server.predict({"instances": ROWS}, name="iris")
    assert flat(answer.json()["predictions"]) == wanted(made)
    data = server.predict({"instances": [{"data": row} for row in ROWS]}, name="iris")
    assert flat(data.json()["predictions"]) == wanted(made)
    request = {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": flat(ROWS)}]}
    (output,) = server.infer(request, name="iris").json()["outputs"]
    assert output["shape"] == [2, 3]
    assert output["data"] == wanted(made)
    assert server.client.post("/predictions/iris", json={"instances": ROWS}).json() == answer.json()
    assert server.predict({"instances": []}, name="iris").status_code == 400
    assert server.predict({"instances": [[1, 2]]}, name="iris").status_code == 500
    assert server.client.get("/v2/models/iris").json()["platform"] == "pytorch_archive"
    assert server.stop() == 0


def test_a_derived_handler_gets_instances_as_rows(
    start_server: Any, python: Path, made: Path, artifact: Callable[..., Path]
) -> None:
    root = artifact("handler.py", files={"handler.py": WRAPPED}, serialized_file=str(made / "script.pt"))
    server = start_server(root, python, model_name="iris")
    server.wait_for("ready")
    for instances in (ROWS, [{"data": row} for row in ROWS], [{"body": row} for row in ROWS]):
        predictions = server.predict({"instances": instances}, name="iris").json()["predictions"]
        assert flat(row["scores"] for row in predictions) == wanted(made)
        assert set(predictions[0]) == {"label", "scores"}
    single = server.client.post("/predictions/iris", json=ROWS[0]).json()
    assert single["scores"] == pytest.approx(predictions[0]["scores"], rel=1e-5)


def test_a_handler_that_reads_the_body_itself(start_server: Any, python: Path, artifact: Callable[..., Path]) -> None:
    files = {"service.py": PLAIN, "greeting.txt": "hello", "index_to_name.json": '{"1": "setosa"}'}
    root = artifact("service.py", files=files, extra_files="greeting.txt,index_to_name.json")
    server = start_server(root, python, model_name="iris")
    server.wait_for("ready")
    got = server.predict({"anything": [1]}, name="iris").json()
    assert got == {"greeting": "hello", "name": "setosa", "version": "1.0", "got": {"anything": [1]}}
    summed = server.predict({"instances": [1, 2, 3]}, name="iris", headers={"X-Asked": "yes"}).json()
    assert summed == {"sum": 6, "header": "yes"}
    path = "/v1/models/iris:predict"
    image = server.client.post(path, content=b"\x89PNG", headers={"content-type": "image/png"})
    assert (image.content, image.headers["content-type"], image.headers["x-kind"]) == (b"GNP\x89", "image/png", "bytes")
    form = server.client.post(path, files={"body": ("a.bin", b"\x00\x01", "application/octet-stream")})
    assert form.content == b"\x01\x00"
    failed = server.client.post(path, json="boom")
    assert failed.status_code == 500
    assert "ValueError: no such flower" in failed.json()["error"]
    assert "no such flower" in server.stderr
    assert server.client.post(path, json="refuse").status_code == 422
    teapot = server.client.post(path, json="teapot")
    assert (teapot.status_code, teapot.text) == (418, "short and stout")


def test_the_configured_envelope_wins(start_server: Any, python: Path, artifact: Callable[..., Path]) -> None:
    text = "def handle(data, context):\n    # instances\n    return [str(row) for row in data] if data else None\n"
    on = artifact("h.py", files={"h.py": text + "    x = 'instances'\n"}, properties="service_envelope=kserve\n")
    off = artifact("h.py", files={"h.py": text}, properties="service_envelope=body\n")
    first, second = (start_server(root, python, model_name="iris") for root in (on, off))
    for server in (first, second):
        server.wait_for("ready")
    assert first.predict({"instances": [1, 2]}, name="iris").json() == {"predictions": ["1", "2"]}
    assert second.predict({"instances": [1, 2]}, name="iris").text == "{'body': {'instances': [1, 2]}}"


def test_a_handler_function_of_its_own_name(
    start_server: Any, python: Path, made: Path, artifact: Callable[..., Path]
) -> None:
    files = {"flower.py": FUNCTION}
    root = artifact("flower.py", files=files, serialized_file=str(made / "script.pt"), archive_format="no-archive")
    manifest = root / "model-store" / "iris" / "MAR-INF" / "MANIFEST.json"
    document = json.loads(manifest.read_text())
    document["model"]["handler"] = "flower.py:predict_flower"  # TorchServe reads this form, its archiver can't write it
    manifest.write_text(json.dumps(document))
    server = start_server(root, python, model_name="iris")
    server.wait_for("ready")
    answer = server.predict({"instances": ROWS}, name="iris").json()["predictions"]
    assert len(answer) == 2
    assert all(label in (0, 1, 2) for label in answer)


def test_wrong_archives_end_the_server_with_a_sentence(
    start_server: Any, python: Path, made: Path, artifact: Callable[..., Path], tmp_path: Path
) -> None:
    def failure(root: Path, **settings: Any) -> str:
        server = start_server(root, python, **({"model_name": "iris"} | settings))
        message = str(server.wait_for("failed")["message"])
        assert server.process.wait(timeout=30) == 3
        assert "\n" not in message
        return message

    good = {"serialized_file": str(made / "script.pt")}
    wrong_name = failure(artifact("base_handler", configured="flower", **good))
    assert "'flower'" in wrong_name and "'iris'" in wrong_name
    manifest_name = failure(artifact("base_handler", name="flower", configured=None, **good))
    assert "'flower'" in manifest_name and "'iris'" in manifest_name
    broken = artifact("h.py", files={"h.py": "import nowhere_to_be_found\n"})
    assert "nowhere_to_be_found" in failure(broken)
    raises = artifact(
        "h.py",
        files={"h.py": RAISING},
    )
    assert "OSError: no disk" in failure(raises)
    two = artifact(
        "h.py", files={"h.py": "class A:\n    def handle(self, d, c): ...\nclass B:\n    def handle(self, d, c): ...\n"}
    )
    assert "A, B" in failure(two)
    vision = failure(artifact("image_classifier", **good))
    assert "needs '" in vision

    slip = tmp_path / "slip"
    slip.mkdir()
    with zipfile.ZipFile(slip / "iris.mar", "w") as archive:
        archive.writestr(
            "MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "iris", "handler": "base_handler"}})
        )
        archive.writestr("../../escaped.txt", "out")
    assert "outside" in failure(slip)
    (slip / "iris.mar").write_bytes(b"PK not a zip")
    assert "can't be read" in failure(slip)


def test_requirements_of_an_archive_are_laid_over_the_image(
    start_server: Any, python: Path, artifact: Callable[..., Path], tmp_path: Path
) -> None:
    wheel = tmp_path / "petals-3.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("petals.py", "COUNT = 5\n")
        archive.writestr("petals-3.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: petals\nVersion: 3.1\n")
        archive.writestr("petals-3.1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(
            "petals-3.1.dist-info/RECORD",
            "petals.py,,\npetals-3.1.dist-info/METADATA,,\npetals-3.1.dist-info/WHEEL,,\n",
        )
    handler = "import petals\nimport torch\ndef handle(data, context):\n    return [petals.COUNT for _ in data or []]\n"
    files = {"h.py": handler, "requirements.txt": f"numpy\ntorch\n{wheel}\n"}
    root = artifact("h.py", files=files, requirements_file="requirements.txt")
    server = start_server(root, python, model_name="iris")
    server.wait_for("ready")
    assert server.predict({"instances": [0, 0]}, name="iris").json() == {"predictions": [5, 5]}
    missing = artifact(
        "h.py",
        files=files | {"requirements.txt": f"{tmp_path}/absent-1.0-py3-none-any.whl\n"},
        requirements_file="requirements.txt",
    )
    failed = start_server(missing, python, model_name="iris")
    assert "requirements.txt of the archive can't be installed" in failed.wait_for("failed")["message"]


def test_torchscript_exported_and_eager_files(start_server: Any, python: Path, made: Path, tmp_path: Path) -> None:
    def place(name: str, *files: str) -> Path:
        root = tmp_path / name
        root.mkdir()
        for file in files:
            (root / file).write_bytes((made / file).read_bytes())
        return root

    eager = place("eager", "weights.pt")
    (eager / "model.py").write_text(MODEL)
    for root, input_name, platform in (
        (place("script", "script.pt"), "x", "pytorch_torchscript"),
        (place("export", "program.pt2"), "x", "pytorch_export"),
        (eager, "x", "pytorch_eager"),
    ):
        server = start_server(root, python, format="PYTORCH")
        server.wait_for("ready")
        assert flat(server.predict({"instances": ROWS}).json()["predictions"]) == wanted(made)
        assert flat(server.predict({"instances": [{input_name: row} for row in ROWS]}).json()["predictions"]) == wanted(
            made
        )
        assert server.client.get("/v2/models/m").json()["platform"] == platform
        wrong = server.predict({"instances": [[1, 2]]})
        assert wrong.status_code == 400, wrong.text
        assert server.predict({"instances": [["a", "b", "c", "d"]]}).status_code == 400
        request = {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": ROWS}]}
        assert server.infer(request).json()["outputs"][0]["data"] == wanted(made)
        assert server.stop() == 0

    lone = start_server(place("lone", "weights.pt"), python)
    assert "model.py" in lone.wait_for("failed")["message"]
    cut = place("cut", "script.pt")
    (cut / "script.pt").write_bytes((cut / "script.pt").read_bytes()[:300])
    assert "script.pt" in start_server(cut, python).wait_for("failed")["message"]


def test_a_script_that_wants_whole_numbers_and_answers_several(
    start_server: Any, python: Path, made: Path, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "embedded.pt").write_bytes((made / "embedded.pt").read_bytes())
    server = start_server(tmp_path / "model", python)
    server.wait_for("ready")
    for _ in range(2):
        answer = server.predict({"inputs": {"ids": [[1, 2, 3]], "weight": [[0.5, 0.5, 1.0]]}})
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"]["count"] == [3]
        assert len(answer.json()["outputs"]["mean"][0]) == 2
    far = server.predict({"inputs": {"ids": [[99]], "weight": [[0.5]]}})
    assert far.status_code == 400
    text = base64.b64encode(b"x").decode()
    assert server.predict({"inputs": {"ids": [[{"b64": text}]], "weight": [[0.5]]}}).status_code == 400
