"""How trainings end on a real platform: stopped at every step, by force, by a limit, after another attempt; and that nothing is left of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from journey_platform import MakePlatform, RunningPlatform, eventually
from journey_processes import processes_of
from journey_scripts import finish, output_of, start_script, upload_script

from modelyard.resources.trainings.schemas import TrainingOut

pytestmark = pytest.mark.slow

END_SECONDS = 240.0
ENDS = ("COMPLETE", "FAIL_TRAIN", "STOPPED", "CREATE_FAILED")
PAYLOAD_BYTES = 256 * 2**20
LARGE_REQUIREMENT = "numpy==2.2.6\nscipy==1.15.3\n"

# Leaves a checkpoint and fails; from the checkpoint that it finds it goes on to the end.
RESUMING = """
    import os, sys
    from pathlib import Path
    given = Path(os.environ["EM_CHECKPOINT_INPUT_DIR"]) if "EM_CHECKPOINT_INPUT_DIR" in os.environ else None
    if given is not None and (given / "reached").exists():
        print("went on from", (given / "reached").read_text(), flush=True)
        assert (Path(os.environ["EM_CHECKPOINT_DIR"]) / "reached").exists()
        Path(os.environ["EM_MODEL_DIR"], "result").write_text("whole")
    else:
        print("began at nothing", flush=True)
        (Path(os.environ["EM_CHECKPOINT_DIR"]) / "reached").write_text("step 7")
        sys.exit(3)
"""

# What `--how` says. All that runs for long ignores the request to end.
ENDING = """
    import os, signal, sys, time
    how = sys.argv[sys.argv.index("--how") + 1]
    if how != "patient":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if how in ("daemon", "bomb"):
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork():
                    os._exit(0)
                os.setsid()
                print("daemon runs", flush=True)
                while True:
                    time.sleep(0.05)
                    if how == "bomb":
                        try:
                            os.fork()
                        except OSError:
                            pass
        time.sleep(1)
    if how == "memory":
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 20) * 16))
    if how == "segment":
        os.kill(os.getpid(), signal.SIGSEGV)
    print("runs", flush=True)
    if how == "daemon":
        sys.exit(0)
    while True:
        time.sleep(0.1)
"""

SLOW_OUTPUT = """
    import os, shutil
    shutil.copy(os.path.join(os.environ["EM_DATASET_BALLAST"], "ballast"), os.environ["EM_MODEL_DIR"])
