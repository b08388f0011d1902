"""Builds the environments that tests use, into the store that they look in (`tests/conftest.py`).

`make test` runs it beside the first tests, which need none. A test whose environment is not there yet waits for it, or builds it itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from modelyard.compute.backends.local.build import build_environment
from modelyard.compute.backends.local.build_errors import BuildFailed
from modelyard.resources.images.catalog import load_catalog, to_environment

# In the order in which tests come to them.
IMAGES = (
    "Ubuntu 22.04 CPU TensorFlow 2.15 Training",
    "Ubuntu 22.04 CPU PyTorch 2.13 Training",
    "Ubuntu 22.04 CPU Python 3.11 Training",
    "Ubuntu 22.04 CPU TensorFlow 2.21 Training",
    "Ubuntu 22.04 CPU Python 3.11 Notebook",
    "Ubuntu 22.04 CPU ONNX Runtime 1.31 Serving",
    "Ubuntu 22.04 CPU scikit-learn 1.9 Serving",
)


def main() -> None:
    """Build what is missing, one after the other; what can't be built is told again, and why, by the test that needs it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    images = {image.name: image for image in load_catalog()}
    for name in IMAGES:
        try:
            build_environment(
                to_environment(images[name]),
                cache / "modelyard-tests" / "environments",
                lambda step, message, progress: None,
            )
        except (BuildFailed, OSError) as failure:
            print(f"{name}: {failure}")


if __name__ == "__main__":
    main()
