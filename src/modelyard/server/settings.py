"""The settings of a platform: one tree, read once, each leaf with its reason.

They come from `config.toml` in the home, then from the environment (`MODELYARD_HTTP_PORT`, `MODELYARD_COMPUTE__CPU_OVERCOMMIT`), then from the
command line; the later wins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ComputeGroup(_Group):
    """Where workloads run."""

    cpu_overcommit: float = Field(default=4.0, gt=0, description="Cores are promised this many times over.")
    memory_overcommit: float = Field(default=1.0, gt=0, description="Above 1.0 workloads may end each other.")
    memory_reserve_mib: int = Field(default=1024, ge=0, description="Kept for the platform and the system.")
    needs_isolation: bool = Field(default=False, description="Refuse to run workloads that can't be isolated.")
    isolation: Literal["WORKLOAD_USER", "NAMESPACES", "NONE"] = Field(
        default="WORKLOAD_USER", description="Best isolation to try."
    )
    data_cache_gib: float = Field(
        default=20.0,
        ge=0,
        description="What runs have fetched is kept for later runs of the project, so much of it; 0 for none.",
    )
    environments_gib: float = Field(
        default=200.0,
        ge=0,
        description="Built images that nothing uses go when all take more; the longest unused first.",
    )
    layers_gib: float = Field(
        default=20.0, ge=0, description="The same for what requirements.txt files have installed, for each project."
    )
    training_grace_seconds: float = Field(default=30.0, ge=0, description="From a stop to the end by force.")
    project_grace_seconds: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="The same for single projects, by app key: theirs may have more to save."
    )


class ServingGroup(_Group):
    """How model servers answer."""

    max_body_mib: int = Field(default=64, ge=1, description="Larger requests are refused.")
    deadline_seconds: float = Field(default=60.0, gt=0, description="Slower predictions are given up.")
    start_minutes: float = Field(
        default=60.0, gt=0, description="A model server that is not ready by then is given up."
    )
    silent_seconds: float = Field(
        default=60.0, gt=0, description="One that was ready and has not answered for so long is started again."
    )


class ModelGroup(_Group):
    """The model registry."""

    keep_copies: bool = Field(default=False, description="Copy artifacts, unless a request says otherwise.")
    copy_limit_gib: int = Field(default=64, ge=1, description="Larger artifacts are not copied.")


class GatewayGroup(_Group):
    """The front door."""

    names: tuple[str, ...] = Field(default=(), description="More names for the server certificate.")
    public_host: str | None = Field(
        default=None, description="Host and port in endpoint URLs; the HTTPS door when absent."
    )
    certificate: Path | None = Field(default=None, description="Your own certificate instead of the platform's.")
    key: Path | None = Field(default=None, description="The key of your own certificate.")
    repairs_routes: bool = Field(
        default=True, description="Deploy again by itself what somebody took from the gateway; otherwise on request."
    )
    trusted_proxies: int = Field(
        default=0,
        ge=0,
        le=16,
        description="Proxies in front whose word (x-forwarded-for) on a client's address counts.",
    )
    services_per_project: int = Field(default=100, ge=0, description="Quota of endpoints.")
    stages_per_service: int = Field(default=10, ge=1, description="Quota of stages of an endpoint.")
    resources_per_service: int = Field(
        default=100, ge=1, description="Quota of models on all stages of an endpoint together."
    )


class AccessGroup(_Group):
    """How people get at what runs, in a browser."""

    main_url: str | None = Field(
        default=None,
        pattern=r"^https?://[A-Za-z0-9.-]+(:\d{1,5})?$",
        description="Where browsers reach the front door, e.g. https://ml.example.com; its own addresses when absent.",
    )
    workload_domain: str = Field(
        default="localhost",
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="Notebooks and TensorBoards lie on {id}.nb.DOMAIN and {id}.tb.DOMAIN; these names must lead to the front door.",
    )
    workloads_on_main_origin: bool = Field(
        default=False,
        description="They lie on paths of the main origin instead. Their pages, users' code, can then act as whoever looks at them.",
    )
    tensorboard_idle_minutes: float = Field(default=30.0, gt=0, description="One that nobody looks at ends.")
    session_idle_hours: float = Field(default=12.0, gt=0, description="A sign-in that is not used for so long ends.")
    session_hours: float = Field(default=168.0, gt=0, description="Every sign-in ends after so long.")


class NotebookGroup(_Group):
    """How notebooks are looked after."""

    silence_seconds: float = Field(
        default=60.0, ge=5, description="A Jupyter server that answers nothing for so long is started again."
    )
    cpu_share: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="A notebook is counted with this part of its cores where cores are promised: mostly it waits for its user.",
    )
    spares: int = Field(
        default=1,
        ge=0,
        le=100,
        description="So many notebooks are kept ready, started, for the next who creates one like those created lately; 0 for none.",
    )
    spare_hours: float = Field(
        default=2.0, gt=0, description="None is kept ready of a kind that nobody has created for so long."
    )


class RemoteStoreGroup(_Group):
    """An object store elsewhere that `obs://` paths may name."""

    host: str = Field(description="As in obs:// paths, with the port where there is one.")
    kind: str = Field(pattern="^(swift|s3)$")
    url: str | None = Field(default=None, description="Base URL when it is not https://{host}.")
    auth_url: str | None = Field(default=None, description="Keystone (swift).")
    user: str | None = None
    password: str | None = None
    tenants: tuple[str, ...] = ()
    is_read_only: bool = False


class ObjectStoreGroup(_Group):
    """The object store."""

    url: str | None = Field(
        default=None, description="Where blobs lie: a directory of the home, or an s3://, gs://, az:// URL."
    )
    implicit_system_grants: bool = Field(
        default=True,
        description="The system account may use containers of its own tenant on which nobody has set an access list.",
    )
    remotes: tuple[RemoteStoreGroup, ...] = ()
    check_seconds: float = Field(
        default=10.0, gt=0, description="How long a request that names paths waits for a look at each of them."
    )


class SourceSnapshotGroup(_Group):
    """The very sources that trainings ran with, kept so that they can run again."""

    is_enabled: bool = Field(default=True, description="Keep the source of each training.")
    max_mib: float = Field(default=100.0, gt=0, description="Larger sources are not kept.")
    max_files: int = Field(default=10_000, ge=1, description="Sources of more files are not kept.")


class LogGroup(_Group):
    """Searchable logs."""

    retention_days: int = Field(default=30, ge=1, description="Older lines are dropped.")
    hears_app_keys: bool = Field(
        default=False,
        description="Keep lines of senders that show no credential but a project's app key (the official client before 1.0.10).",
    )


class QuotaGroup(_Group):
    """What a project may have at most; no limit when absent."""

    active_trainings: int | None = Field(default=None, ge=0, description="Trainings that have not ended.")
    experiments: int | None = Field(default=None, ge=0, description="Experiments.")


class MetricGroup(_Group):
    """Numbers that runs report."""

    series_per_run: int = Field(default=1000, ge=1, description="Further metrics of a run are not kept.")
    points_per_series: int = Field(default=5_000_000, ge=1, description="Further points of a metric are not kept.")
    usage_days: int = Field(default=90, ge=1, description="How long the use of cores, memory, disk and GPUs is kept.")


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        env_prefix="MODELYARD_", env_nested_delimiter="__", frozen=True, extra="ignore", toml_file=None
    )

    host: str = Field(default="127.0.0.1", description="Address that the front door listens on.")
    http_port: int = Field(default=10090, ge=1, le=65535)
    https_port: int = Field(default=10443, ge=1, le=65535)
    database_url: str | None = Field(default=None, description="PostgreSQL; SQLite in the home when absent.")
    region: str = Field(default="kr1", description="What clients are told; old ones accept kr1 alone.")
    compute: ComputeGroup = ComputeGroup()
    serving: ServingGroup = ServingGroup()
    models: ModelGroup = ModelGroup()
    gateway: GatewayGroup = GatewayGroup()
    access: AccessGroup = AccessGroup()
    notebooks: NotebookGroup = NotebookGroup()
    objectstore: ObjectStoreGroup = ObjectStoreGroup()
    source_snapshots: SourceSnapshotGroup = SourceSnapshotGroup()
    logs: LogGroup = LogGroup()
    quotas: QuotaGroup = QuotaGroup()
    metrics: MetricGroup = MetricGroup()

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        # Loaded only where there is something to check: the command line reads the settings too, and is to be quick.
        from sqlalchemy.engine import make_url  # noqa: PLC0415  # see above
        from sqlalchemy.exc import ArgumentError  # noqa: PLC0415  # see above

        try:
            is_known = make_url(value).get_backend_name() in ("postgresql", "sqlite")
        except (ArgumentError, ValueError):
            is_known = False
        if not is_known:
            raise ValueError("must be of the form postgresql://user:password@host:port/name")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line wins over the environment, that over the file."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))

    @property
    def door_host(self) -> str:
        """The front door's address for those on this machine."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104  # compared, not bound

    @property
    def http_url(self) -> str:
        """The front door without TLS."""
        return f"http://{self.door_host}:{self.http_port}"

    @property
    def https_url(self) -> str:
        """The front door with TLS."""
        return f"https://{self.door_host}:{self.https_port}"

    @property
    def public_host(self) -> str:
        """Host and port in endpoint URLs."""
        return self.gateway.public_host or f"{self.door_host}:{self.https_port}"


def load_settings(config_file: Path, overrides: dict[str, Any]) -> Settings:
    """Read the settings. Raises pydantic's ValidationError, or TOMLDecodeError."""

    class _FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=config_file if config_file.exists() else None)

    return _FromFile(**{name: value for name, value in overrides.items() if value is not None})
