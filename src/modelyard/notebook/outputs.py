"""What the cells of a kernel have put out, kept beside the pages that show it.

A page that is closed takes with it what it has not saved, and what is printed after that reaches nobody. So each run of a cell is put
together here a second time, from the request and from what the kernel publishes (Jupyter's messaging protocol 5.3, "Messages on the IOPub
channel"), in the form of a notebook file (nbformat 4). `recording` feeds it, and lets pages and files have it. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, cast

_MAX_BYTES = 8 * 2**20
_TIDY_CHARACTERS = 65536
_SEEN_SECONDS = 2.0
_FULL = "The rest of this output was not kept: it is larger than 8 MiB.\n"
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\n\r])")


class CellRun:
    """One run of a cell: its outputs so far. `outputs` are nbformat's, but for texts that are still in pieces."""

    def __init__(self, message_id: str, cell_id: str, session: str, version: int) -> None:
        self.message_id = message_id
        self.cell_id = cell_id
        self.session = session
        self.version = version
        self.execution_count: int | None = None
        self.done_at: float | None = None
        self._outputs: list[dict[str, Any]] = []
        self._pieces: list[str] = []  # of the last output, where that is a stream
        self._displays: dict[str, list[dict[str, Any]]] = {}
        self._clears_next = False
        self._size = 0

    def hear(self, kind: str, content: Mapping[str, Any]) -> None:
        """Take one published message in."""
        match kind:
            case "execute_input":
                self.execution_count = _count(content)
            case "stream":
                self._add_text(str(content.get("name", "stdout")), str(content.get("text", "")))
            case "display_data" | "execute_result":
                self._add({"output_type": kind, **_shown(content)}, _display(content))
                if kind == "execute_result":
                    self._outputs[-1]["execution_count"] = _count(content)
            case "error":
                fields = {name: content.get(name, empty) for name, empty in _ERROR_FIELDS}
                self._add({"output_type": "error", **fields})
            case "clear_output":
                self._clears_next = bool(content.get("wait"))
                if not self._clears_next:
                    self._clear()
            case _:
                pass

    def show_again(self, content: Mapping[str, Any]) -> bool:
        """Let an `update_display_data` change what was shown under its name; whether there was something."""
        shown = self._displays.get(_display(content) or "", [])
        for output in shown:
            output |= _shown(content)
        return bool(shown)

    def outputs(self) -> list[dict[str, Any]]:
        """The outputs, as a notebook file has them."""
        self._join()
        return self._outputs

    def _add_text(self, name: str, text: str) -> None:
        if not self._has_room(len(text)):
            return
        last = self._outputs[-1] if self._outputs else {}
        if last.get("output_type") != "stream" or last["name"] != name:
            self._join()
            self._outputs.append({"output_type": "stream", "name": name, "text": ""})
        self._pieces.append(text)
        if len(self._pieces) > 1000 or len(text) > _TIDY_CHARACTERS:
            self._join()

    def _add(self, output: dict[str, Any], display: str | None = None) -> None:
        if self._has_room(len(json.dumps(output, default=str))):
            self._join()
            self._outputs.append(output)
            if display is not None:
                self._displays.setdefault(display, []).append(output)

    def _has_room(self, size: int) -> bool:
        """Whether there is room for an output of this size; says so in its place when it has just run out."""
        if self._clears_next:
            self._clear()
        had_room = self._size <= _MAX_BYTES
        self._size += size
        if had_room and self._size > _MAX_BYTES:
            self._join()
            self._outputs.append({"output_type": "stream", "name": "stderr", "text": _FULL})
        return self._size <= _MAX_BYTES

    def _join(self) -> None:
        """One text of the pieces; what a carriage return has overwritten (progress bars) goes, and its room is free again."""
        if self._pieces:
            text = self._outputs[-1]["text"] + "".join(self._pieces)
            shown = _OVERWRITTEN.sub("", text)
            self._size -= len(text) - len(shown)
            self._outputs[-1]["text"] = shown
            self._pieces = []

    def _clear(self) -> None:
        self._outputs, self._pieces, self._displays = [], [], {}
        self._clears_next, self._size = False, 0


