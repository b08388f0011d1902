"""Bringing source, data and checkpoints into the instance before the start.

Everything is listed first, so that a missing path, an unsafe name or a lack of room is told before the first byte is written, and so
that progress has a total. How one object arrives is `download`'s matter.
"""

from __future__ import annotations

import os
import time

from modelyard.runner.batches import COUNT, SMALL_BYTES, batches
from modelyard.runner.copying import copy_file
from modelyard.runner.crew import work_through
from modelyard.runner.datacache import DataCache
from modelyard.runner.download import download, keep
from modelyard.runner.figures import format_bytes, format_count, format_rate
from modelyard.runner.journal import Journal
from modelyard.runner.light import NamedTuple, suppress
from modelyard.runner.listing import describe
from modelyard.runner.manifest import MANIFEST, Member, chosen, from_text, is_own
from modelyard.runner.names import SEGMENTS_PREFIX, UnsafeName, check_name
from modelyard.runner.outcomes import BAD_SOURCE, NO_SPACE, NotInStore, StepFailed
from modelyard.runner.patience import Transient
from modelyard.runner.plan import Fetch, Plan
from modelyard.runner.stop import Stop
from modelyard.runner.swift import Container, Small, Stored, seconds_of
from modelyard.runner.tally import Tally
from modelyard.runner.tree import LocalFile, scan
from modelyard.runner.upload import path_token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeVar

    _Place = TypeVar("_Place")

_TRIES = 4
"""How often a checkpoint is looked at whose writer goes on to write newer ones."""


def fetch_all(plan: Plan, journal: Journal, stop: Stop, cache: DataCache | None = None) -> str:
    """Carry out all fetches of the plan, from the cache what it has; a line of figures. Raises `StepFailed`."""
    cache = cache or DataCache("", "")
    begun = time.monotonic()
    found: dict[Fetch, list[_Arrival]] = {}
    for fetch in plan.fetches:
        stop.check()
        found[fetch] = _announced(fetch, plan, journal, stop)
    size = sum(arrival.size for arrivals in found.values() for arrival in arrivals)
    for fetch in plan.fetches:
        _check_room(fetch, size)

    due = [arrival for arrivals in found.values() for arrival in arrivals]
    for _ in range(_TRIES):
        tally = Tally(len(due), sum(arrival.size for arrival in due))
        replaced = _bring_all(due, cache, tally, journal, stop)
        if not replaced:
            break
        for fetch in replaced:
            for arrival in found[fetch]:
                with suppress(FileNotFoundError):
                    os.unlink(arrival.target)
            journal.say(f"{fetch.label} has got a newer checkpoint meanwhile: fetching that one")
            found[fetch] = _announced(fetch, plan, journal, stop)
        due = [arrival for fetch in replaced for arrival in found[fetch]]
    else:
        raise StepFailed(
            f"{due[0].origin.label if due else 'A checkpoint'} gets newer checkpoints faster than one of them can be fetched. Stop the run "
            "that writes them, or copy one of them to another path and give that.",
            BAD_SOURCE,
        )
    arrivals = [arrival for each in found.values() for arrival in each]
    size = sum(arrival.size for arrival in arrivals)
    seconds = time.monotonic() - begun
    figures = f"{format_count(len(arrivals), 'file')}, {format_bytes(size)} in {seconds:.1f} s"
    figures += format_rate(size, seconds)
    if cache.found_count:
        figures += f" ({format_count(cache.found_count, 'file')} from the project's cache)"
    journal.say(f"fetched {figures}")
    return figures


def _announced(fetch: Fetch, plan: Plan, journal: Journal, stop: Stop) -> list[_Arrival]:
    """What a fetch consists of, told to the user and to the report."""
    found = _survey(fetch, plan, journal, stop)
    if fetch.record:
        journal.record(fetch.record, describe(arrival.line(fetch.target) for arrival in found))
    if found:
        size = sum(arrival.size for arrival in found)
        journal.say(f"fetching {fetch.label}: {format_count(len(found), 'file')}, {format_bytes(size)}")
    return found


def _bring_all(
    arrivals: Sequence[_Arrival], cache: DataCache, tally: Tally, journal: Journal, stop: Stop
) -> list[Fetch]:
    """Bring them; the fetches of which a file was not any more what the survey had found."""
    replaced: dict[Fetch, None] = {}

    def tick() -> None:
        journal.advance(f"fetching: {tally.so_far()}", tally.fraction)

    def bring(batch: Sequence[_Arrival], cancel: Stop) -> None:
        for arrival in _bring_together(batch, tally, cancel) if len(batch) > 1 else batch:
            if arrival.origin in replaced:
                continue
            try:
                arrival.bring(cache, tally, cancel)
            except _Replaced:
                replaced[arrival.origin] = None
            else:
                tally.add_file()

    try:
        together = batches(arrivals, lambda arrival: arrival.source_of_several, lambda arrival: arrival.size)
        work_through(together, bring, stop, tick if arrivals else None)
    except OSError as error:
        raise StepFailed(_disk_sentence(error), NO_SPACE) from error
    return list(replaced)


