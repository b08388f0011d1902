"""TensorBoard on a Unix socket: `python -m modelyard.serving.tensorboard SOCKET LOGDIR [PATH_PREFIX]`.

TensorBoard itself only listens on a port, which everything on the machine could reach, and so does the data server that it brings along; here
it gets another server, and reads event files in its own process.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_RELOAD_SECONDS = "2"


class UnixServer:
    """What TensorBoard wants of a server (`tensorboard.program.TensorBoardServer`): its WSGI application on the socket, a thread a request."""

    def __init__(self, address: str, application: Any) -> None:
        self._address = address
        self._server = import_module("werkzeug.serving").make_server(f"unix://{address}", 0, application, threaded=True)

    def serve_forever(self) -> None:
        """Serve until ended."""
        Path(self._address).chmod(0o660)
        self._server.serve_forever()

    def get_url(self) -> str:
        """An address with a port, since TensorBoard writes one down; nothing listens there."""
        return "http://localhost:1"

    def print_serving_message(self) -> None:
        """One line for the view's log."""
        print(f"TensorBoard listens at {self._address}", flush=True)


def main() -> None:
    """Serve until ended."""
    address, logdir, prefix = sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""

    def _server(application: Any, _flags: Any) -> UnixServer:
        return UnixServer(address, application)

    plugins = import_module("tensorboard.default").get_plugins()
    board = import_module("tensorboard.program").TensorBoard(plugins=plugins, server_class=_server)
    flags = ["--logdir", logdir, "--reload_interval", _RELOAD_SECONDS, "--load_fast", "false"]
    board.configure(argv=["tensorboard", *flags, *(["--path_prefix", prefix] if prefix else [])])
    sys.exit(board.main())


if __name__ == "__main__":
    main()
