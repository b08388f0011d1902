"""Flowers: the data set of the journeys, and the scripts that learn it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

EXAMPLES = Path(__file__).parents[2] / "examples/iris"

# Keras 3 has no SavedModel in `save`: the example with the two lines that its users have to change.
KERAS_3_CHANGES = (
    ("cp-{{epoch:04d}}.ckpt", "cp-{{epoch:04d}}.weights.h5"),
    ('            save_freq="epoch",\n            period=50,\n', ""),
    ("model.save(os.environ", "model.export(os.environ"),
)


@dataclass(frozen=True)
class Flowers:
    """What is learnt from, as a directory with train.csv, and what is asked afterwards."""

    directory: Path
    measures: list[list[float]]
    classes: list[int]

    def accuracy(self, predictions: Sequence[Sequence[float]]) -> float:
        """The share of the flowers that were recognised, from the scores of the three classes for each."""
        assert len(predictions) == len(self.classes)
        guesses = [max(range(3), key=list(scores).__getitem__) for scores in predictions]
        return sum(guess == kind for guess, kind in zip(guesses, self.classes, strict=True)) / len(self.classes)


def split_flowers(directory: Path) -> Flowers:
    """Every fifth flower is kept for the test."""
    from sklearn.datasets import load_iris

    measures, classes = load_iris(return_X_y=True)
    rows = [(list(map(float, row)), int(kind)) for row, kind in zip(measures, classes, strict=True)]
    lines = [",".join(map(str, [*row, kind])) for number, (row, kind) in enumerate(rows) if number % 5]
    header = "sepal_length,sepal_width,petal_length,petal_width,class"
    (directory / "train.csv").write_text("\n".join([header, *lines]) + "\n")
    kept = rows[::5]
    return Flowers(directory, [row for row, _ in kept], [kind for _, kind in kept])


def write_source(framework: str, version: str, directory: Path) -> Path:
    """The algorithm directory for an image."""
    for path in (EXAMPLES / framework.lower()).iterdir():
        if path.is_file():
            (directory / path.name).write_bytes(path.read_bytes())
    if (framework, version) == ("TENSORFLOW", "2.21"):
        script = directory / "train.py"
        text = script.read_text()
        for old, new in KERAS_3_CHANGES:
            assert old in text, f"the example no longer has {old!r}"
            text = text.replace(old, new)
        script.write_text(text)
    return directory


def ask(url: str, body: dict[str, object], ca_file: str) -> httpx.Response:
    """POST to an inference URL; over HTTPS only the platform's CA is trusted."""
    import ssl

    trust: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca_file) if url.startswith("https:") else False
    with httpx.Client(verify=trust, timeout=60.0) as client:
        return client.post(url, json=body)