class _Replaced(Exception):
    """A file of a checkpoint has another content by now: its writer goes on."""


class _Arrival(NamedTuple):
    """One file to come: an object of a container, or a file of a mounted directory.

    `token`: what the manifest of its checkpoint says of its content (see `manifest.Member`); empty where none does, or no listing shows it.
    """

    origin: Fetch
    target: str
    size: int
    container: Container | None = None
    stored: Stored | None = None
    path: str = ""
    token: str = ""

    def line(self, root: str) -> tuple[str, int, str]:
        """What the record of the inputs says of it."""
        mark = self.stored.etag if self.stored is not None else str(os.stat(self.path).st_mtime_ns)
        return os.path.relpath(self.target, root), self.size, mark

    @property
    def source_of_several(self) -> Container | None:
        """Where it can come from together with others. What looks empty may be a large object."""
        can_join = self.container is not None and self.container.bulk.read_count >= COUNT and self.size > 0
        return self.container if can_join else None

    @property
    def is_cheap(self) -> bool:
        """Whether it takes no longer to be fetched, with others like it, than to be found in the cache and copied."""
        return self.source_of_several is not None and self.size <= SMALL_BYTES

    def bring(self, cache: DataCache, tally: Tally, stop: Stop) -> None:
        """Raises `_Replaced` where this is a checkpoint's and has another content than its manifest says."""
        os.makedirs(os.path.dirname(self.target), exist_ok=True)
        try:
            token = self._brought(cache, tally, stop)
        except NotInStore:
            if self.token:
                raise _Replaced from None
            raise
        if self.token and token != self.token:
            raise _Replaced

    def _brought(self, cache: DataCache, tally: Tally, stop: Stop) -> str:
        """Bring it; what names its content, as far as that is known."""
        if self.container is None or self.stored is None:
            try:
                copy_file(self.path, self.target, stop, tally.add_bytes)
            except FileNotFoundError:
                raise _vanished(self.path, "the mounted directory") from None
            copied = os.stat(self.target)
            return path_token(copied.st_size, copied.st_mtime_ns)
        if self.is_cached(cache, tally, stop):
            return self.stored.etag
        try:
            md5 = download(self.container, self.stored, self.target, stop, tally.add_bytes)
        except NotInStore:
            raise _vanished(self.stored.name, self.container.label) from None
        if not self.is_cheap:
            cache.offer(self.target, md5, self.stored.size)
        return md5

    def is_cached(self, cache: DataCache, tally: Tally, stop: Stop) -> bool:
        """Whether the cache had it, and it is here now."""
        stored = self.stored
        if stored is None or self.is_cheap:
            return False
        written_at = seconds_of(stored.written_at)
        return cache.bring(stored.etag, stored.size, written_at, self.target, stop, tally.add_bytes)


def _bring_together(batch: Sequence[_Arrival], tally: Tally, stop: Stop) -> Iterator[_Arrival]:
    """Bring small objects by one request; those that did not come so, each to be fetched with all patience."""
    wanted: dict[str, list[_Arrival]] = {}  # one object may be wanted under several names
    for arrival in batch:
        os.makedirs(os.path.dirname(arrival.target), exist_ok=True)
        if arrival.stored is not None:
            wanted.setdefault(arrival.stored.name, []).append(arrival)
    container = batch[0].container
    found: Sequence[Small] = ()
    if len(wanted) > 1 and container is not None:
        with suppress(Transient, StepFailed):  # whoever asks for the single object hears why
            found = container.read_small([*wanted])
    for small in found:
        stop.check()
        for arrival in wanted.pop(small.name, ()):
            is_it = arrival.token in ("", small.etag)
            if not (is_it and keep(small.content, small.etag, small.modified_at, arrival.target)):
                yield arrival
                continue
            tally.add_bytes(len(small.content))
            tally.add_file()
    for arrivals in wanted.values():
        yield from arrivals


def _vanished(name: str, place: str) -> NotInStore:
    return NotInStore(
        f"'{name}' of {place} was deleted while it was fetched: it was there when the run began. Put it back, or leave the "
        "data alone until the run has started, and run again."
    )


def _survey(fetch: Fetch, plan: Plan, journal: Journal, stop: Stop) -> list[_Arrival]:
    """What a fetch consists of, its directories made."""
    if not fetch.is_file:
        _make_directories(fetch.target, ())
    arrivals = _survey_path(fetch, journal) if fetch.path else _survey_container(fetch, plan, journal, stop)
    if arrivals:
        return arrivals
    if fetch.is_required:
        raise NotInStore(f"{fetch.label} has no objects." if not fetch.path else f"{fetch.label} has no files.")
    journal.say(f"{fetch.label} is empty: starting without it")
    return []


