"""Fetching from a store that behaves, and from one that does not."""

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from modelyard.runner.fetch import fetch_all
from modelyard.runner.journal import Journal
from modelyard.runner.outcomes import (
    BAD_SOURCE,
    NO_PERMISSION,
    NO_SOURCE,
    NO_SPACE,
    STORE_UNAVAILABLE,
    StepFailed,
    Stopped,
)
from modelyard.runner.plan import Fetch, Main, Plan
from modelyard.runner.stop import Stop

NOTHING = Main(argv=("true",), env={}, cwd="/")


def fetch(
    store, token: str, target: Path, prefix: str = "data", stop: Stop | None = None, retry_seconds: float = 5, **options
):
    one = Fetch(target=str(target), label="obs://the/data", container_url=store.url("c"), prefix=prefix, **options)
    plan = Plan(main=NOTHING, fetches=(one,), token=token, retry_seconds=retry_seconds)
    return fetch_all(plan, Journal(), stop or Stop())


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def failure(store, token: str, target: Path, **options) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        fetch(store, token, target, **options)
    assert not list(target.parent.rglob("*.part"))
    return caught.value


def test_a_directory_arrives_with_its_shape(store, token, tmp_path, capfd) -> None:
    store.put("c", "data/train.csv", "1,2")
    store.put("c", "data/sub/deep/한글 #1?.txt", "x")
    store.put("c", "data/zero", "")
    store.put("c", "data/empty/", "", Content_Type="application/directory")
    store.put("c", "data/marked", "", Content_Type="application/directory")
    store.put("c", "data/marked/inside", "y")
    store.put("c", "data-other/file", "no")
    fetch(store, token, tmp_path / "in")
    assert tree(tmp_path / "in") == {
        "train.csv": b"1,2",
        "sub/deep/한글 #1?.txt": b"x",
        "zero": b"",
        "marked/inside": b"y",
    }
    assert (tmp_path / "in/empty").is_dir()
    assert (tmp_path / "in/train.csv").stat().st_mtime == 1700000000.5
    assert "[modelyard] fetched 4 files, 5 bytes" in capfd.readouterr().out


def test_a_path_of_one_object_arrives_under_its_name(store, token, tmp_path) -> None:
    store.put("c", "data/train.csv", "1,2")
    fetch(store, token, tmp_path / "in", prefix="data/train.csv")
    assert tree(tmp_path / "in") == {"train.csv": b"1,2"}


def test_a_file_is_put_where_it_is_asked(store, token, tmp_path) -> None:
    store.put("c", "data/train.csv", "1,2")
    fetch(store, token, tmp_path / "deep/my.csv", prefix="data/train.csv", is_file=True)
    assert (tmp_path / "deep/my.csv").read_text() == "1,2"


def test_a_whole_container_leaves_its_segments_out(store, token, tmp_path) -> None:
    store.put("c", "a", "1")
    store.put("c", ".segments/a/1/00000000", "1")
    fetch(store, token, tmp_path / "in", prefix="")
    assert tree(tmp_path / "in") == {"a": b"1"}


def test_two_thousand_small_files(store, token, tmp_path) -> None:
    for number in range(2000):
        store.put("c", f"data/{number % 7}/{number:05d}", str(number))
    begun = time.monotonic()
    fetch(store, token, tmp_path / "in")
    assert len(tree(tmp_path / "in")) == 2000
    assert time.monotonic() - begun < 60
    assert store.count("GET", "/c") == 3  # two pages, and the empty one that ends the listing
    assert store.connection_count() < 20  # they are kept open


def test_a_broken_connection_goes_on_where_it_broke(store, token, tmp_path, fault) -> None:
    content = os.urandom(3_000_000)
    store.put("c", "data/big", content)
    store.faults.append(fault("GET", "big", count=2, cut_after=1_000_000))
    fetch(store, token, tmp_path / "in")
    assert (tmp_path / "in/big").read_bytes() == content
    ranges = [headers.get("Range") for verb, path, headers in store.requests if path.endswith("big")]
    assert ranges[0] is None
    assert all(value and 0 < int(value[6:-1]) < 3_000_000 for value in ranges[1:])
    assert len(ranges) == 3


def test_an_object_replaced_meanwhile_starts_again(store, token, tmp_path, fault, entry) -> None:
    old, new = b"o" * 2_000_000, b"n" * 1_500_000
    store.put("c", "data/big", old)
    store.faults.append(fault("GET", "big", cut_after=500_000))
    take = store.take_fault

    def replace_after_first(method: str, path: str):
        found = take(method, path)
        if found is None and path.endswith("big"):
            store.containers["c"]["data/big"] = entry(new)
        return found

    store.take_fault = replace_after_first
    fetch(store, token, tmp_path / "in")
    assert (tmp_path / "in/big").read_bytes() == new


