"""The guide to trainings does what it says: its examples run as they stand, one after the other."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from journey_platform import RunningPlatform, clean_environment

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[2] / "docs/guides/trainings.md"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_guide_run(
    platform: RunningPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"client": platform.client}
    blocks = BLOCK.findall(GUIDE.read_text())
    assert {language for language, _ in blocks} == {"python", "sh"}
    for language, text in blocks:
        if language == "python":
            exec(compile(text, str(GUIDE), "exec"), names)
            continue
        for line in text.splitlines():
            words = shlex.split(line)
            assert words[0] == "modelyard"
            done = subprocess.run(
                [sys.executable, "-m", "modelyard", *words[1:]],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
                env=clean_environment(MODELYARD_HOME=str(platform.home)),
            )
            assert done.returncode == 0, (line, done.stdout, done.stderr)
