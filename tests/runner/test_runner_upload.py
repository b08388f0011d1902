"""Keeping directories: whole, checked, and without what does not belong there."""

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from modelyard.runner.checkpoints import CheckpointSync, files_open_for_writing
from modelyard.runner.journal import Journal
from modelyard.runner.outcomes import NO_PERMISSION, NO_SPACE, UPLOAD_FAILED, Damaged, StepFailed
from modelyard.runner.outputs import upload_output
from modelyard.runner.plan import Upload
from modelyard.runner.stop import Stop
from modelyard.runner.tree import look, scan
from modelyard.runner.upload import Destination, Sizes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    return directory


@pytest.fixture
def to_store(store, token, model):
    """Make a destination `c/out` for the model directory."""

    def make(sizes: Sizes | None = None, retry_seconds: float = 10, **options) -> Destination:
        upload = Upload(source=str(model), label="obs://the/out", container_url=store.url("c"), prefix="out", **options)
        return Destination(upload, token, Journal(), retry_seconds, sizes)

    return make


def test_a_directory_goes_up_with_its_shape(store, model, to_store, capfd) -> None:
    (model / "variables").mkdir()
    (model / "empty/inner").mkdir(parents=True)
    (model / "saved_model.pb").write_bytes(b"pb")
    (model / "variables/한글 #1?.data").write_bytes(b"")
    figures = upload_output(to_store(), Journal(), Stop())
    assert store.names("c") == ["out/empty/inner/", "out/saved_model.pb", "out/variables/한글 #1?.data"]
    assert store.content("c", "out/saved_model.pb") == b"pb"
    assert figures.startswith("2 files, 2 bytes")
    assert "[modelyard] uploaded 2 files, 2 bytes" in capfd.readouterr().out


def test_every_object_is_sent_with_its_md5(store, model, to_store) -> None:
    (model / "a").write_bytes(b"content")
    upload_output(to_store(), Journal(), Stop())
    headers = next(headers for verb, _, headers in store.requests if verb == "PUT")
    assert headers["ETag"] == hashlib.md5(b"content").hexdigest()


def test_nothing_to_upload_is_warned_about(store, model, to_store, capfd) -> None:
    assert upload_output(to_store(), Journal(), Stop()) == "nothing to upload"
    assert f"[modelyard] warning: {model} is empty" in capfd.readouterr().out
    assert store.count("PUT") == 0


def test_links_are_followed_only_inside(store, model, to_store, capfd) -> None:
    (model / "weights").write_bytes(b"w")
    (model / "alias").symlink_to("weights")
    (model / "passwd").symlink_to("/etc/passwd")
    (model / "up").symlink_to("..")
    (model / "dangling").symlink_to("nowhere")
    upload_output(to_store(), Journal(), Stop())
    assert store.names("c") == ["out/alias", "out/weights"]
    assert "the link 'passwd' leads outside" in capfd.readouterr().out


def test_a_name_that_could_not_come_back_fails_before_anything_is_sent(store, model, to_store) -> None:
    (model / "a\\b").write_bytes(b"")
    (model / "fine").write_bytes(b"")
    with pytest.raises(StepFailed, match="backslash") as caught:
        upload_output(to_store(), Journal(), Stop())
    assert caught.value.exit_code == UPLOAD_FAILED
    assert store.count("PUT") == 0


def test_what_is_there_is_not_sent_again(store, model, to_store) -> None:
    (model / "big").write_bytes(b"x" * 1000)
    (model / "small").write_bytes(b"x" * 10)
    sizes = Sizes(compare=500)
    upload_output(to_store(sizes), Journal(), Stop())
    upload_output(to_store(sizes), Journal(), Stop())
    assert store.count("PUT", "big") == 1
    assert store.count("PUT", "small") == 1
    (model / "big").write_bytes(b"y" * 1000)
    upload_output(to_store(sizes), Journal(), Stop())
    assert store.content("c", "out/big") == b"y" * 1000


@pytest.mark.parametrize("knows_slo", [True, False])
def test_what_is_too_large_for_one_object_goes_up_in_segments(store, model, to_store, knows_slo) -> None:
    store.knows_slo = knows_slo
    content = os.urandom(2500)
    (model / "huge").write_bytes(content)
    sizes = Sizes(compare=10, large=2000, segment=1000)
    upload_output(to_store(sizes), Journal(), Stop())
    assert store.content("c", "out/huge") == content
    segments = [name for name in store.names("c") if name.startswith(".segments/out/huge/")]
    assert len(segments) == 3
    assert [name for name in store.names("c") if name.startswith("out/")] == ["out/huge"]


