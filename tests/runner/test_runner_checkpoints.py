"""A half-written checkpoint is never taken: whoever is killed at whatever moment, the next run finds the newest complete one."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelyard.runner import fetch as fetching
from modelyard.runner.checkpoints import CheckpointSync
from modelyard.runner.fetch import fetch_all
from modelyard.runner.journal import Journal
from modelyard.runner.manifest import MANIFEST, STAGED
from modelyard.runner.outcomes import StepFailed
from modelyard.runner.plan import ALWAYS, PYTHON, Fetch, Main, Plan, Upload
from modelyard.runner.stop import Stop
from modelyard.runner.swift import Container
from modelyard.runner.upload import Destination

# Writes a checkpoint of three files that belong together, in place and slowly, again and again; ends when nobody watches it any more.
WRITER = """
import os, sys, time
place, number, parent = sys.argv[1], int(sys.argv[2]), os.getppid()
while os.getppid() == parent:
    number += 1
    text = f"{number:08d}"
    os.makedirs(place + "/deep", exist_ok=True)
    for name in ("deep/weights", "deep/optimizer", "deep/checkpoint"):
        with open(place + "/" + name, "wb") as file:
            for _ in range(4):
                file.write(text.encode() * 20_000)
                file.flush()
                time.sleep(0.005)
    print("wrote", number, flush=True)
    time.sleep(0.6)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


@pytest.fixture(params=["store", "store without copies", "volume"])
def upload(request, store, tmp_path, model) -> Upload:
    store.knows_copy = request.param == "store"
    store.url("c")
    if request.param == "volume":
        return Upload(str(model), "nas://n:/out", path=str(tmp_path / "nas/out"), on=ALWAYS, sync_seconds=0.2)
    return Upload(str(model), "obs://the/out", container_url=store.url("c"), prefix="out", on=ALWAYS, sync_seconds=0.2)


def resume(upload: Upload, token: str, target: Path) -> dict[str, bytes]:
    """What the next run would begin with."""
    shutil.rmtree(target, ignore_errors=True)
    fetch = Fetch(
        str(target),
        upload.label,
        container_url=upload.container_url,
        prefix=upload.prefix,
        path=upload.path,
        is_required=False,
        is_checkpoint=True,
    )
    fetch_all(Plan(Main(("true",), {}, "/"), fetches=(fetch,), token=token, retry_seconds=5), Journal(), Stop())
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def sync_of(upload: Upload, token: str) -> CheckpointSync:
    return CheckpointSync(Destination(upload, token, Journal(), 5), 60, Journal())


def number_of(checkpoint: dict[str, bytes]) -> int:
    """Which of the writer's checkpoints it is. Fails for half of one, and for parts of two."""
    assert set(checkpoint) == {"deep/weights", "deep/optimizer", "deep/checkpoint"}
    (content,) = set(checkpoint.values())
    assert content == content[:8] * 80_000
    return int(content[:8])


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["runner", "script"])
def test_killed_at_random_points(launch, upload, token, tmp_path, model, victim) -> None:
    chance = random.Random(victim)
    reached = 0
    for attempt in range(3):
        shutil.rmtree(model)
        model.mkdir()
        script = tmp_path / "writer.py"
        script.write_text(WRITER)
        main = Main((PYTHON, str(script), str(model), str(reached)), {}, str(tmp_path))
        run = launch(Plan(main, uploads=(upload,), token=token, grace_seconds=1.0, retry_seconds=5))
        run.wait_for(f"wrote {reached + 1}")
        time.sleep(chance.uniform(0.5, 2.0))
        if victim == "runner":
            run.process.kill()
            run.process.wait()
            time.sleep(0.7)  # the writer sees that it is alone
        else:
            os.kill(child_of(run.process.pid), signal.SIGKILL)
            assert run.end().code == 137
        found = resume(upload, token, tmp_path / "resumed")
        if not found:
            assert attempt == 0 or not reached  # killed before anything was complete
            continue
        assert number_of(found) >= reached
        reached = number_of(found)
    assert reached > 0


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_content_of_a_new_checkpoint_waits_for_its_manifest(store, token, model, tmp_path, fault) -> None:
    upload = Upload(str(model), "obs://the/out", container_url=store.url("c"), prefix="out")
    for name in ("a", "b"):
        (model / name).write_bytes(b"old " + name.encode())
    sync_of(upload, token).finish(Stop())
    for point in (MANIFEST, "out/a", "out/b"):
        for name in ("a", "b"):
            (model / name).write_bytes(b"new at " + point.encode() + b" " + name.encode())
        store.faults = [fault("PUT", name=point, count=99, status=403)]
        with pytest.raises(Exception, match="permission"):
            sync_of(upload, token).finish(Stop())
        state = b"old" if point == MANIFEST else b"new at " + point.encode()
        assert resume(upload, token, tmp_path / "in") == {"a": state + b" a", "b": state + b" b"}
    store.faults = []
    sync_of(upload, token).finish(Stop())
    assert store.content("c", "out/a") == state + b" a"
    assert not [name for name in store.names("c") if STAGED in name]


