"""The configuration file: what to serve, where to listen, and the limits. Written by the platform, read once at the start."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from modelyard.serving.errors import LoadFailed

FORMATS = ("auto", "TENSORFLOW", "PYTORCH", "ONNX", "SKLEARN")
DEFAULT_SOCKET = "/run/modelyard/http.sock"
DEFAULT_REPORT = "/run/modelyard/report.json"


@dataclass(frozen=True)
class ServingConfig:
    """Everything the server is told. Keys of the JSON file are the attributes' names.

    Attributes:
        model_dir: the directory of the artifact.
        model_name: the name that the paths carry.
        model_version: what callers see as the version; a numbered directory of the artifact wins over it.
        format: `TENSORFLOW`, `PYTORCH`, `ONNX`, `SKLEARN`, or `auto`: whatever is found.
        listen: a path (or `unix:path`) for a Unix socket, or `host:port`.
        max_body_bytes: larger bodies get 413.
        deadline_seconds: slower predictions get 504.
        queue_size: how many requests may wait beside those that are being answered; more get 429.
        max_batch_size: up to so many rows of different requests are predicted together; 1 is off.
        max_batch_delay_ms: how long a request may wait for others that are on their way to join it.
        log_sample_rate: which part of the inferences is logged, 0 to 1.
        log_max_bytes: more of a logged body is cut off.
        threads: prediction threads; 0 lets the model decide (an archive's handler always has one).
        cpus: how many processors the instance may use; 0 means as many as the process sees.
        drain_seconds: how long requests in flight may go on after SIGTERM.
        report_path: where the progress is written; empty for nowhere.
        work_dir: an existing directory that archives are unpacked below; empty for the system's temporary directory.
        cache_dir: a directory that other servers of the project on this machine see too; empty for none.
        warm_up: whether one prediction is made with zeros before the server says that it is ready.
        converts_to_onnx: whether a SavedModel is answered for by ONNX Runtime once its converted graphs were seen to agree.
        workers: how many processes answer, each on a socket of its own (`http.sock`, `http1.sock` …); fewer where the memory is short.
        memory_bytes: what all processes may take together; 0 is not known.
        peers: sockets of all processes of this server; what one tells in its metrics is said of all.
        parameters: settings of the user's, name to value; handlers see them as `context.system_properties["parameters"]`.
    """

    model_dir: str
    model_name: str
    model_version: str = "1"
    format: str = "auto"
    listen: str = DEFAULT_SOCKET
    max_body_bytes: int = 64 * 1024 * 1024
    deadline_seconds: float = 60.0
    queue_size: int = 128
    max_batch_size: int = 1
    max_batch_delay_ms: float = 5.0
    log_sample_rate: float = 0.0
    log_max_bytes: int = 4096
    threads: int = 0
    cpus: float = 0.0
    drain_seconds: float = 30.0
    report_path: str = DEFAULT_REPORT
    work_dir: str = ""
    cache_dir: str = ""
    warm_up: bool = True
    converts_to_onnx: bool = False
    workers: int = 1
    memory_bytes: int = 0
    peers: Sequence[str] = ()
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def processor_count(self) -> int:
        """How many threads can run at the same time, at least 1."""
        return max(1, round(self.cpus)) if self.cpus > 0 else max(1, len(os.sched_getaffinity(0)))

    @property
    def socket_path(self) -> Path | None:
        """The Unix socket to serve, or None where it is a host and a port."""
        text = self.listen.removeprefix("unix:")
        return Path(text) if "/" in text else None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to serve. Only valid without a `socket_path`."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]") or "127.0.0.1", int(port)


def read_config(path: Path) -> ServingConfig:
    """The configuration in a file. Raises `LoadFailed` with every fault named."""
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise LoadFailed(f"the configuration {path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise LoadFailed(f"the configuration {path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise LoadFailed(f"the configuration {path} is not a JSON object")
    return parse_config(cast("dict[str, Any]", values))


def parse_config(values: Mapping[str, Any]) -> ServingConfig:
    """The configuration in a mapping. Raises `LoadFailed` with every fault named."""
    known = {entry.name: entry for entry in fields(ServingConfig)}
    faults = [f"'{name}' is not a setting" for name in values if name not in known]
    faults += [f"'{name}' is missing" for name in ("model_dir", "model_name") if not values.get(name)]
    faults += [_type_fault(name, known[name].type, value) for name, value in values.items() if name in known]
    faults = [fault for fault in faults if fault]
    if not faults:
        config = ServingConfig(**values)
        faults = _value_faults(config)
        if not faults:
            return config
    raise LoadFailed("the configuration is wrong: " + "; ".join(faults))


def _type_fault(name: str, wanted: object, value: object) -> str:
    kinds: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
    kinds["Sequence[str]"] = (list, tuple)
    accepted = kinds.get(str(wanted), (dict,))
    is_right = isinstance(value, accepted) and (bool in accepted or not isinstance(value, bool))
    return "" if is_right else f"'{name}' must be {wanted}, not {type(value).__name__}"


def _value_faults(config: ServingConfig) -> list[str]:
    faults = [
        f"'{name}' must be above 0" for name in ("max_body_bytes", "deadline_seconds") if getattr(config, name) <= 0
    ]
    faults += [
        f"'{name}' must not be negative"
        for name in (
            "queue_size",
            "threads",
            "cpus",
            "drain_seconds",
            "max_batch_delay_ms",
            "log_max_bytes",
            "memory_bytes",
        )
        if getattr(config, name) < 0
    ]
    faults += [f"'{name}' must be at least 1" for name in ("max_batch_size", "workers") if getattr(config, name) < 1]
    if config.workers > 1 and config.socket_path is None:
        faults.append("'workers' above 1 needs a Unix socket in 'listen'")
    if not 0 <= config.log_sample_rate <= 1:
        faults.append("'log_sample_rate' must be between 0 and 1")
    if config.format not in FORMATS:
        faults.append(f"unknown format '{config.format}'; known are {', '.join(FORMATS)}")
    if config.socket_path is None:
        _, separator, port = config.listen.rpartition(":")
        if not separator or not port.isdigit() or int(port) > 65535:
            faults.append(f"'listen' must be the path of a socket or host:port, not '{config.listen}'")
    return faults
