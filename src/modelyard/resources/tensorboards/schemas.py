"""TensorBoards on the wire."""

from __future__ import annotations

from modelyard.wire import Header, Wire


class TensorBoardOut(Wire):
    """The TensorBoard of a training or an experiment. `accessUri` never changes and starts it when it is opened."""

    owner_id: str
    tensorboard_status_code: str
    status_message: str | None = None
    access_uri: str


class TensorBoardOne(Wire):
    """Answer about one TensorBoard."""

    header: Header = Header()
    tensorboard: TensorBoardOut
