"""Event files that the frameworks themselves write, against what TensorBoard's own loader reads from the same files."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.eventfiles.reading import read_new

pytestmark = pytest.mark.slow

_LOADER = """
import json, os, sys
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

found = {}
root = sys.argv[1]
for place, _, names in os.walk(root):
    if any("tfevents" in name for name in names):
        loader = EventAccumulator(place, tensor_size_guidance=None, size_guidance={"tensors": 0})
        loader.Reload()
        prefix = os.path.relpath(place, root)
        for tag in loader.Tags()["tensors"]:
            if loader.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
                name = tag if prefix == "." else f"{prefix}/{tag}"
                rows = [(e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in loader.Tensors(tag)]
                found[name] = [(step, repr(value)) for step, value in rows]
print("RESULT" + json.dumps(found))
"""
_TENSORFLOW = """
import sys
import numpy as np
import tensorflow as tf

root = sys.argv[1]
writer = tf.summary.create_file_writer(root + "/v2/deep")
with writer.as_default():
    for step in range(40):
        tf.summary.scalar("loss", 1 / (step + 1), step=step)
        tf.summary.scalar("double", tf.constant(1 / 3, tf.float64), step=step)
        tf.summary.scalar("odd", float("nan") if step % 2 else float("inf"), step=step)
    tf.summary.histogram("weights", np.random.rand(100), step=0)
    tf.summary.text("words", "hello", step=0)
    tf.summary.image("image", np.random.rand(1, 8, 8, 3), step=0)
writer.close()
with tf.Graph().as_default():
    old = tf.compat.v1.summary.FileWriter(root + "/v1")
    for step in range(40):
        value = tf.compat.v1.Summary.Value(tag="loss_1", simple_value=step / 7)
        old.add_summary(tf.compat.v1.Summary(value=[value]), step)
    old.close()
model = tf.keras.Sequential([tf.keras.layers.Input((3,)), tf.keras.layers.Dense(1)])
model.compile("sgd", "mse", metrics=["mae"])
data = np.random.rand(64, 3), np.random.rand(64, 1)
callback = tf.keras.callbacks.TensorBoard(root + "/keras", update_freq=1, histogram_freq=1)
model.fit(*data, epochs=3, batch_size=16, validation_data=data, callbacks=[callback], verbose=0)
"""
_TORCH = """
import math, sys
import numpy as np
from torch.utils.tensorboard import SummaryWriter

root = sys.argv[1]
with SummaryWriter(root + "/plain") as writer:
    for step in range(40):
        writer.add_scalar("loss/train", 1 / (step + 1), step)
        writer.add_scalar("new", step / 3, step, new_style=True)
        writer.add_scalar("double", step / 3, step, new_style=True, double_precision=True)
        writer.add_scalar("odd", math.nan if step % 2 else -math.inf, step)
        writer.add_scalars("both", {"one": step, "other": -step}, step)
    writer.add_histogram("weights", np.random.rand(100), 0)
    writer.add_image("image", np.random.rand(3, 8, 8), 0)
    writer.add_text("words", "hello", 0)
    writer.add_hparams({"lr": 0.1}, {"hparam/accuracy": 0.5}, run_name="tried")
"""


_TENSORFLOW_COUNTS = {"v2/deep/loss": 40, "v2/deep/double": 40, "v1/loss_1": 40, "keras/validation/epoch_loss": 3}
_TORCH_COUNTS = {"plain/loss/train": 40, "plain/new": 40, "plain/both_one/both": 40, "plain/tried/hparam/accuracy": 1}


@pytest.mark.parametrize(
    ("framework", "version", "script", "expected"),
    [
        ("TENSORFLOW", "2.15", _TENSORFLOW, _TENSORFLOW_COUNTS),
        ("TENSORFLOW", "2.21", _TENSORFLOW, _TENSORFLOW_COUNTS),
        ("PYTORCH", "2.13", _TORCH, _TORCH_COUNTS),
    ],
)
def test_all_scalars_are_read_as_tensorboard_reads_them(
    framework_python: Callable[[str, str], Path],
    framework: str,
    version: str,
    script: str,
    expected: dict[str, int],
    tmp_path: Path,
) -> None:
    python = framework_python(framework, version)
    root = tmp_path / "logs"
    _run(python, script, root)
    by_tensorboard = {
        name: [(step, float(text)) for step, text in rows]
        for name, rows in json.loads(_run(python, _LOADER, root).partition("RESULT")[2]).items()
    }
    found: dict[str, list[tuple[int, float]]] = {}
    for piece in read_new(str(root), {}, 1 << 30, 1 << 30).pieces:
        assert (piece.end, piece.corrupt_bytes, piece.bad_events) == (piece.size, 0, 0)
        points = piece.points
        for index, step, value in zip(points.series, points.steps, points.values, strict=True):
            found.setdefault(points.names[index], []).append((step, value))
    assert {name: len(found[name]) for name in expected} == expected
    assert _comparable(found) == _comparable(by_tensorboard)


def _run(python: Path, script: str, root: Path) -> str:
    done = subprocess.run(
        [python, "-c", script, str(root)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(root.parent),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _comparable(found: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, str]]]:
    return {
        name: sorted((step, "nan" if math.isnan(value) else repr(value)) for step, value in rows)
        for name, rows in found.items()
    }
