"""The part that Jupyter loads: what the platform has to say to whoever looks at the page, and what cells have put out
while nobody did (`labextension` shows both)."""

from __future__ import annotations

import json
import os
from importlib import import_module
from typing import Any

_NOTICES = "modelyard/notices"
_OUTPUTS = r"modelyard/outputs/([\w-]+)"


def _jupyter_server_extension_points() -> list[dict[str, str]]:  # pyright: ignore[reportUnusedFunction]  # Jupyter looks for this name
    return [{"module": "modelyard.notebook.extension"}]


def _load_jupyter_server_extension(app: Any) -> None:  # pyright: ignore[reportUnusedFunction]  # Jupyter looks for this name
    base_handlers: Any = import_module("jupyter_server.base.handlers")
    web: Any = import_module("tornado.web")
    path = os.path.join(os.environ["MODELYARD_NOTEBOOK_RUN"], "notices.json")

    class Notices(base_handlers.APIHandler):  # pyright: ignore[reportUntypedBaseClass]  # Jupyter is not installed beside the platform
        """`GET /modelyard/notices`: `{"notices": [{"id", "kind", "text"}]}`."""

        _track_activity = False  # a page that asks now and then is not somebody at work

        @web.authenticated
        def get(self) -> None:
            try:
                with open(path, encoding="utf-8") as file:
                    content: Any = json.load(file)
            except (OSError, ValueError):
                content = {"notices": []}
            self.finish(content)

    recording: Any = import_module("modelyard.notebook.recording")
    recording.watch_saves(app)
    url: Any = import_module("jupyter_server.utils").url_path_join
    base = app.web_app.settings["base_url"]
    handlers = [(url(base, _NOTICES), Notices), (url(base, _OUTPUTS), recording.Outputs)]
    app.web_app.add_handlers(".*$", handlers)