@pytest.mark.parametrize("status", [503, 502, 504, 429, 500])
def test_a_burst_of_refusals_is_waited_out(store, token, tmp_path, fault, status) -> None:
    store.put("c", "data/a", "1")
    store.faults += [fault("GET", "/c", count=2, status=status), fault("GET", "a", count=3, status=status)]
    fetch(store, token, tmp_path / "in", retry_seconds=20)
    assert tree(tmp_path / "in") == {"a": b"1"}


def test_a_store_that_restarts_is_waited_for(store, token, tmp_path) -> None:
    store.put("c", "data/a", "1")
    store.stop()
    threading.Timer(1.0, store.start).start()
    fetch(store, token, tmp_path / "in", retry_seconds=20)
    assert tree(tmp_path / "in") == {"a": b"1"}


def test_a_store_that_stays_away_is_given_up(store, token, tmp_path, capfd) -> None:
    store.put("c", "data/a", "1")
    store.stop()
    failed = failure(store, token, tmp_path / "in", retry_seconds=5.0)
    store.start()
    assert failed.exit_code == STORE_UNAVAILABLE
    assert "connection refused" in failed.message
    assert "Trying again" in capfd.readouterr().out


def test_content_that_differs_from_its_md5_is_refused(store, token, tmp_path, fault) -> None:
    store.put("c", "data/a", "1")
    store.faults.append(fault("GET", "a", count=99, etag=hashlib.md5(b"other").hexdigest()))
    failed = failure(store, token, tmp_path / "in")
    assert failed.exit_code == BAD_SOURCE
    assert "damaged 3 times" in failed.message
    assert tree(tmp_path / "in") == {}


def test_content_damaged_once_is_fetched_again(store, token, tmp_path, fault) -> None:
    store.put("c", "data/a", "1")
    store.faults.append(fault("GET", "a", etag=hashlib.md5(b"other").hexdigest()))
    fetch(store, token, tmp_path / "in")
    assert tree(tmp_path / "in") == {"a": b"1"}


def test_the_checksum_of_a_large_object_is_no_md5(store, token, tmp_path, entry) -> None:
    store.containers["c"] = {"data/slo": entry(b"abc", "0" * 32, {"X-Static-Large-Object": "True"})}
    fetch(store, token, tmp_path / "in")
    assert tree(tmp_path / "in") == {"slo": b"abc"}


def test_pieces_below_a_large_objects_own_name_are_no_clash(store, token, tmp_path, entry) -> None:
    store.put("c", "data/big/001", "a")
    store.put("c", "data/big/002", "b")
    store.put("c", "data/other", "x")
    store.containers["c"]["data/big"] = entry(b"ab", "0" * 32, {"X-Object-Manifest": "c/data/big"})
    fetch(store, token, tmp_path / "in")
    assert tree(tmp_path / "in") == {"big": b"ab", "other": b"x"}


def test_a_file_that_is_also_a_folder_is_told(store, token, tmp_path) -> None:
    store.put("c", "data/a", "1")
    store.put("c", "data/a/b", "2")
    failed = failure(store, token, tmp_path / "in")
    assert failed.exit_code == BAD_SOURCE
    assert "'a' is both an object and a directory" in failed.message


@pytest.mark.parametrize(
    "name",
    [
        "../escaped",
        "a/../../escaped",
        "/etc/x",
        "a//b",
        "a/./b",
        "a\\b",
        "a\0b",
        "a\nb",
        "a/../../../../../tmp/escaped",
    ],
)
def test_names_never_leave_the_target(store, token, tmp_path, name) -> None:
    store.put("c", "data/fine", "1")
    store.put("c", "data/" + name, "bad")
    failed = failure(store, token, tmp_path / "in")
    assert failed.exit_code == BAD_SOURCE
    assert tree(tmp_path) == {}


def test_links_that_were_there_are_not_written_through(store, token, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "in/sub").symlink_to(tmp_path / "outside")
    store.put("c", "data/sub/x", "1")
    failed = failure(store, token, tmp_path / "in")
    assert "outside" in failed.message
    assert tree(tmp_path / "outside") == {}


def test_an_empty_path_is_told(store, token, tmp_path) -> None:
    store.put("c", "other", "1")
    failed = failure(store, token, tmp_path / "in")
    assert (failed.exit_code, failed.message) == (NO_SOURCE, "obs://the/data has no objects.")


