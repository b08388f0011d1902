"""The environments of one machine: directories named by content, built once, shared read-only.

`<root>/<digest>` is a relocatable virtual environment with `environment.json` in it, which is written last: a directory that has it
is whole. Names that begin with a dot are the builder's (locks, half-built directories, downloaded interpreters). Reading this store
is cheap and needs no tool; building is `build`'s business, mounting is the sandbox's.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from modelyard.compute.port import Environment

FACTS_FILE = "environment.json"
_LOCKS_DIRECTORY = ".locks"
_USED_DIRECTORY = ".used"
_LOCK_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class EnvironmentFacts:
    """What is known of a built environment; the content of its `environment.json`.

    Attributes:
        digest, name, python, requirements, core_type: as asked (`Environment`).
        python_version: the interpreter's whole version, e.g. `3.11.7`.
        executable: the base interpreter's real executable, an absolute path of this machine.
        base_prefix: the directory that holds the base interpreter and its standard library. A sandbox mounts it at the same path.
        library_directories: more directories of shared libraries that the interpreter needs, outside `base_prefix`.
        site_packages: where packages lie, relative to the environment.
        packages: what was installed, pinned, one each.
        installer: `uv` or `pip`.
        size_bytes: of all files, each counted once.
        built_at: ISO 8601 in UTC. `build_seconds`: how long it took.
        warnings: sentences for people, e.g. that a CUDA build had to be taken for a CPU image.
    """

    digest: str
    name: str
    python: str
    requirements: tuple[str, ...]
    core_type: str
    python_version: str
    executable: str
    base_prefix: str
    library_directories: tuple[str, ...]
    site_packages: str
    packages: tuple[str, ...]
    installer: str
    size_bytes: int
    built_at: str
    build_seconds: float
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The content of the file."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> EnvironmentFacts:
        """Raises ValueError for anything but a whole file of this version."""
        raw: Any = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError("not an object")  # noqa: TRY004 -- the content is wrong, not a caller's type
        fields = cast("dict[str, Any]", raw)
        known = {name: fields[name] for name in EnvironmentFacts.__dataclass_fields__ if name in fields}
        lists = ("requirements", "library_directories", "packages", "warnings")
        known |= {name: tuple(known[name]) for name in lists if name in known}
        try:
            return EnvironmentFacts(**known)
        except TypeError as error:
            raise ValueError(str(error)) from None


class EnvironmentStore:
    """The environments below `root`. Making one is cheap; it reads the disk at each question."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, environment: Environment) -> Path:
        """Where the environment is, or will be."""
        return self.root / environment.digest

    def python(self, environment: Environment) -> Path:
        """Its interpreter, outside the sandbox."""
        return self.path(environment) / "bin" / "python"

    def is_built(self, environment: Environment) -> bool:
        """Whether it is whole and its base interpreter is still there (an upgrade of the system may have taken that away)."""
        return (self.path(environment) / FACTS_FILE).is_file() and self.python(environment).exists()

    def facts(self, environment: Environment) -> EnvironmentFacts | None:
        """What is known of it, or None where it is not built."""
        return _read_facts(self.path(environment)) if self.is_built(environment) else None

    def list_built(self) -> tuple[EnvironmentFacts, ...]:
        """All environments that are whole, the newest first."""
        try:
            names = [entry.name for entry in os.scandir(self.root) if not entry.name.startswith(".") and entry.is_dir()]
        except FileNotFoundError:
            return ()
        built = [facts for name in names if (facts := _read_facts(self.root / name)) is not None]
        return tuple(sorted(built, key=lambda facts: facts.built_at, reverse=True))

    def size_bytes(self, environment: Environment | None = None) -> int:
        """The size of one environment (0 where it is not built), or of all of them."""
        if environment is None:
            return sum(facts.size_bytes for facts in self.list_built())
        facts = self.facts(environment)
        return facts.size_bytes if facts else 0

    def note_use(self, environment: Environment) -> None:
        """It is needed now: remember that, for when there are too many."""
        mark = self.root / _USED_DIRECTORY / environment.digest
        with suppress(OSError):  # a store that can't be written to is cleaned by nobody here either
            mark.parent.mkdir(mode=0o755, exist_ok=True)
            mark.touch()

    def used_at(self, facts: EnvironmentFacts) -> float:
        """When it was last needed, in seconds since 1970; when it was built, if never."""
        try:
            return (self.root / _USED_DIRECTORY / facts.digest).stat().st_mtime
        except OSError:
            return datetime.fromisoformat(facts.built_at).timestamp()

    def remove(self, environment: Environment) -> bool:
        """Delete it; answers whether there was anything. The caller sees to it that nothing runs in it."""
        with environment_lock(self.root, environment.digest):
            return self._remove(environment.digest)

    def remove_unused(self, digest: str, used_at: float) -> bool:
        """Delete it unless it was needed since that moment; answers whether it went. The caller sees to it that nothing runs in it."""
        with environment_lock(self.root, digest):
            facts = _read_facts(self.root / digest)
            return facts is not None and self.used_at(facts) <= used_at and self._remove(digest)

    def _remove(self, digest: str) -> bool:
        trash = self.root / f".removing-{digest}-{os.getpid()}"
        try:
            (self.root / digest).rename(trash)
        except FileNotFoundError:
            return False
        shutil.rmtree(trash, ignore_errors=True)
        return True