def _survey_container(fetch: Fetch, plan: Plan, journal: Journal, stop: Stop) -> list[_Arrival]:
    container = Container(
        fetch.container_url,
        plan.token,
        purpose="read",
        label=fetch.label,
        journal=journal,
        retry_seconds=plan.retry_seconds,
    )
    try:
        if fetch.is_file:
            return _survey_object(container, fetch.prefix, fetch.target, fetch, stop)
        prefix = fetch.prefix if not fetch.prefix or fetch.prefix.endswith("/") else fetch.prefix + "/"
        arrivals, has_entries = _survey_directory(container, prefix, fetch, journal, stop)
        if not has_entries and fetch.prefix.strip("/"):
            # The path names one object, not a directory: it arrives under its own name.
            name = fetch.prefix.rstrip("/")
            target = _join(fetch.target, name.rpartition("/")[2], fetch.label)
            arrivals = _survey_object(container, name, target, fetch, stop)
    except NotInStore:
        if fetch.is_required:
            raise
        return []
    return arrivals


def _survey_object(container: Container, name: str, target: str, fetch: Fetch, stop: Stop) -> list[_Arrival]:
    headers = container.head(name, stop)
    if headers is None or headers.get("content-type", "").startswith("application/directory"):
        return []
    size = int(headers.get("content-length") or 0)
    stored = Stored(name, size, headers.get("etag", "").strip('"'), False)
    return [_Arrival(fetch, target, size, container, stored)]


def _survey_directory(
    container: Container, prefix: str, fetch: Fetch, journal: Journal, stop: Stop
) -> tuple[list[_Arrival], bool]:
    tokens: dict[str, str] | None = {}
    left = _TRIES
    while True:
        left -= 1
        layout, has_entries = _listed(container, prefix, fetch, stop)
        if not (fetch.is_checkpoint and MANIFEST in layout.files):
            break
        members = from_text(container.read(layout.files[MANIFEST].name, stop))
        tokens = _choose(members, layout.files, _has_content, fetch.label, journal, is_last=not left)
        if tokens is not None:
            layout.directories = {name for name in layout.directories if not is_own(name + "/")}
            break
    for clash in layout.clashes():
        layout.drop_segments(clash, container, stop)
    _make_directories(fetch.target, layout.directories)
    known = tokens or {}
    return [
        _Arrival(
            fetch,
            _join(fetch.target, relative, fetch.label),
            stored.size,
            container,
            stored,
            token=known.get(relative, ""),
        )
        for relative, stored in layout.files.items()
    ], has_entries


def _listed(container: Container, prefix: str, fetch: Fetch, stop: Stop) -> tuple[_Layout, bool]:
    """What is in a directory, and whether there is anything at all."""
    layout = _Layout(fetch.label)
    has_entries = False
    for stored in container.list(prefix, stop):
        stop.check()
        if not prefix and stored.name.startswith(SEGMENTS_PREFIX):
            continue
        has_entries = True
        relative = stored.name[len(prefix) :]
        if fetch.is_checkpoint or not is_own(relative):
            layout.add(relative, stored)
    return layout, has_entries