def test_segments_of_the_object_before_are_removed(store, model, to_store) -> None:
    sizes = Sizes(compare=10, large=2000, segment=1000)
    for content in (b"a" * 2500, b"b" * 2500, b"b" * 2500):
        (model / "huge").write_bytes(content)
        upload_output(to_store(sizes), Journal(), Stop())
    assert store.content("c", "out/huge") == b"b" * 2500
    assert len([name for name in store.names("c") if name.startswith(".segments/")]) == 3
    assert store.count("PUT", "out/huge") == 2  # the third time it was there


def test_refusals_that_pass_are_waited_out(store, model, to_store, fault) -> None:
    (model / "a").write_bytes(b"1" * 300_000)
    store.faults.append(fault("PUT", count=3, status=503))
    upload_output(to_store(), Journal(), Stop())
    assert store.content("c", "out/a") == b"1" * 300_000


@pytest.mark.slow
def test_a_store_that_restarts_during_an_upload_is_waited_for(store, model, to_store) -> None:
    for number in range(30):
        (model / str(number)).write_bytes(b"1")
    store.stop()
    threading.Timer(1.0, store.start).start()
    upload_output(to_store(), Journal(), Stop())
    assert len(store.names("c")) == 30


@pytest.mark.parametrize(
    ("status", "code", "words"), [(403, NO_PERMISSION, "write permission"), (507, NO_SPACE, "no room left")]
)
def test_refusals_that_stay_are_told(store, model, to_store, fault, status, code, words) -> None:
    (model / "a").write_bytes(b"1")
    store.faults.append(fault("PUT", count=99, status=status, body=b"Ask the owner."))
    with pytest.raises(StepFailed, match=f"{words}.*Ask the owner") as caught:
        upload_output(to_store(), Journal(), Stop())
    assert caught.value.exit_code == code


def test_a_container_that_is_not_there_is_told(store, model, to_store) -> None:
    (model / "a").write_bytes(b"1")
    destination = to_store()
    store.containers.clear()
    with pytest.raises(StepFailed, match="There is no container to take 'out/a' of obs://the/out"):
        upload_output(destination, Journal(), Stop())


def test_a_file_changed_while_it_is_sent_is_never_stored_torn(store, model, to_store, fault) -> None:
    path = model / "a"
    path.write_bytes(b"1" * 1000)
    file = look("a", str(path))
    assert file is not None
    path.write_bytes(b"2" * 1000)
    os.utime(path, ns=(1, 1))
    with pytest.raises(Damaged, match="was changed while it was read"):
        to_store().store(file, Stop(), lambda _: None)
    assert store.names("c") == []


def test_a_mounted_directory_receives_copies(model, token, tmp_path) -> None:
    (model / "sub").mkdir()
    (model / "empty").mkdir()
    (model / "sub/a").write_bytes(b"1")
    upload = Upload(source=str(model), label="nas://n:/out", path=str(tmp_path / "nas/out"))
    upload_output(Destination(upload, token, Journal(), 1), Journal(), Stop())
    assert (tmp_path / "nas/out/sub/a").read_bytes() == b"1"
    assert (tmp_path / "nas/out/empty").is_dir()
    assert not list(tmp_path.rglob("*.part"))


class Syncing:
    """A sync that runs, and a way to wait for what it does."""

    def __init__(self, destination: Destination) -> None:
        self.sync = CheckpointSync(destination, 0.1, Journal())

    def __enter__(self) -> CheckpointSync:
        self.sync.start()
        return self.sync

    def __exit__(self, *_: object) -> None:
        self.sync.finish(Stop())


def files(store) -> list[str]:
    return [name for name in store.names("c") if ".modelyard-checkpoint" not in name]


def noted(store, name: str) -> bool:
    """Whether the newest manifest has the file: then its upload is over for the sync, too, not only for the store."""
    manifests = [each for each in store.names("c") if ".modelyard-checkpoint" in each]
    return any(name.encode() in store.content("c", each) for each in manifests)


