"""What a handler is told about its model and its requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.serving.torchserve.metrics.metrics_store import MetricsStore


class RequestProcessor:
    """Headers of one request, and what the handler wants of its answer."""

    def __init__(self, request_header: Mapping[str, str]) -> None:
        self._request_header = {name.lower(): value for name, value in request_header.items()}
        self._response_header: dict[str, str] = {}
        self._status: tuple[int, str] | None = None

    def get_request_property(self, key: str) -> str | None:
        """A request header, by any case."""
        return self._request_header.get(key.lower())

    def get_request_properties(self) -> dict[str, str]:
        """All request headers, lower case."""
        return self._request_header

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of the answer."""
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, str]:
        """The headers of the answer that were set."""
        return self._response_header

    def get_response_header(self) -> dict[str, str]:
        """The headers of the answer that were set."""
        return self._response_header

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Set the status of the answer."""
        self._status = (int(code), reason_phrase or "")

    def get_response_status_code(self) -> int | None:
        """The status that was set."""
        return self._status[0] if self._status else None

    def get_response_status_phrase(self) -> str | None:
        """The phrase that was set with the status."""
        return self._status[1] if self._status else None


class Context:
    """A handler's view of the server.

    Attributes:
        system_properties: `model_dir`, `gpu_id`, `batch_size`, `server_name`, `server_version` and more.
        manifest: the archive's manifest, as the document.
        model_yaml_config: the archive's configuration file, parsed; empty without one.
        request_ids: position in the batch to request id.
    """

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: Mapping[str, Any],
        batch_size: int,
        gpu: int | None,
        mms_version: str,
        limit_max_image_pixels: bool = True,
        metrics: Any = None,
        model_yaml_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self.model_yaml_config = dict(model_yaml_config or {})
        self.metrics = metrics or MetricsStore(model_name)
        self.explain = False
        self.cache: dict[str, Any] = {}
        self.request_ids: dict[int, str] = {0: ""}
        self._processors: list[RequestProcessor] = [RequestProcessor({})]
        self._system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "MMS",
            "server_version": mms_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }

    @property
    def system_properties(self) -> dict[str, Any]:
        """What the server tells the handler."""
        return self._system_properties

    @property
    def request_processor(self) -> list[RequestProcessor]:
        """One per request of the batch."""
        return self._processors

    @request_processor.setter
    def request_processor(self, processors: list[RequestProcessor]) -> None:
        self._processors = processors

    def begin(self, request_id: str, headers: Mapping[str, str]) -> None:
        """Start a batch with one request."""
        self.request_ids = {0: request_id}
        self._processors = [RequestProcessor(headers)]

    def get_request_id(self, idx: int = 0) -> str:
        """The id of a request."""
        return self.request_ids.get(idx, self.request_ids[0])

    def get_request_header(self, idx: int, key: str) -> str | None:
        """A header of a request, by any case."""
        return self._processor(idx).get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        """All headers of a request."""
        return self._processor(idx).get_request_properties()

    def get_sequence_id(self, idx: int) -> str:
        """The id of a sequence of requests; there are none here."""
        return self.get_request_header(idx, "ts_request_sequence_id") or ""

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the answer's content type."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        """The content type that was set."""
        return self._processor(idx).get_response_headers().get("content-type")

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of the answer."""
        self._processor(idx).add_response_property(key, value)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """The headers that were set."""
        return self._processor(idx).get_response_headers()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the answer's status."""
        self._processor(idx).report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set the status of all answers of the batch."""
        for processor in self._processors:
            processor.report_status(code, phrase)

    def get_response_status(self, idx: int) -> tuple[int | None, str | None]:
        """The status and phrase that were set."""
        processor = self._processor(idx)
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def _processor(self, idx: int) -> RequestProcessor:
        # With KServe's envelope one request has many rows, which share its answer.
        return self._processors[idx] if idx < len(self._processors) else self._processors[0]
