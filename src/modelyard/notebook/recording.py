"""Lets Jupyter keep what cells put out (`outputs`): its kernel manager and its WebSockets with a second listener beside the pages.

Only Jupyter imports this module. A page that is opened later asks `GET /modelyard/outputs/KERNEL` (the page's part is in `labextension`), and
what no page has saved is written into the notebook's file when its kernel ends.
"""

from __future__ import annotations

import json
import time
from importlib import import_module
from typing import Any

from modelyard.notebook.outputs import KernelOutputs, cell_ids

_managers: Any = import_module("jupyter_server.services.kernels.kernelmanager")
_channels: Any = import_module("jupyter_server.services.kernels.connection.channels")
_handlers: Any = import_module("jupyter_server.base.handlers")
_web: Any = import_module("tornado.web")
_deserialize: Any = import_module("jupyter_server.services.kernels.connection.base").deserialize_msg_from_ws_v1
_ensure_async: Any = import_module("jupyter_server.utils").ensure_async

_V1 = "v1.kernel.websocket.jupyter.org"
_REQUEST = b'"execute_request"'
_HEAD_BYTES = 2048


class RecordingKernelManager(_managers.AsyncMappingKernelManager):  # pyright: ignore[reportUntypedBaseClass]  # Jupyter is not installed beside the platform
    """Kernels whose outputs are kept until they are in a file."""

    def __init__(self, **options: Any) -> None:
        jupyter: Any = super()
        jupyter.__init__(**options)
        self.recorded: dict[str, KernelOutputs] = {}

    def start_watching_activity(self, kernel_id: str) -> None:
        """Listen, from when the kernel runs; called again where it has got other ports."""
        jupyter: Any = super()
        jupyter.start_watching_activity(kernel_id)
        kernel = self._kernels[kernel_id]
        outputs = self.outputs_of(kernel_id)
        session = kernel.session.clone()

        def hear(parts: list[Any]) -> None:
            _, message_parts = session.feed_identities(parts)
            message = session.deserialize(message_parts)
            outputs.heard(message["header"]["msg_type"], message["parent_header"].get("msg_id", ""), message["content"])

        stream = kernel.connect_iopub()
        stream.on_recv(hear)
        former, kernel.modelyard_stream = getattr(kernel, "modelyard_stream", None), stream
        if former is not None and not former.socket.closed:
            former.close()

    def stop_watching_activity(self, kernel_id: str) -> None:
        """The kernel is about to end."""
        jupyter: Any = super()
        jupyter.stop_watching_activity(kernel_id)
        stream = getattr(self._kernels[kernel_id], "modelyard_stream", None)
        if stream is not None and not stream.socket.closed:
            stream.close()

    def outputs_of(self, kernel_id: str) -> KernelOutputs:
        """What is kept of a kernel."""
        return self.recorded.setdefault(kernel_id, KernelOutputs(time.monotonic))

    async def shutdown_kernel(self, kernel_id: str, *arguments: Any, **options: Any) -> Any:
        """End one kernel. Where a page is there, that has the outputs, and a file that changes below it is in its way."""
        if not self._kernel_connections.get(kernel_id):
            await self._keep(kernel_id)
        self.recorded.pop(kernel_id, None)
        jupyter: Any = super()
        return await jupyter.shutdown_kernel(kernel_id, *arguments, **options)

    async def shutdown_all(self, *arguments: Any, **options: Any) -> None:
        """End all kernels, with the server: no page can save any more."""
        for kernel_id in list(self.recorded):
            await self._keep(kernel_id)
        jupyter: Any = super()
        await jupyter.shutdown_all(*arguments, **options)

    async def _keep(self, kernel_id: str) -> None:
        """Write what no page has saved into the notebook's file."""
        outputs = self.recorded.get(kernel_id)
        if outputs is None or outputs.is_empty():
            return
        try:
            for session in await _ensure_async(self.parent.session_manager.list_sessions()):
                if session["type"] == "notebook" and session["kernel"]["id"] == kernel_id:
                    await self._fill(session["path"], outputs)
        except Exception as error:  # whatever is wrong with one file, the kernel has to end
            self.log.warning("What the cells have put out could not be kept: %s", error)

    async def _fill(self, path: str, outputs: KernelOutputs) -> None:
        contents = self.parent.contents_manager
        model = await _ensure_async(contents.get(path, content=True, type="notebook"))
        if outputs.fill(model["content"]):
            await _ensure_async(contents.save({name: model[name] for name in ("type", "format", "content")}, path))
            self.log.info("Kept in %s what its cells have put out.", path)


class RecordingConnection(_channels.ZMQChannelsWebsocketConnection):  # pyright: ignore[reportUntypedBaseClass]  # see above
    """A page's connection to a kernel: which cell a request is for is said nowhere else."""

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """What the page sends."""
        if self.subprotocol == _V1 and _REQUEST in incoming_msg[:_HEAD_BYTES]:
            channel, parts = _deserialize(incoming_msg)
            if channel == "shell":
                header, metadata = json.loads(parts[0]), json.loads(parts[2])
                self.multi_kernel_manager.outputs_of(self.kernel_id).asked(header, metadata)
        jupyter: Any = super()
        jupyter.handle_incoming_message(incoming_msg)


class Outputs(_handlers.APIHandler):  # pyright: ignore[reportUntypedBaseClass]  # see above
    """`GET /modelyard/outputs/KERNEL?after=VERSION`: `{"version", "cells": [{"cell", "session", "count", "isDone", "outputs"}]}`."""

    _track_activity = False  # a page that asks now and then is not somebody at work

    @_web.authenticated
    def get(self, kernel_id: str) -> None:
        """What has changed since this version."""
        outputs = self.kernel_manager.recorded.get(kernel_id)
        after = self.get_query_argument("after", "0")
        version = int(after) if after.isdecimal() else 0
        self.finish({"version": 0, "cells": []} if outputs is None else outputs.after(version))


def watch_saves(app: Any) -> None:
    """Let go of what pages have saved."""

    def before_save(model: dict[str, Any], **_: Any) -> None:
        if model.get("type") == "notebook":
            saved = cell_ids(model.get("content"))
            for outputs in app.kernel_manager.recorded.values():
                outputs.saved(saved)

    app.contents_manager.register_pre_save_hook(before_save)
