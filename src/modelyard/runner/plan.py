"""The plan of a run: all that the runner is told, as values that the server writes and the runner reads.

The server builds a `Plan` from a training or an endpoint and puts `to_json` into the instance's files; the runner reads it back with
`from_json`. Nothing here touches a disk or a network, so both sides may import it. The values are named tuples, because the import of
`dataclasses` (with inspect, ast and tokenize behind it) would take longer than the runner's whole start.
"""

from __future__ import annotations

from modelyard.runner import jsons
from modelyard.runner.light import NamedTuple, cast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    _T = TypeVar("_T")


PYTHON = "{interpreter}"
"""As `Main.argv[0]`: the interpreter of the run, which is the requirements layer's where there is one, else the image's."""

ON_SUCCESS = "success"
ALWAYS = "always"


class BadPlan(ValueError):
    """The plan can't be read; the message names the field and what was expected."""


class Fetch(NamedTuple):
    """Something to bring into the instance before the start.

    Attributes:
        target: absolute path of the directory that receives it; of the file itself when `is_file`.
        label: the path as the user wrote it, for messages.
        container_url: `http(s)://host/v1/AUTH_x/container`, a container of the platform's front door; empty when `path` is given.
        prefix: the directory inside the container (`a/b` means everything below `a/b/`, or the object `a/b` itself where nothing is
            below); empty for the whole container. The object's exact name when `is_file`.
        path: a mounted directory or file to copy from, instead of a container.
        is_required: finding nothing is a failure; otherwise the run starts without it.
        is_checkpoint: take the newest complete checkpoint that is there, where a manifest says what that is.
        record: under this key the report says what was listed; empty for not.
    """

    target: str
    label: str
    container_url: str = ""
    prefix: str = ""
    path: str = ""
    is_file: bool = False
    is_required: bool = True
    is_checkpoint: bool = False
    record: str = ""


class Look(NamedTuple):
    """A mounted directory whose listing goes into the report under the key `record`."""

    record: str
    path: str


class Upload(NamedTuple):
    """A directory whose content is to be kept.

    Attributes:
        source: absolute path of the directory.
        label: the destination as the user wrote it, for messages.
        container_url, prefix: where objects go: `{prefix}/{relative path}` in the container.
        path: a mounted directory to copy to, instead of a container.
        sync_seconds: also copy what changed this often while the user's process runs; None for only at the end.
        on: `success` uploads after exit code 0 alone, `always` also after a failure or a stop.
    """

    source: str
    label: str
    container_url: str = ""
    prefix: str = ""
    path: str = ""
    sync_seconds: float | None = None
    on: str = ON_SUCCESS


class Required(NamedTuple):
    """A file that must be there once everything is fetched, and the sentence to say when it is not."""

    path: str
    message: str