def test_an_empty_path_that_may_be_missing_is_fine(store, token, tmp_path) -> None:
    fetch(store, token, tmp_path / "in", is_required=False)
    assert (tmp_path / "in").is_dir()
    store.containers.clear()
    one = Fetch(
        target=str(tmp_path / "in2"),
        label="l",
        container_url=f"http://127.0.0.1:{store.port}/v1/A/gone",
        is_required=False,
    )
    fetch_all(Plan(main=NOTHING, fetches=(one,), token=token), Journal(), Stop())


def test_a_missing_container_is_told(store, token, tmp_path) -> None:
    url = store.url("c")
    store.containers.clear()
    one = Fetch(target=str(tmp_path / "in"), label="obs://the/data", container_url=url, prefix="p")
    with pytest.raises(StepFailed) as caught:
        fetch_all(Plan(main=NOTHING, fetches=(one,), token=token), Journal(), Stop())
    assert caught.value.exit_code == NO_SOURCE
    assert (
        "obs://the/data does not exist (404). The store says: Not Found The resource could not be found."
        in caught.value.message
    )


def test_a_refused_token_is_told(store, tmp_path) -> None:
    store.put("c", "data/a", "1")
    failed = failure(store, "wrong", tmp_path / "in")
    assert failed.exit_code == NO_PERMISSION
    assert "token was not accepted for obs://the/data (401)" in failed.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"header":{"isSuccessful":false,"resultMessage":"Grant read to abc:def."}}',
        b"<p>Grant read to abc:def.</p>",
        b"Grant read to abc:def.",
    ],
)
def test_a_missing_permission_repeats_the_servers_words(store, token, tmp_path, fault, body) -> None:
    store.put("c", "data/a", "1")
    store.faults.append(fault("GET", "/c", status=403, body=body))
    failed = failure(store, token, tmp_path / "in")
    assert failed.exit_code == NO_PERMISSION
    assert (
        failed.message
        == "The read permission is missing for obs://the/data (403). The store says: Grant read to abc:def."
    )


def test_lack_of_room_is_told_before_the_first_byte(store, token, tmp_path, monkeypatch) -> None:
    store.put("c", "data/a", "1" * 1000)

    class Full:
        f_bavail, f_frsize = 1, 512

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    failed = failure(store, token, tmp_path / "in")
    assert failed.exit_code == NO_SPACE
    assert "1.0 kB are to be fetched and 512 bytes are free" in failed.message
    assert store.count("GET", "/a") == 0


def test_data_that_is_deleted_meanwhile_is_told(store, token, tmp_path, fault) -> None:
    for number in range(20):
        store.put("c", f"data/{number}", b"1")
    store.faults.append(fault("GET", name="data/7", count=99, status=404))
    failed = failure(store, token, tmp_path / "in")
    assert failed.exit_code == NO_SOURCE
    assert "'data/7' of obs://the/data was deleted while it was fetched" in failed.message


def test_a_stop_ends_the_fetch(store, token, tmp_path, fault) -> None:
    for number in range(50):
        store.put("c", f"data/{number}", "x")
    store.faults.append(fault("GET", count=99, name="", pause_seconds=0.3))
    stop = Stop()
    threading.Timer(0.8, stop.request).start()
    begun = time.monotonic()
    with pytest.raises(Stopped):
        fetch(store, token, tmp_path / "in", stop=stop)
    assert time.monotonic() - begun < 30


def test_a_mounted_directory_is_copied(tmp_path, capfd) -> None:
    source = tmp_path / "nas"
    (source / "sub/empty").mkdir(parents=True)
    (source / "sub/a").write_text("1")
    (source / "inside").symlink_to("sub/a")
    (source / "outside").symlink_to("/etc/passwd")
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe")
    one = Fetch(target=str(tmp_path / "in"), label="nas://n:/", path=str(source))
    fetch_all(Plan(main=NOTHING, fetches=(one,)), Journal(), Stop())
    assert tree(tmp_path / "in") == {"sub/a": b"1", "inside": b"1"}
    assert (tmp_path / "in/sub/empty").is_dir()
    output = capfd.readouterr().out
    assert "'outside' leads outside" in output
    assert "'loop' leads in a circle" in output


def test_a_mounted_directory_that_is_not_there_is_told(tmp_path) -> None:
    one = Fetch(target=str(tmp_path / "in"), label="nas://n:/x", path=str(tmp_path / "gone"))
    with pytest.raises(StepFailed, match="nas://n:/x does not exist"):
        fetch_all(Plan(main=NOTHING, fetches=(one,)), Journal(), Stop())