def test_files_of_one_size_and_one_moment_stay_apart(upload, token, model, tmp_path) -> None:
    # Ranks write small files of one size within one tick of the clock, which is all that a mounted directory tells apart.
    for moment in (1_700_000_000, 1_700_000_100):
        for name in ("rank0", "rank1", "deep/rank2"):
            (model / name).parent.mkdir(exist_ok=True)
            (model / name).write_bytes(f"{name[-1]} at {moment}".encode())
            os.utime(model / name, (moment, moment))
        sync_of(upload, token).finish(Stop())
        expected = {name: f"{name[-1]} at {moment}".encode() for name in ("rank0", "rank1", "deep/rank2")}
        assert resume(upload, token, tmp_path / "in") == expected


def test_what_was_rotated_away_does_not_come_back(upload, token, model, tmp_path) -> None:
    sync = sync_of(upload, token)
    sync.start()
    for step in range(3):
        (model / f"step-{step}").mkdir()
        (model / f"step-{step}/weights").write_bytes(b"%d" % step)
    shutil.rmtree(model / "step-0")
    sync.finish(Stop())
    shutil.rmtree(model / "step-1")
    sync_of(upload, token).finish(Stop())
    assert resume(upload, token, tmp_path / "in") == {"step-2/weights": b"2"}
    (model / "step-2/more").write_bytes(b"2")
    sync_of(upload, token).finish(Stop())
    assert set(resume(upload, token, tmp_path / "in")) == {"step-2/weights", "step-2/more"}


def test_a_directory_without_a_manifest_is_taken_as_it_is(store, token, model, tmp_path, capfd) -> None:
    upload = Upload(str(model), "obs://the/out", container_url=store.url("c"), prefix="out")
    store.put("c", "out/given", "by hand")
    assert resume(upload, token, tmp_path / "in") == {"given": b"by hand"}
    (model / "cp").write_bytes(b"1")
    sync_of(upload, token).finish(Stop())
    assert resume(upload, token, tmp_path / "in") == {"cp": b"1"}
    store.put("c", "out/cp", "changed by hand")
    assert resume(upload, token, tmp_path / "in") == {"cp": b"changed by hand", "given": b"by hand"}
    assert "was changed by somebody else since its last complete checkpoint" in capfd.readouterr().out
    store.put("c", f"out/{MANIFEST}", "no manifest")
    assert set(resume(upload, token, tmp_path / "in")) == {"cp", "given"}


def test_what_a_killed_process_was_writing_is_not_kept(store, token, model, tmp_path, capfd) -> None:
    upload = Upload(str(model), "obs://the/out", container_url=store.url("c"), prefix="out")
    (model / "cp").write_bytes(b"whole")
    sync = sync_of(upload, token)
    sync.start()
    subprocess.run([sys.executable, "-c", "import sys; open(sys.argv[1], 'wb').write(b'ha')", model / "cp"], check=True)
    (model / "done").mkdir()
    sync.finish(Stop(), was_killed=True)
    assert store.count("PUT", "out/cp") == 0
    assert "'cp' was being written when the process was killed: it is not kept" in capfd.readouterr().out
    assert tmp_path.exists()