class KernelOutputs:
    """The newest run of each cell of one kernel, until it is in a file. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._runs: dict[str, CellRun] = {}  # by cell
        self._by_message: dict[str, CellRun] = {}
        self._version = 0

    def asked(self, header: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        """A page has asked for the run of a cell (`execute_request`; JupyterLab names the cell in the metadata)."""
        message_id, cell_id, session = header.get("msg_id"), metadata.get("cellId"), header.get("session")
        if not isinstance(message_id, str) or not isinstance(cell_id, str) or not isinstance(session, str):
            return
        former = self._runs.pop(cell_id, None)
        if former is not None:
            self._by_message.pop(former.message_id, None)
        run = CellRun(message_id, cell_id, session, self._next())
        self._runs[cell_id] = self._by_message[message_id] = run

    def heard(self, kind: str, parent_id: str, content: Mapping[str, Any]) -> None:
        """The kernel has published something."""
        if kind == "update_display_data":
            for run in self._runs.values():
                if run.show_again(content):
                    run.version = self._next()
            return
        if kind == "status" and content.get("execution_state") in ("starting", "restarting", "dead"):
            self.ended()
            return
        run = self._by_message.get(parent_id)
        if run is None:
            return
        if kind == "status":
            if content.get("execution_state") == "idle":
                self._finish(run)
            return
        run.hear(kind, content)
        run.version = self._next()

    def ended(self) -> None:
        """The kernel is gone or begins anew: nothing more comes of what it was asked."""
        for run in self._runs.values():
            if run.done_at is None:
                self._finish(run)

    def saved(self, cell_ids: Collection[str]) -> None:
        """A page has saved these cells. What was done by then is in its hands: the file says from now on what the cells show."""
        latest = self._clock() - _SEEN_SECONDS
        for cell_id in cell_ids:
            run = self._runs.get(cell_id)
            if run is not None and run.done_at is not None and run.done_at <= latest:
                del self._runs[cell_id], self._by_message[run.message_id]

    def after(self, version: int) -> dict[str, Any]:
        """What has changed since this version, for pages."""
        changed = [run for run in self._runs.values() if run.version > version]
        cells = [
            {
                "cell": run.cell_id,
                "session": run.session,
                "count": run.execution_count,
                "isDone": run.done_at is not None,
                "outputs": run.outputs(),
            }
            for run in changed
        ]
        return {"version": self._version, "cells": cells}

    def fill(self, notebook: Mapping[str, Any]) -> bool:
        """Put the outputs into a notebook's content (nbformat 4); whether that changed anything."""
        is_changed = False
        for cell in _code_cells(notebook):
            run = self._runs.get(str(cell.get("id")))
            if run is None:
                continue
            wanted = {"outputs": run.outputs(), "execution_count": run.execution_count}
            is_changed = is_changed or any(cell.get(name) != value for name, value in wanted.items())
            cell |= wanted
        return is_changed

    def is_empty(self) -> bool:
        """Whether nothing is kept."""
        return not self._runs

    def _finish(self, run: CellRun) -> None:
        run.done_at = self._clock()
        run.version = self._next()

    def _next(self) -> int:
        self._version += 1
        return self._version


def cell_ids(notebook: Any) -> list[str]:
    """Ids of the code cells in the content of a notebook; none where it is something else."""
    return [str(cell["id"]) for cell in _code_cells(notebook) if "id" in cell]


_ERROR_FIELDS: tuple[tuple[str, Any], ...] = (("ename", ""), ("evalue", ""), ("traceback", []))


def _code_cells(notebook: Any) -> Iterator[dict[str, Any]]:
    cells: Any = cast("Mapping[str, Any]", notebook).get("cells") if isinstance(notebook, Mapping) else None
    for cell in cast("list[Any]", cells) if isinstance(cells, list) else []:
        if isinstance(cell, dict) and cast("dict[str, Any]", cell).get("cell_type") == "code":
            yield cast("dict[str, Any]", cell)


def _shown(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content.get(name, {}) for name in ("data", "metadata")}


def _count(content: Mapping[str, Any]) -> int | None:
    value = content.get("execution_count")
    return value if isinstance(value, int) else None


def _display(content: Mapping[str, Any]) -> str | None:
    transient = content.get("transient")
    name = cast("Mapping[str, Any]", transient).get("display_id") if isinstance(transient, Mapping) else None
    return name if isinstance(name, str) else None
