"""The catalogue's own environments, really built: frameworks import, and the guide's script runs as it is printed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.compute.backends.local.environments import FACTS_FILE, EnvironmentFacts

pytestmark = pytest.mark.slow

GUIDE_SCRIPT = """
import os
import numpy
import tensorflow

features = numpy.random.default_rng(7).normal(size=(150, 4)).astype("float32")
labels = (features[:, 0] > 0).astype("int32")
model = tensorflow.keras.Sequential([
    tensorflow.keras.layers.Dense(8, activation="relu", input_shape=(4,)),
    tensorflow.keras.layers.Dense(2, activation="softmax"),
])
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
callbacks = [
    tensorflow.keras.callbacks.ModelCheckpoint(
        filepath=f'{os.environ.get("EM_CHECKPOINT_DIR")}/cp-{{epoch:04d}}.ckpt', save_freq='epoch', period=50),
    tensorflow.keras.callbacks.TensorBoard(log_dir=f'{os.environ.get("EM_TENSORBOARD_LOG_DIR")}'),
]
model.fit(features, labels, validation_data=(features, labels), epochs=100, batch_size=50, verbose=0, callbacks=callbacks)

model_dir = os.environ.get("EM_MODEL_DIR")
model.save(model_dir)
"""


def run(python: Path, script: str, **variables: str) -> str:
    """What the script prints, run without this process's Python settings."""
    environment = {"PATH": os.defpath, "HOME": str(Path.home()), "TF_CPP_MIN_LOG_LEVEL": "3"} | variables
    done = subprocess.run([python, "-c", script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def facts_of(python: Path) -> EnvironmentFacts:
    return EnvironmentFacts.from_json((python.parent.parent / FACTS_FILE).read_text())


def test_the_guides_script_runs_on_the_default_tensorflow(
    framework_python: Callable[[str, str], Path], tmp_path: Path
) -> None:
    python = framework_python("TENSORFLOW", "")
    places = {"EM_CHECKPOINT_DIR": "checkpoints", "EM_TENSORBOARD_LOG_DIR": "logs", "EM_MODEL_DIR": "model"}
    run(python, GUIDE_SCRIPT, **{name: str(tmp_path / directory) for name, directory in places.items()})
    assert (tmp_path / "model" / "saved_model.pb").is_file()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["cp-0050.ckpt", "cp-0100.ckpt"]
    assert list((tmp_path / "logs" / "train").glob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("framework", "version", "script", "printed"),
    [
        (
            "TENSORFLOW",
            "2.15",
            "import tensorflow as f, keras; print(f.__version__, keras.__version__)",
            "2.15.1 2.15.0",
        ),
        ("TENSORFLOW", "2.21", "import tensorflow as f, keras; print(f.__version__, keras.__version__[0])", "2.21.0 3"),
        ("PYTORCH", "2.13", "import torch, torch.utils.tensorboard; print(torch.__version__.split('+')[0])", "2.13.0"),
        ("PYTHON", "3.11", "import sys; print('%d.%d' % sys.version_info[:2])", "3.11"),
    ],
)
def test_frameworks_are_there_side_by_side(
    framework_python: Callable[[str, str], Path], framework: str, version: str, script: str, printed: str
) -> None:
    python = framework_python(framework, version)
    assert run(python, script) == printed
    assert facts_of(python).python_version.startswith("3.11.")


@pytest.mark.parametrize(
    ("framework", "version"), [("TENSORFLOW", "2.15"), ("TENSORFLOW", "2.21"), ("PYTORCH", "2.13")]
)
def test_framework_images_can_serve_and_never_hold_cuda(
    framework_python: Callable[[str, str], Path], framework: str, version: str
) -> None:
    python = framework_python(framework, version)
    run(python, "import httptools, granian, orjson, numpy, tensorboard, pip")
    names = json.loads(
        run(python, "import importlib.metadata as m, json; print(json.dumps([d.name for d in m.distributions()]))")
    )
    assert not [name for name in names if name.lower().startswith(("nvidia", "triton", "cuda"))]
    assert facts_of(python).warnings == ()


def test_nothing_compiles_at_import(framework_python: Callable[[str, str], Path]) -> None:
    """A read-only environment that lacked bytecode would compile thousands of files at each start."""
    python = framework_python("TENSORFLOW", "2.15")
    script = (
        "import sys, tensorflow, os; print(sum(not os.path.exists(m.__cached__) for m in list(sys.modules.values()) \
if getattr(m, '__cached__', None) and '/site-packages/' in (m.__file__ or '')))"
    )
    assert run(python, script, PYTHONDONTWRITEBYTECODE="1") == "0"
