"""Fetching with a cache: what is there is not asked for again, and an entry is taken only for what it is."""

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from modelyard.compute.backends.local.datacache import Keeper, entry_path, list_entries, open_door, trim
from modelyard.runner.datacache import DataCache
from modelyard.runner.fetch import fetch_all
from modelyard.runner.journal import Journal
from modelyard.runner.plan import Fetch, Main, Plan
from modelyard.runner.stop import Stop
from modelyard.runner.swift import seconds_of

NOTHING = Main(argv=("true",), env={}, cwd="/")


@pytest.fixture
def cache_root(tmp_path: Path) -> Path:
    (tmp_path / "cache/entries").mkdir(parents=True)
    return tmp_path / "cache"


@pytest.fixture
def door(tmp_path: Path, cache_root: Path) -> str:
    """The door of a keeper that runs in this process."""
    path = str(tmp_path / "door")
    opened = open_door(path)
    assert opened is not None
    keeper = Keeper(
        {"directory": str(cache_root), "limit_bytes": 1 << 20, "layers": str(tmp_path / "layers")}, str(tmp_path)
    )
    threading.Thread(target=keeper.serve, args=(opened,), daemon=True).start()
    return path


def run(store, token: str, target: Path, cache: DataCache) -> str:
    one = Fetch(target=str(target), label="obs://the/data", container_url=store.url("c"), prefix="data")
    return fetch_all(Plan(main=NOTHING, fetches=(one,), token=token, retry_seconds=5), Journal(), Stop(), cache)


def until(check) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def names(cache_root: Path) -> list[str]:
    return sorted(Path(entry["path"]).name for entry in list_entries(str(cache_root)))


def test_the_second_run_fetches_nothing(store, token, tmp_path, cache_root, door) -> None:
    contents = {f"data/{number} #%ü.bin": os.urandom(number * 700) for number in range(40)}
    for name, content in contents.items():
        store.put("c", name, content)
    first = DataCache(str(cache_root / "entries"), door)
    run(store, token, tmp_path / "one", first)
    first.finish(20)
    until(lambda: len(names(cache_root)) == 40)
    begun = store.count("GET", ".bin")
    figures = run(store, token, tmp_path / "two", DataCache(str(cache_root / "entries"), door))
    assert store.count("GET", ".bin") == begun == 40
    assert "40 files from the project's cache" in figures
    for name, content in contents.items():
        assert (tmp_path / "two" / name.removeprefix("data/")).read_bytes() == content
    assert not os.access(tmp_path / "two", os.X_OK) or all(
        path.stat().st_mode & 0o200 for path in (tmp_path / "two").iterdir()
    )


def test_an_entry_that_is_not_what_it_says_is_not_taken(store, token, tmp_path, cache_root) -> None:
    content = b"true" * 1000
    store.put("c", "data/a", content)
    entry = Path(entry_path(str(cache_root / "entries"), hashlib.md5(content).hexdigest(), len(content)))
    entry.parent.mkdir()
    for poison in (b"evil" * 1000, b"short", b""):
        entry.write_bytes(poison)
        run(store, token, tmp_path / "in", DataCache(str(cache_root / "entries"), ""))
        assert (tmp_path / "in/a").read_bytes() == content
    assert store.count("GET", "data/a") == 3


@pytest.mark.parametrize("lie", ["md5", "size", "changed", "gone", "link", "directory", "pipe", "no name", "too large"])
def test_what_is_offered_with_a_lie_is_not_kept(tmp_path, cache_root, door, lie) -> None:
    path = tmp_path / "offered"
    path.write_bytes(b"content")
    md5, size = hashlib.md5(b"content").hexdigest(), 7
    if lie == "md5":
        md5 = hashlib.md5(b"another").hexdigest()
    elif lie == "size":
        size = 6
    elif lie == "changed":
        path.write_bytes(b"changed")
    elif lie == "no name":
        md5 = "../../../../../etc/passwd0123456"
    elif lie == "too large":
        size = 2 << 20
        path.write_bytes(b"\0" * size)
        md5 = hashlib.md5(b"\0" * size).hexdigest()
    else:
        path.unlink()
    if lie == "link":
        path.symlink_to("/etc/passwd")
    elif lie == "directory":
        path.mkdir()
    elif lie == "pipe":
        os.mkfifo(path)
        threading.Thread(target=lambda: os.close(os.open(path, os.O_WRONLY)), daemon=True).start()
    cache = DataCache(str(cache_root / "entries"), door)
    cache.offer(str(path), md5, size)
    good = tmp_path / "good"
    good.write_bytes(b"good")
    cache.offer(str(good), hashlib.md5(b"good").hexdigest(), 4)
    cache.finish(20)
    # Whoever lies may lose the keeper's ear; what others offer is kept.
    DataCache(str(cache_root / "entries"), door).offer(str(good), hashlib.md5(b"good").hexdigest(), 4)
    until(lambda: names(cache_root))
    assert names(cache_root) == [f"{hashlib.md5(b'good').hexdigest()}.4"]


def test_what_was_not_used_for_the_longest_time_goes(tmp_path, cache_root) -> None:
    for number in range(10):
        entry = Path(entry_path(str(cache_root / "entries"), hashlib.md5(b"%d" % number).hexdigest(), 1000))
        entry.parent.mkdir(exist_ok=True)
        entry.write_bytes(b"x" * 1000)
        os.utime(entry, (number, number))
    (cache_root / "incoming").mkdir()
    stale, fresh = cache_root / "incoming/1", cache_root / "incoming/2"
    stale.write_bytes(b"half")
    os.utime(stale, (1, 1))
    fresh.write_bytes(b"half")
    assert trim(str(cache_root), 10_000) == 0
    assert (stale.exists(), fresh.exists()) == (False, True)
    assert trim(str(cache_root), 5000) == 6000
    kept = {hashlib.md5(b"%d" % number).hexdigest() + ".1000" for number in (6, 7, 8, 9)}
    assert set(names(cache_root)) == kept


def test_a_cache_without_a_keeper_is_no_trouble(store, token, tmp_path, cache_root) -> None:
    store.put("c", "data/a", b"content")
    cache = DataCache(str(cache_root / "entries"), str(tmp_path / "nobody"))
    run(store, token, tmp_path / "in", cache)
    cache.finish(5)
    assert (tmp_path / "in/a").read_bytes() == b"content"
    run(store, token, tmp_path / "again", DataCache(str(tmp_path / "nowhere"), str(tmp_path / "nobody")))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00", 0.0),
        ("2024-02-29T12:34:56.250000", 1709210096.25),
        ("2026-11-22T10:00:00Z", 1795341600.0),
        ("", 0.0),
        ("yesterday", 0.0),
    ],
)
def test_a_listings_time(text, seconds) -> None:
    assert seconds_of(text) == seconds
