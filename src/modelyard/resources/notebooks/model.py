"""What a notebook is asked to be, and what is seen of it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class NasMount(_Frozen):
    """A NAS path and the name of the directory at which the notebook sees it."""

    name: str
    uri: str


class NotebookSpec(_Frozen):
    """What was asked for.

    Attributes:
        image_name, framework, framework_version: kept for when the catalogue has changed.
        boot_gib, data_gib: sizes of the storage that is fresh at each start, and of the one that stays.
        idle_minutes: stop after so long without use; None for never.
        skips_scripts: the newest start leaves the start-up scripts out.
        run_id: the workload of the newest start. A new one for each start: boot storage is never found again.
    """

    image_id: str
    image_name: str
    framework: str
    framework_version: str
    flavor_id: str
    flavor_name: str
    boot_gib: int
    data_gib: int
    mounts: tuple[NasMount, ...] = ()
    idle_minutes: int | None = None
    skips_scripts: bool = False
    run_id: str

    @property
    def shape(self) -> str:
        """Two notebooks of one shape differ in nothing that is fixed when a notebook starts, as far as they have no mounts."""
        return f"{self.image_id} {self.flavor_id} {self.boot_gib} {self.data_gib}"


class Step(_Frozen):
    """A step on the way to a usable notebook."""

    name: str
    seconds: float | None = None
    detail: str = ""


class NotebookStatus(_Frozen):
    """What was seen.

    Attributes:
        run_id: the workload that exists; another one than the spec's has to go first.
        given_at: when it was taken from those that were kept ready, if it was and has not been started since.
        asked_at: when the newest stop or deletion was asked for.
        started_at: when the newest start began to run.
        last_activity_at: when somebody or something was last at work inside, as the notebook itself says.
        steps: of the newest start, in order.
        disk: bytes used and in all, by `boot` and `data`, as the notebook itself says.
        kept, reset: environments that a stop keeps, and packages of the default environment that it takes away; as the notebook itself says.
        last_lines: the end of the output of a start that failed.
    """

    run_id: str | None = None
    given_at: datetime | None = None
    asked_at: datetime | None = None
    started_at: datetime | None = None
    last_activity_at: datetime | None = None
    steps: tuple[Step, ...] = ()
    disk: dict[str, tuple[int, int]] = {}
    kept: tuple[str, ...] = ()
    reset: tuple[str, ...] = ()
    last_lines: tuple[str, ...] = ()


class SpareSettings(_Frozen):
    """How many notebooks are kept ready.

    Attributes:
        count: in all; those of the shapes that were created last come first.
        hours: a shape that nobody has created for so long has none.
    """

    count: int = 0
    hours: float = 2.0
