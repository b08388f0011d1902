"""Tables of what the platform answers."""

from __future__ import annotations

import pytest

from modelyard.cli.endpoints import TRAFFIC_COLUMNS
from modelyard.cli.forms import Output
from modelyard.cli.printing import show_many


def test_paths_lead_through_lists_and_past_nulls(capsys: pytest.CaptureFixture[str]) -> None:
    def stage(name: str, weight: int, *models: str) -> dict[str, object]:
        return {"name": name, "weight": weight, "modelList": [{"modelName": model} for model in models]}

    entry = {"since": "now", "stageList": [stage("default", 90, "iris"), stage("canary", 10, "new", "other")]}
    show_many([entry], TRAFFIC_COLUMNS[:4], Output.TABLE)
    show_many([{"a": None, "b": 2}, {"a": 1}, {}], [("A", "a|b")], Output.TABLE)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["SINCE", "STAGES", "WEIGHTS", "MODELS"],
        ["now", "default", "90", "iris"],
        ["canary", "10", "new,", "other"],
        ["A"],
        ["2"],
        ["1"],
        ["-"],
    ]
