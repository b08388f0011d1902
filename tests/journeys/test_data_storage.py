"""Data storage that is full is named with its size and what to do; large data sets and strange requirements come through."""

from __future__ import annotations

from pathlib import Path

import pytest
from journey_platform import RunningPlatform
from journey_scripts import finish, output_of, start_script, upload_script

from modelyard.sdk.errors import WaitFailed

pytestmark = pytest.mark.slow

FILL = """
    with open("/workspace/big", "wb") as file:
        for _ in range(1300):
            file.write(bytes(1 << 20))
"""

LOCAL_PACKAGE = """
    import local_words
    print("the package says", local_words.WORD)
"""


def test_a_full_data_storage_is_told_with_its_size(platform: RunningPlatform, tmp_path: Path) -> None:
    source = upload_script(platform, tmp_path / "source", "storage/source", FILL)
    training = start_script(platform, "full", source, data_storage_size=1)
    with pytest.raises(WaitFailed, match="Out of space: its") as failed:
        finish(platform, training)
    assert "data storage of 1 G" in str(failed.value)
    assert "larger data storage" in str(failed.value)
    assert platform.client.trainings.get(training.id).training_status_code == "FAIL_TRAIN"


def test_a_package_beside_the_script_is_installed(platform: RunningPlatform, tmp_path: Path) -> None:
    place = tmp_path / "source"
    (place / "local words").mkdir(parents=True)
    (place / "local words/local_words.py").write_text("WORD = 'hello'\n")
    (place / "local words/setup.py").write_text(
        "from setuptools import setup\nsetup(name='local-words', version='1', py_modules=['local_words'])\n"
    )
    source = upload_script(platform, place, "local/source", LOCAL_PACKAGE, requirements_txt="./local words\n")
    training = finish(platform, start_script(platform, "local", source))
    assert "the package says hello" in output_of(platform, training)