def eventually(holds, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_checkpoints_are_kept_while_the_run_goes_on(store, model, to_store) -> None:
    with Syncing(to_store()):
        (model / "cp-1").write_bytes(b"1")
        eventually(lambda: files(store) == ["out/cp-1"])
        (model / "cp-2").write_bytes(b"2")
        (model / "cp-1").unlink()
        eventually(lambda: noted(store, "cp-2"))
    assert files(store) == ["out/cp-1", "out/cp-2"]
    assert store.count("PUT", "cp-1") == 1
    assert store.count("PUT", "cp-2") == 1


def test_a_file_held_open_is_not_taken_before_it_is_closed(store, model, to_store) -> None:
    with Syncing(to_store()):
        with (model / "cp").open("wb") as half:
            half.write(b"half")
            half.flush()
            # What is written together is taken together; what lies in a directory of its own is not held up.
            (model / "beside").write_bytes(b"b")
            for number in range(2):
                (model / f"step-{number}").mkdir()
                (model / f"step-{number}/witness").write_bytes(b"w")
                eventually(lambda number=number: f"out/step-{number}/witness" in store.names("c"))
            assert not {"out/cp", "out/beside"} & set(store.names("c"))
            half.write(b" and whole")
        eventually(lambda: "out/cp" in store.names("c"))
    assert store.content("c", "out/cp") == b"half and whole"
    assert store.count("PUT", "cp") == 1


@pytest.mark.slow
def test_a_file_written_again_and_again_is_never_torn(store, model, to_store) -> None:
    """Two halves that must be equal, written in place by another thread without pause."""
    ends = threading.Event()
    path = model / "state"

    def write() -> None:
        number = 0
        while not ends.is_set():
            number += 1
            half = str(number).encode().rjust(200_000, b"0")
            with path.open("r+b" if path.exists() else "wb") as file:
                file.write(half)
                file.flush()
                time.sleep(0.01)
                file.write(half)
            time.sleep(0.25 if number % 3 == 0 else 0.01)

    writer = threading.Thread(target=write)
    seen: list[bytes] = []
    with Syncing(to_store()):
        writer.start()
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            if "out/state" in store.names("c"):
                seen.append(store.content("c", "out/state"))
            time.sleep(0.02)
        ends.set()
        writer.join()
    seen.append(store.content("c", "out/state"))
    assert all(content[:200_000] == content[200_000:] for content in seen)
    assert store.content("c", "out/state") == path.read_bytes()


def test_the_newest_file_goes_up_last(store, model, to_store) -> None:
    for number in range(40):
        (model / f"z-shard-{number}").write_bytes(b"x" * 1000)
        os.utime(model / f"z-shard-{number}", (1000, 1000))
    (model / "checkpoint").write_bytes(b"points at the shards")
    CheckpointSync(to_store(), 60, Journal()).finish(Stop())
    puts = [path for verb, path, _ in store.requests if verb == "PUT"]
    assert puts[-2].endswith("out/checkpoint")
    assert puts[-1].endswith("out/.modelyard-checkpoint.json")


def test_what_was_there_before_the_run_is_not_sent_again(store, model, to_store) -> None:
    store.put("c", "out/cp-1", "one")
    (model / "cp-1").write_bytes(b"one")
    (model / "cp-2").write_bytes(b"two")
    CheckpointSync(to_store(), 60, Journal()).finish(Stop())
    assert store.count("PUT", "cp-1") == 0
    assert store.count("PUT", "cp-2") == 1


def test_an_interval_without_the_store_does_not_end_the_sync(store, model, to_store, capfd) -> None:
    seen: list[str] = []

    def is_told() -> bool:
        seen.append(capfd.readouterr().out)
        return "Checkpoints are not in step" in "".join(seen)

    with Syncing(to_store(retry_seconds=0.3)):
        store.stop()
        (model / "cp").write_bytes(b"1")
        eventually(is_told)
        store.start()
        eventually(lambda: files(store) == ["out/cp"])


def test_the_last_pass_tells_what_it_could_not_keep(store, model, to_store, fault) -> None:
    (model / "cp").write_bytes(b"1")
    store.faults.append(fault("PUT", count=99, status=403, body=b"No."))
    with pytest.raises(StepFailed, match="write permission is missing"):
        CheckpointSync(to_store(), 60, Journal()).finish(Stop())


def test_the_last_pass_takes_what_is_still_open(store, model, to_store) -> None:
    with (model / "log").open("wb") as file:
        file.write(b"x")
        file.flush()
        CheckpointSync(to_store(), 60, Journal()).finish(Stop())
    assert files(store) == ["out/log"]


def test_open_files_are_seen_by_how_they_were_opened(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    mark = (path.stat().st_dev, path.stat().st_ino)
    with path.open("rb"):
        assert mark not in files_open_for_writing()
    with path.open("ab"):
        assert mark in files_open_for_writing()
    assert mark not in files_open_for_writing()


def test_a_tree_that_is_not_there_is_empty(tmp_path) -> None:
    assert scan(str(tmp_path / "gone")).files == []


def test_a_deep_tree_is_walked(tmp_path) -> None:
    deep = tmp_path
    for _ in range(300):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"")
    assert [file.name for file in scan(str(tmp_path)).files] == ["d/" * 300 + "f"]