class _Layout:
    """Names of a listing sorted into files and directories, in which no name is both."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.files: dict[str, Stored] = {}
        self.directories: set[str] = set()

    def add(self, relative: str, stored: Stored) -> None:
        name = relative.rstrip("/") if stored.is_directory else relative
        if not name and stored.is_directory:
            return
        try:
            check_name(name)
        except UnsafeName as error:
            raise StepFailed(f"{self.label} can't be fetched: {error}.", BAD_SOURCE) from None
        if stored.is_directory:
            self.directories.add(name)
        else:
            self.files[name] = stored
        parent = name.rpartition("/")[0]
        while parent and parent not in self.directories:
            self.directories.add(parent)
            parent = parent.rpartition("/")[0]

    def clashes(self) -> list[str]:
        return [name for name in self.files if name in self.directories]

    def drop_segments(self, clash: str, container: Container, stop: Stop) -> None:
        """A large object whose pieces lie below its own name (as the official client stores them) is a file; other clashes fail."""
        stored = self.files[clash]
        headers = container.head(stored.name, stop) or {}
        if headers.get("x-object-manifest", "").strip("/") != f"{container.name}/{stored.name}":
            raise StepFailed(
                f"{self.label} can't be fetched: '{clash}' is both an object and a directory of objects.", BAD_SOURCE
            )
        below = clash + "/"
        self.files = {name: entry for name, entry in self.files.items() if not name.startswith(below)}
        self.directories = {name for name in self.directories if name != clash and not name.startswith(below)}
        size = int(headers.get("content-length") or 0)
        self.files[clash] = Stored(stored.name, size, "", False)


def _survey_path(fetch: Fetch, journal: Journal) -> list[_Arrival]:
    if not os.path.exists(fetch.path):
        if fetch.is_required:
            raise NotInStore(f"{fetch.label} does not exist.")
        return []
    if os.path.isfile(fetch.path):
        target = fetch.target if fetch.is_file else _join(fetch.target, os.path.basename(fetch.path), fetch.label)
        return [_Arrival(fetch, target, os.path.getsize(fetch.path), path=fetch.path)]
    if fetch.is_file:
        raise NotInStore(f"{fetch.label} is not a file.")
    tokens: dict[str, str] | None = {}
    left = _TRIES
    while True:
        left -= 1
        found = scan(fetch.path)
        files = {file.name: file for file in found.files if fetch.is_checkpoint or not is_own(file.name)}
        if not (fetch.is_checkpoint and MANIFEST in files):
            break
        with open(files[MANIFEST].path, "rb") as manifest:
            members = from_text(manifest.read())
        tokens = _choose(members, files, _is_file_of, fetch.label, journal, is_last=not left)
        if tokens is not None:
            break
    for reason in found.skipped + found.unstorable:
        journal.warn(f"{fetch.label}: {reason}; it is left out")
    known = tokens or {}
    _make_directories(fetch.target, [name for name in found.empty_directories if not is_own(name + "/")])
    return [
        _Arrival(
            fetch,
            _join(fetch.target, name, fetch.label),
            file.size,
            path=file.path,
            token=known.get(name, ""),
        )
        for name, file in files.items()
    ]


def _choose(
    members: dict[str, Member] | None,
    there: dict[str, _Place],
    is_content: Callable[[_Place, Member], bool],
    label: str,
    journal: Journal,
    *,
    is_last: bool,
) -> dict[str, str] | None:
    """Leave of what is there what makes up the newest complete checkpoint, each file under its own name; the tokens of their contents.

    None, and all is left as it is, where manifest and listing don't fit, which is so for a moment while somebody writes a newer checkpoint.
    With `is_last` they never will: then somebody else has changed what is there, and all of it is taken.
    """
    found = None if members is None else chosen(members, there, is_content)
    tokens: dict[str, str] = {}
    if found is not None and members is not None:
        tokens = {name: member.token for name, member in members.items() if not member.is_large}
        if others := sum(1 for name in there if not is_own(name) and name not in found):
            journal.say(f"{label}: {format_count(others, 'file')} beside the newest complete checkpoint are left there")
    elif not is_last:
        return None
    else:
        journal.warn(
            f"{label} was changed by somebody else since its last complete checkpoint: all that is there is taken"
        )
        found = {name: place for name, place in there.items() if not is_own(name)}
    there.clear()
    there.update(found)
    return tokens


def _has_content(stored: Stored, member: Member) -> bool:
    return stored.size == member.size and (member.is_large or stored.etag == member.token)


def _is_file_of(file: LocalFile, member: Member) -> bool:
    return path_token(file.size, file.modified_at_ns) == member.token


def _make_directories(target: str, relatives: Iterable[str]) -> None:
    try:
        os.makedirs(target, exist_ok=True)
        for relative in relatives:
            os.makedirs(os.path.join(target, relative), exist_ok=True)
    except OSError as error:
        raise StepFailed(_disk_sentence(error), NO_SPACE) from error


def _join(target: str, relative: str, label: str) -> str:
    """The place of a file, which must be inside the target also when links that were there before are followed."""
    path = os.path.join(target, relative)
    parent = os.path.realpath(os.path.dirname(path))
    root = os.path.realpath(target)
    if parent != root and not parent.startswith(root.rstrip("/") + "/"):
        raise StepFailed(f"{label} can't be fetched: '{relative}' would be written outside of {target}.", BAD_SOURCE)
    return path


def _check_room(fetch: Fetch, total_bytes: int) -> None:
    directory = fetch.target if not fetch.is_file else os.path.dirname(fetch.target)
    try:
        os.makedirs(directory, exist_ok=True)
        found = os.statvfs(directory)
    except OSError as error:
        raise StepFailed(_disk_sentence(error), NO_SPACE) from error
    free = found.f_bavail * found.f_frsize
    if total_bytes > free:
        raise StepFailed(
            f"There is no room for the input: {format_bytes(total_bytes)} are to be fetched and {format_bytes(free)} are "
            "free. Ask for a larger data storage (dataStorageSize).",
            NO_SPACE,
        )


def _disk_sentence(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    return f"The input can't be written to the instance's storage: {error.strerror or error}{place}."


def paths_of(fetches: Sequence[Fetch]) -> list[str]:
    """The directories that fetches fill, for listing what is there."""
    return [fetch.target for fetch in fetches if not fetch.is_file]
