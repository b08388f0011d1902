"""Which interpreter an image gets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.version import Version

from modelyard.compute.backends.local.buildable import check_buildable
from modelyard.compute.backends.local.gpus import Gpu, find_gpus
from modelyard.compute.backends.local.interpreters import (
    Interpreter,
    NoSuchPython,
    choose_interpreter,
    find_interpreters,
    obtain_interpreter,
    python_specifier,
)
from modelyard.compute.port import Environment

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
FOUND = tuple(
    Interpreter(Path(f"/opt/python{v}"), Version(v))
    for v in ("3.14.0rc1", "3.13.0", "3.12.1", "3.11.7", "3.11.2", "3.9.18")
)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("3.11", "3.11.7"),
        ("3.11.2", "3.11.2"),
        (">=3.9,<3.12", "3.11.7"),
        (">=3.9", "3.13.0"),
        ("~=3.9.1", "3.9.18"),
        ("3.14", "3.14.0rc1"),
        ("3.10", None),
        ("3.1", None),
        ("==3.12.*", "3.12.1"),
    ],
)
def test_the_newest_that_fits(wanted: str, chosen: str | None) -> None:
    found = choose_interpreter(wanted, FOUND)
    assert (str(found.version) if found else None) == chosen


@pytest.mark.parametrize("wanted", ["", "  ", "three", "3.x", ">=", "3.11; rm"])
def test_nonsense_is_refused(wanted: str) -> None:
    with pytest.raises(ValueError, match="Python version"):
        python_specifier(wanted)


def test_this_machine_has_the_interpreter_under_the_platform() -> None:
    found = find_interpreters()
    assert HERE in {each.minor for each in found}
    assert all(each.executable.is_absolute() and each.executable.exists() for each in found)
    assert [each.version for each in found] == sorted((each.version for each in found), reverse=True)


def test_settings_of_another_user_stop_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(self: Path, pattern: str) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setenv("PYENV_ROOT", "/of/another/user")
    monkeypatch.setattr(Path, "glob", closed)
    assert HERE in {each.minor for each in find_interpreters()}


def test_no_such_python_says_what_is_there_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    with pytest.raises(NoSuchPython) as caught:
        obtain_interpreter("3.2", tmp_path)
    message = str(caught.value)
    assert "needs Python 3.2" in message
    assert HERE in message
    assert "install Python 3.2" in message


def test_doctor_tells_what_can_be_built(tmp_path: Path) -> None:
    fine = Environment("Fine", HERE, ("six==1.16.0",))
    impossible = Environment("Impossible", "3.2", ())
    first, second = check_buildable([fine, impossible], tmp_path / "not" / "there" / "yet")
    assert (first.is_built, first.can_build) == (False, True)
    assert f"Python {HERE}" in first.message
    assert (second.is_built, second.can_build) == (False, False)
    assert "install it" in second.message


def test_gpus_by_device_files(tmp_path: Path) -> None:
    assert find_gpus(tmp_path, tool=str(tmp_path / "missing")) == ()
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    found = find_gpus(tmp_path, tool=str(tmp_path / "missing"))
    assert [gpu.index for gpu in found] == [0, 2, 10]


def test_gpus_by_the_drivers_tool(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, NVIDIA A100-SXM4-40GB, 40960'\necho '1, NVIDIA GB10, [N/A]'\n")
    tool.chmod(0o755)
    assert find_gpus(tmp_path, tool=str(tool)) == (
        Gpu(0, "NVIDIA A100-SXM4-40GB", 40960 * 1024**2),
        Gpu(1, "NVIDIA GB10", None),
    )
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert find_gpus(tmp_path / "none", tool=str(tool)) == ()