def test_what_was_half_written_before_the_first_look_is_not_kept(store, token, model, capfd) -> None:
    sync = sync_of(Upload(str(model), "obs://the/out", container_url=store.url("c"), prefix="out"), token)
    (model / "cp").write_bytes(b"ha")  # by a process that was quicker than the start of the looks
    sync.start()
    sync.finish(Stop(), was_killed=True)
    assert store.count("PUT", "out/cp") == 0
    assert "'cp' was being written when the process was killed" in capfd.readouterr().out


def test_a_file_written_while_its_checkpoint_is_sent_leaves_the_one_before(
    store, token, model, tmp_path, fault
) -> None:
    upload = Upload(str(model), "obs://the/out", container_url=store.url("c"), prefix="out")
    for name in ("deep/weights", "deep/pointer"):
        (model / "deep").mkdir(exist_ok=True)
        (model / name).write_bytes(b"1 of " + name.encode())
    sync_of(upload, token).finish(Stop())

    store.faults = [fault("PUT", count=1, pause_seconds=1.0)]
    before = store.count("PUT")
    sync = CheckpointSync(Destination(upload, token, Journal(), 5), 0.1, Journal())
    for name in ("deep/weights", "deep/pointer"):
        (model / name).write_bytes(b"2 of " + name.encode())
    sync.start()
    while store.count("PUT") == before:
        time.sleep(0.01)
    with (model / "deep/pointer").open("wb") as half:
        half.write(b"3")
        half.flush()
        while store.count("PUT", MANIFEST) == 1 or any(STAGED in name for name in store.names("c")):
            time.sleep(0.01)  # the pass ends with what it can vouch for
        sync.finish(Stop(), was_killed=True)
    expected = {name: b"1 of " + name.encode() for name in ("deep/weights", "deep/pointer")}
    assert resume(upload, token, tmp_path / "in") == expected
    assert not [name for name in store.names("c") if STAGED in name]


def write_two(upload: Upload, token: str, model: Path, number: int) -> dict[str, bytes]:
    files = {name: f"{number} of {name} {number * 'x'}".encode() for name in ("a", "b")}
    for name, content in files.items():
        (model / name).write_bytes(content)
    sync_of(upload, token).finish(Stop())
    return files


def test_who_reads_while_a_newer_checkpoint_comes_gets_all_of_the_newer_one(
    upload, token, model, tmp_path, monkeypatch, capfd
) -> None:
    write_two(upload, token, model, 1)
    work_through, written = fetching.work_through, []

    def interrupted(items, do, *others) -> None:
        items = list(items)
        if not written:
            work_through(items[:1], do, *others)
            written.append(write_two(upload, token, model, 2))
            items = items[1:]
        work_through(items, do, *others)

    monkeypatch.setattr(fetching, "work_through", interrupted)
    assert resume(upload, token, tmp_path / "in") == written[0]
    assert "has got a newer checkpoint meanwhile" in capfd.readouterr().out


def test_who_never_gets_a_whole_checkpoint_is_told(upload, token, model, tmp_path, monkeypatch) -> None:
    write_two(upload, token, model, 1)
    work_through, numbers = fetching.work_through, iter(range(2, 99))

    def interrupted(items, do, *others) -> None:
        items = list(items)
        work_through(items[:1], do, *others)
        write_two(upload, token, model, next(numbers))
        work_through(items[1:], do, *others)

    monkeypatch.setattr(fetching, "work_through", interrupted)
    with pytest.raises(StepFailed, match="gets newer checkpoints faster than one of them can be fetched"):
        resume(upload, token, tmp_path / "in")


def test_a_manifest_newer_than_the_listing_is_no_change_by_somebody_else(
    store, token, model, tmp_path, monkeypatch, capfd
) -> None:
    upload = Upload(str(model), "obs://the/out", container_url=store.url("c"), prefix="out")
    write_two(upload, token, model, 1)
    read, written = Container.read, []

    def late(self, *args) -> bytes:
        if not written:
            written.append({})
            written[0] = write_two(upload, token, model, 2)
        return read(self, *args)

    monkeypatch.setattr(Container, "read", late)
    assert resume(upload, token, tmp_path / "in") == written[0]
    assert "somebody else" not in capfd.readouterr().out
