"""The packages that an archive brings a `requirements.txt` for, laid over the image's own, which is read-only and stays as it is."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from modelyard.serving.errors import LoadFailed

_TIMEOUT_SECONDS = 1800


def install_requirements(
    requirements: Path, target: Path, *, what: str = "requirements.txt of the archive", is_alone: bool = False
) -> None:
    """Install what the image lacks and put it on the path of this process. Raises `LoadFailed` with pip's reason.

    With `is_alone` what is named is installed without what that needs, and the path stays as it is. `what` begins the sentence of a failure.

    The place is an environment that sees the image's packages, so that pip takes what is there as installed and does not fetch a
    framework a second time.
    """
    if not any(
        line.strip() and not line.strip().startswith("#")
        for line in requirements.read_text(encoding="utf-8").splitlines()
    ):
        return
    venv.create(target, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(target), "platbase": str(target)}))
    image = sysconfig.get_path("purelib")
    (packages / "image.pth").write_text(f"{image}\n", encoding="utf-8")
    # -m with the image's own pip: the environment was made without one, and sees it through the line above.
    command = [
        str(target / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        *(["--no-deps"] if is_alone else []),
        "-r",
        str(requirements),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoadFailed(f"{what} can't be installed: {error}") from error
    print(done.stdout, done.stderr, sep="", file=sys.stderr, flush=True)
    if done.returncode != 0:
        raise LoadFailed(f"{what} can't be installed: {_reason(done.stderr or done.stdout)}")
    if not is_alone:
        sys.path.insert(0, str(packages))


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip gave no reason"])[-1].removeprefix("ERROR:").strip()
