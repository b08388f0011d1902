"""The examples as a training runs them: fetched, with their requirements installed, in the real images, their output kept."""

import json
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from modelyard.runner.plan import ALWAYS, PYTHON, Fetch, Main, Plan, Required, Upload

EXAMPLES = Path(__file__).parents[2] / "examples/iris"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def flowers() -> tuple[str, list[list[float]], list[int]]:
    """train.csv, and the measures and classes that are kept for the test."""
    from sklearn.datasets import load_iris

    measures, classes = load_iris(return_X_y=True)
    lines = ["sepal_length,sepal_width,petal_length,petal_width,species"]
    test_x, test_y = [], []
    for number, (row, kind) in enumerate(zip(measures.tolist(), classes.tolist(), strict=True)):
        if number % 5 == 0:
            test_x.append(row)
            test_y.append(kind)
        else:
            lines.append(",".join(map(str, [*row, kind])))
    return "\n".join(lines) + "\n", test_x, test_y


@pytest.fixture
def train(launch, store, token, tmp_path, flowers, framework_python):
    """Run an example as the platform does."""
    for path in EXAMPLES.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            store.put("c", f"source/{path.relative_to(EXAMPLES)}", path.read_bytes())
    store.put("c", "data/train.csv", flowers[0])
    url = store.url("c")

    def start(framework: str, version: str, **hyperparameters: object):
        home = tmp_path / f"{framework}-{len(list(tmp_path.iterdir()))}"
        arguments = [text for name, value in hyperparameters.items() for text in (f"--{name}", str(value))]
        env = {
            "EM_DATASET_TRAIN": str(home / "data"),
            "EM_MODEL_DIR": str(home / "model"),
            "EM_CHECKPOINT_DIR": str(home / "checkpoint"),
            "EM_TENSORBOARD_LOG_DIR": str(home / "logs"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        folder = {"TENSORFLOW": "tensorflow", "PYTORCH": "pytorch"}[framework]
        plan = Plan(
            main=Main(argv=(PYTHON, "train.py", *arguments), env=env, cwd=str(home / "source")),
            fetches=(
                Fetch(target=str(home / "source"), label="obs://source", container_url=url, prefix=f"source/{folder}"),
                Fetch(target=str(home / "data"), label="obs://data", container_url=url, prefix="data"),
                Fetch(
                    target=env["EM_CHECKPOINT_DIR"],
                    label="obs://ck",
                    container_url=url,
                    prefix=f"ck-{folder}",
                    is_required=False,
                ),
            ),
            must_exist=(Required(str(home / "source/train.py"), "The entry point is not there."),),
            requirements=str(home / "source/requirements.txt"),
            cache_dir=str(tmp_path / "cache"),
            uploads=(
                Upload(source=env["EM_MODEL_DIR"], label="obs://model", container_url=url, prefix=f"model-{folder}"),
                Upload(
                    source=env["EM_CHECKPOINT_DIR"],
                    label="obs://ck",
                    container_url=url,
                    prefix=f"ck-{folder}",
                    sync_seconds=1,
                    on=ALWAYS,
                ),
            ),
            token=token,
        )
        ran = launch(plan, python=str(framework_python(framework, version))).end(400)
        assert ran.code == 0, ran.output
        assert list((home / "logs").rglob("events.out.tfevents.*"))
        return ran, home

    return start


def accuracy(python: Path, code: str, model: Path, rows: list[list[float]], classes: list[int]) -> float:
    """Predict in the framework's own environment: `code` sets `answer` from `rows` and `model`."""
    program = f"import json, sys\nmodel, rows = sys.argv[1], json.loads(sys.argv[2])\n{code}\nprint(json.dumps(answer))"
    ran = subprocess.run(
        [str(python), "-c", program, str(model), json.dumps(rows)], capture_output=True, text=True, check=True
    )
    predicted = [max(range(3), key=row.__getitem__) for row in json.loads(ran.stdout.splitlines()[-1])]
    return sum(a == b for a, b in zip(predicted, classes, strict=True)) / len(classes)


def test_tensorflow(train, store, flowers, framework_python) -> None:
    ran, home = train("TENSORFLOW", "2.15", epochs=100)
    assert "recognised" in ran.output
    names = store.names("c")
    assert "model-tensorflow/saved_model.pb" in names
    assert "ck-tensorflow/checkpoint" in names
    assert "ck-tensorflow/cp-0100.ckpt.index" in names
    code = (
        "import tensorflow as tf; serve = tf.saved_model.load(model).signatures['serving_default']\n"
        "answer = serve(tf.constant(rows))['probabilities'].numpy().tolist()"
    )
    python = framework_python("TENSORFLOW", "2.15")
    assert accuracy(python, code, home / "model", flowers[1], flowers[2]) > 0.9
    again, _ = train("TENSORFLOW", "2.15", epochs=120, batch_size=32, learning_rate=0.001)
    assert "going on from" in again.output
    assert "Epoch 101/120" in again.output
    assert "layer ready (cached)" in again.output


def test_pytorch(train, store, flowers, framework_python) -> None:
    _ran, home = train("PYTORCH", "2.13", epochs=100, model_name="flowers")
    names = store.names("c")
    assert "model-pytorch/model-store/flowers.mar" in names
    assert "ck-pytorch/cp-0100.pt" in names
    properties = store.content("c", "model-pytorch/config/config.properties").decode()
    assert '"flowers": {"1.0"' in properties
    with zipfile.ZipFile(BytesIO(store.content("c", "model-pytorch/model-store/flowers.mar"))) as archive:
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
        archive.extractall(home / "unpacked")
    assert manifest["model"]["modelName"] == "flowers"
    code = (
        "import torch; sys.path.insert(0, model); from model import IrisNetwork; network = IrisNetwork()\n"
        "network.load_state_dict(torch.load(model + '/weights.pt', weights_only=True))\n"
        "answer = network(torch.tensor(rows)).tolist()"
    )
    assert accuracy(framework_python("PYTORCH", "2.13"), code, home / "unpacked", flowers[1], flowers[2]) > 0.9
    again, _ = train("PYTORCH", "2.13", epochs=110, model_name="flowers")
    assert "going on from" in again.output
    assert "epoch 110:" in again.output
    assert "epoch 100:" not in again.output