class Main(NamedTuple):
    """The user's process: no shell touches `argv`; `env` is all of its environment beside HOME, PATH, LANG and TMPDIR."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str


class Gang(NamedTuple):
    """How the script runs in several processes that find each other.

    Attributes:
        node: which instance this is, in digits; a text, because the platform fills it in late.
        size: how many instances there are.
        peers_path: the file in which the platform says where all of them are, once all are ready; the script starts then.
        processes: with torchrun, the processes of each instance; 0 for one process without torchrun.
        shared: variables that name a directory which the instances share. All but the first instance get `instance-{node}` below it, so that
            none writes into another's files.
    """

    node: str
    size: int
    peers_path: str
    processes: int = 0
    shared: tuple[str, ...] = ()


class Resume(NamedTuple):
    """From the second attempt on, `variable` names `directory` where that holds something: what the attempt before has left.

    Attributes:
        attempt: which attempt this is, from 0, in digits; a text, because the platform fills it in late.
    """

    attempt: str
    variable: str
    directory: str


class Plan(NamedTuple):
    """What a run consists of.

    Attributes:
        requirements: path of a requirements.txt that is installed when it exists; None for never.
        image_digest: names the content of the image's environment; a part of the layer's key.
        cache_dir: where layers are kept, shared by the runs of a project.
        data_cache: where files that runs of the project have fetched before are kept by md5 and size; empty for nowhere.
        data_door: the Unix socket through which fetched files are offered to that cache; empty for none.
        data_storage: the instance's storage, and its size in GiB as it was asked for: what to name when it is full.
        directories: made before the process starts, as the sources of uploads are anyway.
        token: sent as `X-Auth-Token` to every container.
        report_path: the JSON file that says how far the run is; empty for none.
        grace_seconds: from SIGTERM to SIGKILL for the user's processes; uploads come after it.
        replace_process: become the main process instead of watching it (no uploads then), for model servers.
        gang: the other processes of the script; None where it is alone.
        resume: what a later attempt begins with; None for nothing.
        retry_seconds: how long a store that doesn't answer is waited for, counted from its last sign of life.
    """

    main: Main
    fetches: tuple[Fetch, ...] = ()
    looks: tuple[Look, ...] = ()
    must_exist: tuple[Required, ...] = ()
    requirements: str | None = None
    image_digest: str = ""
    cache_dir: str = ""
    data_cache: str = ""
    data_door: str = ""
    data_storage: str = ""
    data_storage_gib: float = 0.0
    directories: tuple[str, ...] = ()
    uploads: tuple[Upload, ...] = ()
    token: str = ""
    report_path: str = ""
    grace_seconds: float = 30.0
    replace_process: bool = False
    retry_seconds: float = 300.0
    gang: Gang | None = None
    resume: Resume | None = None

    def to_json(self) -> str:
        """The plan as a JSON object with the attributes' names as keys."""
        import json  # noqa: PLC0415 - the server writes plans, the runner only reads them

        # Marks in it, which the place of the run fills in, are searched for as they are.
        return json.dumps(_as_object(self), ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Plan:
        """Read what `to_json` wrote. Raises `BadPlan`."""
        try:
            content = jsons.loads(text)
        except ValueError as error:
            raise BadPlan(f"the plan is not JSON: {error}") from None
        return _plan(_Fields(content, "plan"))


def _as_object(plan: Plan) -> dict[str, Any]:
    content: dict[str, Any] = plan._asdict()
    content["main"] = plan.main._asdict()
    for name, part in (("gang", plan.gang), ("resume", plan.resume)):
        content[name] = None if part is None else part._asdict()
    for name in ("fetches", "looks", "must_exist", "uploads"):
        content[name] = [item._asdict() for item in content[name]]
    return content


def _plan(fields: _Fields) -> Plan:
    main = fields.one("main", _main)
    plan = Plan(
        main=main,
        fetches=fields.many("fetches", _fetch),
        looks=fields.many("looks", _look),
        must_exist=fields.many("must_exist", _required),
        requirements=fields.text("requirements") if fields.has("requirements") else None,
        image_digest=fields.text("image_digest", ""),
        cache_dir=fields.text("cache_dir", ""),
        data_cache=fields.text("data_cache", ""),
        data_door=fields.text("data_door", ""),
        data_storage=fields.text("data_storage", ""),
        data_storage_gib=fields.number("data_storage_gib", 0.0),
        directories=fields.texts("directories"),
        uploads=fields.many("uploads", _upload),
        token=fields.text("token", ""),
        report_path=fields.text("report_path", ""),
        grace_seconds=fields.number("grace_seconds", 30.0),
        replace_process=fields.flag("replace_process", False),
        retry_seconds=fields.number("retry_seconds", 300.0),
        gang=fields.one("gang", _gang) if fields.has("gang") else None,
        resume=fields.one("resume", _resume) if fields.has("resume") else None,
    )
    if plan.replace_process and plan.uploads:
        raise BadPlan("plan.uploads: a process that replaces the runner leaves nobody to upload")
    if plan.requirements and not plan.cache_dir:
        raise BadPlan("plan.cache_dir: requirements need a cache directory")
    return plan


def _main(fields: _Fields) -> Main:
    argv = fields.texts("argv")
    if not argv:
        raise BadPlan(f"{fields.where}.argv: expected a program")
    for index, argument in enumerate(argv):
        if "\0" in argument:
            raise BadPlan(f"{fields.where}.argv[{index}]: a NUL character can't be passed to a process")
    env = fields.pairs("env")
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise BadPlan(f"{fields.where}.env: {name!r} can't be an environment variable")
    return Main(argv=argv, env=env, cwd=fields.text("cwd"))


def _fetch(fields: _Fields) -> Fetch:
    fetch = Fetch(
        target=fields.text("target"),
        label=fields.text("label"),
        container_url=fields.text("container_url", ""),
        prefix=fields.text("prefix", ""),
        path=fields.text("path", ""),
        is_file=fields.flag("is_file", False),
        is_required=fields.flag("is_required", True),
        is_checkpoint=fields.flag("is_checkpoint", False),
        record=fields.text("record", ""),
    )
    if bool(fetch.path) == bool(fetch.container_url):
        raise BadPlan(f"{fields.where}: expected either container_url or path")
    if fetch.is_file and fetch.container_url and not fetch.prefix:
        raise BadPlan(f"{fields.where}.prefix: expected the object's name")
    return fetch


def _look(fields: _Fields) -> Look:
    return Look(record=fields.text("record"), path=fields.text("path"))


def _upload(fields: _Fields) -> Upload:
    upload = Upload(
        source=fields.text("source"),
        label=fields.text("label"),
        container_url=fields.text("container_url", ""),
        prefix=fields.text("prefix", ""),
        path=fields.text("path", ""),
        sync_seconds=fields.number("sync_seconds", 0.0) if fields.has("sync_seconds") else None,
        on=fields.text("on", ON_SUCCESS),
    )
    if bool(upload.path) == bool(upload.container_url):
        raise BadPlan(f"{fields.where}: expected either container_url or path")
    if upload.on not in (ON_SUCCESS, ALWAYS):
        raise BadPlan(f"{fields.where}.on: expected '{ON_SUCCESS}' or '{ALWAYS}', not {upload.on!r}")
    if upload.sync_seconds is not None and upload.sync_seconds <= 0:
        raise BadPlan(f"{fields.where}.sync_seconds: expected more than 0")
    return upload


def _gang(fields: _Fields) -> Gang:
    gang = Gang(
        node=fields.digits("node"),
        size=int(fields.number("size", 0.0)),
        peers_path=fields.text("peers_path"),
        processes=int(fields.number("processes", 0.0)),
        shared=fields.texts("shared"),
    )
    if not int(gang.node) < gang.size:
        raise BadPlan(f"{fields.where}.node: expected less than the size, which is {gang.size}, not {gang.node}")
    return gang


def _resume(fields: _Fields) -> Resume:
    return Resume(fields.digits("attempt"), fields.text("variable"), fields.text("directory"))


def _required(fields: _Fields) -> Required:
    return Required(path=fields.text("path"), message=fields.text("message"))


class _Fields:
    """A JSON object whose fields are read by type; every complaint names the place."""

    def __init__(self, content: object, where: str) -> None:
        if not isinstance(content, dict):
            raise BadPlan(f"{where}: expected an object")
        self.where = where
        self._content = cast("dict[str, Any]", content)

    def has(self, name: str) -> bool:
        return self._content.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        value = self._content.get(name, default)
        if not isinstance(value, str):
            raise BadPlan(f"{self.where}.{name}: expected a text")
        return value

    def digits(self, name: str) -> str:
        value = self.text(name)
        if not (value.isascii() and value.isdigit()):
            raise BadPlan(f"{self.where}.{name}: expected a number in digits, not {value!r}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._content.get(name, default)
        if not isinstance(value, bool):
            raise BadPlan(f"{self.where}.{name}: expected true or false")
        return value

    def number(self, name: str, default: float) -> float:
        value = self._content.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise BadPlan(f"{self.where}.{name}: expected a number, not less than 0")
        return float(value)

    def texts(self, name: str) -> tuple[str, ...]:
        items = self._list(name)
        if not all(isinstance(item, str) for item in items):
            raise BadPlan(f"{self.where}.{name}: expected a list of texts")
        return tuple(cast("list[str]", items))

    def pairs(self, name: str) -> dict[str, str]:
        value = self._content.get(name, {})
        if not isinstance(value, dict):
            raise BadPlan(f"{self.where}.{name}: expected an object of texts")
        pairs = cast("dict[str, Any]", value)
        if not all(isinstance(item, str) for item in pairs.values()):
            raise BadPlan(f"{self.where}.{name}: expected an object of texts")
        return pairs

    def one(self, name: str, read: Callable[[_Fields], _T]) -> _T:
        return read(_Fields(self._content.get(name), f"{self.where}.{name}"))

    def many(self, name: str, read: Callable[[_Fields], _T]) -> tuple[_T, ...]:
        return tuple(
            read(_Fields(item, f"{self.where}.{name}[{index}]")) for index, item in enumerate(self._list(name))
        )

    def _list(self, name: str) -> list[Any]:
        value = self._content.get(name, [])
        if not isinstance(value, list):
            raise BadPlan(f"{self.where}.{name}: expected a list")
        return cast("list[Any]", value)