"""


@pytest.fixture(scope="module")
def own(make_module_platform: MakePlatform) -> RunningPlatform:
    """A platform with a short grace, and a flavor on which a fork bomb is small."""
    running = make_module_platform(is_up=False)
    running.home.joinpath("config.toml").write_text("[compute]\ntraining_grace_seconds = 2.0\n")
    running.home.joinpath("flavors.yaml").write_text("- {name: t1.p48, vcpus: 0.5, ram: 512, pids: 48}\n")
    done = running.up()
    assert done.returncode == 0, done.stdout + done.stderr + running.server_log()
    return running


@pytest.fixture(scope="module", autouse=True)
def limited(own: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> TrainingOut:
    """A training that ignores everything but its time limit of a minute, the shortest there is; it passes during the other tests."""
    source = upload_script(own, tmp_path_factory.mktemp("limited") / "source", "limited/source", ENDING)
    return start_script(own, "limited", source, flavor="t1.p48", hyperparameters={"how": "limited"}, timeout_minutes=1)


def test_a_run_that_failed_goes_on_from_its_checkpoint(platform: RunningPlatform, tmp_path: Path) -> None:
    source = upload_script(platform, tmp_path / "source", "again/source", RESUMING)
    training = start_script(
        platform, "again", source, checkpoint_upload="again/checkpoints", max_restart_count=2, use_log=True
    )
    ended = finish(platform, training, END_SECONDS)
    assert (ended.restart_count, ended.max_restart_count, ended.exit_code) == (1, 2, 0)
    restarts = [event for event in platform.client.trainings.events(training.id) if event.status_reason == "RESTART"]
    assert [event.status_message for event in restarts] == [
        "The process ended with exit code 3. Starting it again in 1 s (restart 1 of 2)."
    ]
    assert "went on from step 7" in output_of(platform, training)
    assert "began at nothing" in "".join(platform.client.trainings.logs(training.id, attempt=0))
    for attempt, text in ((0, "began at nothing"), (1, "went on")):
        query = f'trainingId:"{training.id}" AND attempt:"{attempt}" AND body:"{text}"'
        eventually(lambda query=query: platform.client.logs.search(query).total_count == 1, query)


def test_a_stop_at_every_step(own: RunningPlatform, tmp_path: Path) -> None:
    ballast = tmp_path / "data"
    ballast.mkdir()
    ballast.joinpath("ballast").write_bytes(os.urandom(2**20) * (PAYLOAD_BYTES // 2**20))
    own.client.storage.create_container("stop")
    own.client.storage.upload(ballast, "stop/data")
    plain = upload_script(own, tmp_path / "plain", "stop/plain", SLOW_OUTPUT)
    heavy = upload_script(own, tmp_path / "heavy", "stop/heavy", SLOW_OUTPUT, requirements_txt=LARGE_REQUIREMENT)
    data = {"ballast": "stop/data"}
    for step, source, datasets in (
        ("STARTING", plain, data),
        ("FETCHING", plain, data),
        ("INSTALLING", heavy, None),
        ("UPLOADING", plain, data),
    ):
        training = start_script(own, f"stop-{step.lower()}", source, datasets=datasets)
        if step != "STARTING":
            eventually(lambda t=training, s=step: _reason(own, t) == s, step, END_SECONDS, 0.005)
        own.client.trainings.stop(training.id)
        ended = _end(own, training)
        assert ended.training_status_code == "STOPPED", step
        assert ended.status_message in ("Stopped as requested.", "Stopped before it began."), step
        _nothing_is_left(own, training)
    assert [item.name for item in own.client.storage.list("stop/output")] == []


def test_ends_by_force_and_their_reasons(own: RunningPlatform, limited: TrainingOut, tmp_path: Path) -> None:
    source = upload_script(own, tmp_path / "source", "force/source", ENDING)

    def start(how: str) -> TrainingOut:
        return start_script(own, how, source, flavor="t1.p48", hyperparameters={"how": how})

    bomb, stubborn, patient = start("bomb"), start("stubborn"), start("patient")
    daemon, memory, segment = start("daemon"), start("memory"), start("segment")
    for training in (bomb, stubborn, patient):
        eventually(lambda t=training: "runs" in output_of(own, t), f"{training.name} runs", END_SECONDS)
        own.client.trainings.stop(training.id)
    for training in (bomb, stubborn, patient):
        assert _end(own, training).training_status_code == "STOPPED"
    # Nobody waits for what it left behind, and it is ended with the script.
    assert _end(own, daemon).training_status_code == "COMPLETE"

    assert _why(_end(own, memory)) == (
        "FAIL_TRAIN",
        "OUT_OF_MEMORY",
        "Killed for memory: it needed more than its limit of 512 MiB.",
    )
    assert _why(_end(own, segment)) == ("FAIL_TRAIN", "SIGNAL", "The process was ended by SIGSEGV (signal 11).")
    ended = _end(own, limited)
    assert (ended.training_status_code, ended.status_reason) == ("FAIL_TRAIN", "TIME_LIMIT")
    assert ended.status_message == "Stopped at its time limit of 60 s."
    for training in (limited, bomb, stubborn, patient, daemon, memory, segment):
        _nothing_is_left(own, training)
    assert own.is_serving()


def _reason(platform: RunningPlatform, training: TrainingOut) -> str | None:
    now = platform.client.trainings.get(training.id)
    assert now.training_status_code not in ENDS, now
    return now.status_reason


def _end(platform: RunningPlatform, training: TrainingOut) -> TrainingOut:
    def ended() -> TrainingOut | None:
        now = platform.client.trainings.get(training.id)
        return now if now.training_status_code in ENDS else None

    return eventually(ended, f"{training.name} ends", END_SECONDS)


def _why(training: TrainingOut) -> tuple[str, str | None, str | None]:
    return training.training_status_code, training.status_reason, training.status_message


def _nothing_is_left(platform: RunningPlatform, training: TrainingOut) -> None:
    """No process that sees the instance's files, and none of these files."""
    place = platform.home / "compute/instances" / f"{training.id}.0.0"

    def left() -> list[object]:
        files = [place / name for name in ("workspace", "home", "tmp") if (place / name).exists()]
        return [*processes_of(place), *files]

    deadline = time.monotonic() + 30
    while remains := left():
        assert time.monotonic() < deadline, (training.name, remains)
        time.sleep(0.1)
