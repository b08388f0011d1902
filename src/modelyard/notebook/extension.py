"""The part that Jupyter loads: what the platform has to say to whoever looks at the page (`labextension` shows it)."""

from __future__ import annotations

import json
import os
from importlib import import_module
from typing import Any

_PATH = "modelyard/notices"


def _jupyter_server_extension_points() -> list[dict[str, str]]:  # pyright: ignore[reportUnusedFunction]  # Jupyter looks for this name
    return [{"module": "modelyard.notebook.extension"}]


def _load_jupyter_server_extension(app: Any) -> None:  # pyright: ignore[reportUnusedFunction]  # Jupyter looks for this name
    handlers: Any = import_module("jupyter_server.base.handlers")
    web: Any = import_module("tornado.web")
    path = os.path.join(os.environ["MODELYARD_NOTEBOOK_RUN"], "notices.json")

    class Notices(handlers.APIHandler):  # pyright: ignore[reportUntypedBaseClass]  # Jupyter is not installed beside the platform
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

    url: Any = import_module("jupyter_server.utils").url_path_join
    app.web_app.add_handlers(".*$", [(url(app.web_app.settings["base_url"], _PATH), Notices)])
