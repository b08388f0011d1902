"""What a training's script finds: every variable and argument, exactly as it was asked for (mission rows T3, T5, T18)."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from journey_platform import RunningPlatform, eventually
from journey_scripts import finish, output_of, start_script, upload_script

pytestmark = pytest.mark.slow

LOOK_AROUND = """
    import json, os, sys
    from pathlib import Path

    def content(directory):
        root = Path(directory)
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    seen = {
        "env": {name: value for name, value in os.environ.items() if name.startswith("EM_")},
        "argv": sys.argv[1:],
        "cwd": os.getcwd(),
        "script": os.path.abspath(__file__),
        "source": content(os.environ["EM_SOURCE_DIR"]),
        "datasets": {name: content(path) for name, path in json.loads(os.environ["EM_DATASETS"]).items()},
    }
    for name in ("EM_MODEL_DIR", "EM_CHECKPOINT_DIR", "EM_TENSORBOARD_LOG_DIR"):
        Path(os.environ[name], "written").write_text(name)
    Path(os.environ["EM_MODEL_DIR"], "seen.json").write_text(json.dumps(seen))
"""

HOSTILE = {
    "plain": "0.01",
    "with-dash.and dot": "x",
    "quotes": """it's "quoted" `now`""",
    "lines": "first\nsecond\r\n\tthird\n",
    "unicode": "한국어 ☃ 𝄞 é",
    "shell": "$(touch /tmp/x); $HOME && rm -rf * | cat > y # \\ {python} %s {}",
    "empty": "",
    "option": "--not-an-option",
    "json": '{"a": [1, 2, null]}',
    "long": "x" * 1000,
    "학습률": "0.1",
    "taux d'apprentissage": "1e-3",
    'a "b" `c` $(d) = *': "signs",
    "two\nlines": "of a key",
}
SIGNS = {
    "with-dash.and dot": "WITH_DASH_AND_DOT",
    "taux d'apprentissage": "TAUX_D_APPRENTISSAGE",
    'a "b" `c` $(d) = *': "A__B___C____D_____",
    "two\nlines": "TWO_LINES",
}


def test_every_variable_and_argument_arrives_unharmed(platform: RunningPlatform, tmp_path: Path) -> None:
    source = upload_script(platform, tmp_path / "source", "surroundings/source", LOOK_AROUND, note_txt="beside")
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (data / "a.csv").write_text("1")
    (data / "deep/b ü.csv").write_text("2")
    platform.client.storage.upload(data, "surroundings/data")
    started = start_script(
        platform,
        "surroundings",
        source,
        hyperparameters=HOSTILE,
        datasets={"train": "surroundings/data", "test-set": "surroundings/data/deep"},
        checkpoint_upload="surroundings/checkpoints",
    )
    training = finish(platform, started)
    assert training.experiment is not None

    seen = json.loads(platform.client.storage.read("surroundings/output/surroundings/seen.json"))
    env = seen["env"]
    assert seen["argv"] == [text for name, value in HOSTILE.items() for text in (f"--{name}", value)]
    assert {name: env[name] for name in env if name.startswith("EM_HP_")} == {
        f"EM_HP_{SIGNS.get(name, name.upper())}": value for name, value in HOSTILE.items()
    }
    assert json.loads(env["EM_HPS"]) == HOSTILE
    assert seen["source"] == ["note.txt", "train.py"]
    assert seen["datasets"] == {"train": ["a.csv", "deep/b ü.csv"], "test-set": ["b ü.csv"]}
    assert json.loads(env["EM_DATASETS"]) == {"train": env["EM_DATASET_TRAIN"], "test-set": env["EM_DATASET_TEST_SET"]}
    assert env["EM_ENTRY_POINT"] == "train.py"
    assert seen["script"] == f"{env['EM_SOURCE_DIR']}/train.py"
    assert seen["cwd"] == env["EM_SOURCE_DIR"]
    assert env["EM_REGION"] == platform.credentials["region"]
    assert env["EM_APPKEY"] == platform.credentials["appKey"]
    assert env["EM_API_URL"] == platform.credentials["apiUrl"]
    assert env["EM_EXPERIMENT_ID"] == training.experiment.experiment_id
    directories = [env[name] for name in ("EM_MODEL_DIR", "EM_CHECKPOINT_DIR", "EM_TENSORBOARD_LOG_DIR")]
    assert len({*directories, env["EM_SOURCE_DIR"], *json.loads(env["EM_DATASETS"]).values()}) == 6

    assert platform.client.storage.read("surroundings/output/surroundings/written") == b"EM_MODEL_DIR"
    assert platform.client.storage.read("surroundings/checkpoints/written") == b"EM_CHECKPOINT_DIR"
    board = platform.home / "tensorboard" / training.experiment.experiment_id / training.id / "written"
    assert board.read_text() == "EM_TENSORBOARD_LOG_DIR"
    shown = {
        item.parameter_name: item.parameter_value
        for item in platform.client.trainings.get(started.id).hyperparameter_list
    }
    assert shown == HOSTILE


def test_logs_follow_the_run(platform: RunningPlatform, tmp_path: Path) -> None:
    script = """
        import time
        for number in range(8):
            print(f"tick {number}", flush=True)
            time.sleep(0.4)
    """
    source = upload_script(platform, tmp_path / "source", "follow/source", script)
    training = start_script(platform, "follow", source)
    arrived: list[tuple[float, str]] = []

    def follow() -> None:
        for text in platform.client.trainings.logs(training.id, follow=True):
            arrived.extend((time.monotonic(), line) for line in text.splitlines() if line.startswith("tick"))

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    finish(platform, training)
    reader.join(30.0)
    assert not reader.is_alive()
    assert [line for _, line in arrived] == [f"tick {number}" for number in range(8)]
    assert arrived[-1][0] - arrived[0][0] > 1.5, "the lines came all at once, not while the script ran"


def test_a_stopped_training_keeps_its_checkpoints(platform: RunningPlatform, tmp_path: Path) -> None:
    script = """
        import os, signal, sys, time
        from pathlib import Path
        def save(*_):
            Path(os.environ["EM_CHECKPOINT_DIR"], "last").write_text("saved")
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        print("waiting", flush=True)
        time.sleep(600)
    """
    source = upload_script(platform, tmp_path / "source", "stopped/source", script)
    training = start_script(platform, "stopped", source, checkpoint_upload="stopped/checkpoints")
    eventually(lambda: "waiting" in output_of(platform, training), "the script runs")
    platform.client.trainings.stop(training.id)
    eventually(
        lambda: platform.client.trainings.get(training.id).training_status_code == "STOPPED", "the training stops"
    )
    assert platform.client.storage.read("stopped/checkpoints/last") == b"saved"
