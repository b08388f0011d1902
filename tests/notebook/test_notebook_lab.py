"""What the Jupyter server's start leaves for later is there when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from modelyard.notebook import lab


def test_a_module_that_is_put_off_is_imported_with_its_first_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far_away.py").write_text(
        "import sys\nsys.far_away_count = getattr(sys, 'far_away_count', 0) + 1\n"
        "def add(one, other=0):\n    return one + other\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "far_away_count", 0, raising=False)
    monkeypatch.setitem(sys.modules, "far_away", sys)  # taken away again afterwards
    lab.put_off("far_away", "add")
    add = import_module("far_away").add
    assert vars(sys)["far_away_count"] == 0
    assert add(1, other=2) == 3
    assert add(2) == 2
    assert vars(sys)["far_away_count"] == 1
    assert import_module("far_away").__file__ == str(tmp_path / "far_away.py")
