"""Small trainings on the PYTHON image: scripts that tests write, and the calls around them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from journey_platform import RunningPlatform

from modelyard.resources.trainings.schemas import TrainingOut

PYTHON_IMAGE = "Ubuntu 22.04 CPU Python 3.11 Training"
SMALL_FLAVOR = "c2.c1m1"
RUN_SECONDS = 120.0


def upload_script(platform: RunningPlatform, directory: Path, place: str, script: str, **files: str) -> str:
    """Upload `train.py` with this text, and more files by name (`_` stands for a dot); the place."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "train.py").write_text(textwrap.dedent(script))
    for name, text in files.items():
        (directory / name.replace("_", ".")).write_text(text)
    platform.client.storage.upload(directory, place)
    return place


def start_script(platform: RunningPlatform, name: str, source: str, **fields: Any) -> TrainingOut:
    """A training of an uploaded `train.py`, not waited for. It makes its experiment in place."""
    chosen: Mapping[str, Any] = {
        "new_experiment": "journeys",
        "image": PYTHON_IMAGE,
        "flavor": SMALL_FLAVOR,
        "entry_point": "train.py",
        "model_upload": f"{source.partition('/')[0]}/output/{name}",
        "timeout_minutes": 10,
        **fields,
    }
    return platform.client.trainings.create(name, source=source, **chosen)


def finish(platform: RunningPlatform, training: TrainingOut, seconds: float = RUN_SECONDS) -> TrainingOut:
    """Wait until it is COMPLETE."""
    return platform.client.trainings.wait(training.id, timeout_seconds=seconds)


def output_of(platform: RunningPlatform, training: TrainingOut, instance: int = 0) -> str:
    """All that an instance has printed."""
    return "".join(platform.client.trainings.logs(training.id, instance=instance))