def spec_json(environment: Environment) -> str:
    """An environment as the builder's `--spec` file."""
    return json.dumps(asdict(environment), indent=2) + "\n"


def read_spec(text: str) -> Environment:
    """The environment of a `--spec` file. Raises ValueError that names the field."""
    raw: Any = json.loads(text)
    if not isinstance(raw, dict):
        raise ValueError("the specification must be a JSON object")  # noqa: TRY004 -- as above
    fields = cast("dict[str, Any]", raw)
    for name in ("name", "python"):
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise ValueError(f"{name}: must be a text")
    requirements = fields.get("requirements")
    if not isinstance(requirements, list) or not all(isinstance(each, str) for each in cast("list[Any]", requirements)):
        raise ValueError("requirements: must be a list of texts")
    core_type = fields.get("core_type", "CPU")
    if core_type not in ("CPU", "GPU"):
        raise ValueError("core_type: must be CPU or GPU")
    return Environment(
        name=fields["name"],
        python=fields["python"],
        requirements=tuple(cast("list[str]", requirements)),
        core_type=core_type,
    )


@contextmanager
def environment_lock(root: Path, digest: str, waiting: Callable[[], None] | None = None) -> Generator[int]:
    """Hold the environment against all other builders and removers of this machine; yields the lock's file descriptor.

    A process that inherits the descriptor holds the lock as well, until it ends: an installer that outlives a killed builder keeps
    the next one waiting instead of writing into its work. `waiting` is called while another holds it, several times a second.
    """
    directory = root / _LOCKS_DIRECTORY
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    descriptor = os.open(directory / digest, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waiting is not None:
                    waiting()
                time.sleep(_LOCK_POLL_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


def open_to_readers(path: Path) -> int:
    """Let every user read the tree (0755 and 0644), nobody but the owner write; answers its size in bytes, each inode counted once."""
    seen: set[tuple[int, int]] = set()
    size = 0
    path.chmod(0o755)
    for directory, names, files in os.walk(path):
        for name in names + files:
            entry = os.path.join(directory, name)  # noqa: PTH118 -- tens of thousands of entries; Path objects cost seconds
            status = os.lstat(entry)
            if stat.S_ISLNK(status.st_mode):
                continue
            is_executable = stat.S_ISDIR(status.st_mode) or status.st_mode & 0o111
            mode = 0o755 if is_executable else 0o644
            if stat.S_IMODE(status.st_mode) != mode:
                os.chmod(entry, mode)  # noqa: PTH101 -- as above
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                size += status.st_blocks * 512
    return size


def _read_facts(path: Path) -> EnvironmentFacts | None:
    try:
        return EnvironmentFacts.from_json((path / FACTS_FILE).read_text())
    except (OSError, ValueError):
        return None
