"""What cells have put out, put together from a kernel's messages."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.notebook import outputs as module
from modelyard.notebook.outputs import KernelOutputs, cell_ids


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kernel(clock: Clock) -> KernelOutputs:
    """Page `p` has asked for the run `m` of cell `c`."""
    made = KernelOutputs(clock)
    made.asked({"msg_id": "m", "session": "p"}, {"cellId": "c"})
    return made


def shown(kernel: KernelOutputs) -> Any:
    return kernel.after(0)["cells"][0]["outputs"]


def text(content: str, name: str = "stdout") -> dict[str, str]:
    return {"name": name, "text": content}


def test_every_kind_of_output_in_order(kernel: KernelOutputs) -> None:
    kernel.heard("execute_input", "m", {"code": "x", "execution_count": 7})
    for content in (text("a"), text("b\n"), text("no", "stderr"), text("c")):
        kernel.heard("stream", "m", content)
    kernel.heard("display_data", "m", {"data": {"text/plain": "1"}, "metadata": {}, "transient": {"display_id": "d"}})
    kernel.heard("execute_result", "m", {"data": {"text/plain": "2"}, "metadata": {"x": 1}, "execution_count": 7})
    kernel.heard("error", "m", {"ename": "E", "evalue": "v", "traceback": ["t"]})
    kernel.heard("stream", "another", text("not of a cell"))
    kernel.heard("update_display_data", "later", {"data": {"text/plain": "3"}, "transient": {"display_id": "d"}})
    [cell] = kernel.after(0)["cells"]
    assert (cell["cell"], cell["session"], cell["count"], cell["isDone"]) == ("c", "p", 7, False)
    assert cell["outputs"] == [
        {"output_type": "stream", "name": "stdout", "text": "ab\n"},
        {"output_type": "stream", "name": "stderr", "text": "no"},
        {"output_type": "stream", "name": "stdout", "text": "c"},
        {"output_type": "display_data", "data": {"text/plain": "3"}, "metadata": {}},
        {"output_type": "execute_result", "data": {"text/plain": "2"}, "metadata": {"x": 1}, "execution_count": 7},
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]},
    ]


def test_progress_bars_and_cleared_outputs(kernel: KernelOutputs) -> None:
    for step in range(2000):
        kernel.heard("stream", "m", text(f"\r{step} %"))
    kernel.heard("stream", "m", text("\r\ndone\r\n"))
    assert shown(kernel)[0]["text"] == "1999 %\r\ndone\r\n"
    kernel.heard("clear_output", "m", {"wait": True})
    assert shown(kernel) != []
    kernel.heard("stream", "m", text("new"))
    assert [output["text"] for output in shown(kernel)] == ["new"]
    kernel.heard("clear_output", "m", {"wait": False})
    assert shown(kernel) == []


def test_what_is_too_large_is_cut_and_says_so(kernel: KernelOutputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_BYTES", 1000)
    for _ in range(50):
        kernel.heard("stream", "m", text("x" * 100))
    kernel.heard("error", "m", {"ename": "E", "evalue": "v", "traceback": []})
    first, last = shown(kernel)
    assert first["text"] == "x" * 1000
    assert "larger than" in last["text"]


def test_only_what_is_new_is_told(kernel: KernelOutputs) -> None:
    kernel.asked({"msg_id": "n", "session": "p"}, {"cellId": "d"})
    version = kernel.after(0)["version"]
    assert kernel.after(version)["cells"] == []
    kernel.heard("stream", "n", text("x"))
    assert [cell["cell"] for cell in kernel.after(version)["cells"]] == ["d"]
    version = kernel.after(0)["version"]
    kernel.heard("status", "m", {"execution_state": "busy"})
    kernel.heard("status", "m", {"execution_state": "idle"})
    assert [(cell["cell"], cell["isDone"]) for cell in kernel.after(version)["cells"]] == [("c", True)]
    kernel.heard("status", "", {"execution_state": "restarting"})
    assert all(cell["isDone"] for cell in kernel.after(0)["cells"])


def test_what_a_page_has_saved_is_its_own(kernel: KernelOutputs, clock: Clock) -> None:
    kernel.saved(["c"])
    assert not kernel.is_empty(), "it runs"
    kernel.heard("status", "m", {"execution_state": "idle"})
    kernel.saved(["c"])
    assert not kernel.is_empty(), "the page may not have seen its end"
    clock.now += 10.0
    kernel.saved(["other"])
    assert not kernel.is_empty()
    kernel.saved(["c"])
    assert kernel.is_empty()
    kernel.heard("stream", "m", text("late"))
    assert kernel.is_empty()


def test_a_run_replaces_the_one_before(kernel: KernelOutputs) -> None:
    kernel.heard("stream", "m", text("old"))
    kernel.asked({"msg_id": "n", "session": "q"}, {"cellId": "c"})
    kernel.heard("stream", "m", text("late"))
    kernel.heard("stream", "n", text("new"))
    [cell] = kernel.after(0)["cells"]
    assert (cell["session"], cell["outputs"][0]["text"]) == ("q", "new")


def test_a_file_gets_what_is_missing(kernel: KernelOutputs) -> None:
    kernel.heard("execute_input", "m", {"execution_count": 3})
    kernel.heard("stream", "m", text("kept"))
    notebook: dict[str, Any] = {
        "cells": [
            {"cell_type": "markdown", "id": "c"},
            {"cell_type": "code", "id": "c", "outputs": [], "execution_count": None},
            {"cell_type": "code", "id": "e", "outputs": [], "execution_count": None},
        ]
    }
    assert cell_ids(notebook) == ["c", "e"]
    assert kernel.fill(notebook)
    assert notebook["cells"][1]["outputs"] == [{"output_type": "stream", "name": "stdout", "text": "kept"}]
    assert notebook["cells"][1]["execution_count"] == 3
    assert notebook["cells"][2]["outputs"] == []
    assert not kernel.fill(notebook), "nothing is new"


@pytest.mark.parametrize("content", [None, [], {"cells": None}, {"cells": [1, {"cell_type": "code"}]}])
def test_what_is_no_notebook_has_no_cells(content: Any) -> None:
    assert cell_ids(content) == []


def test_requests_without_a_cell_are_nobody_s(clock: Clock) -> None:
    kernel = KernelOutputs(clock)
    kernel.asked({"msg_id": "m", "session": "p"}, {})
    kernel.asked({}, {"cellId": "c"})
    assert kernel.is_empty()
