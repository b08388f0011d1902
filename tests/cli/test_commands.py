"""Every command once, with what it prints and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from small_platform import APP_KEY, IMAGE_NAME, OUTPUT, TOKEN, SmallPlatform
from typer.testing import Result

import modelyard
from modelyard.cli.main import gathered

Run = Callable[..., Result]
TRAINING = ("--image", IMAGE_NAME, "--flavor", "m2.c2m4", "--source", "demo/src", "--model-upload", "demo/out")


def good(result: Result) -> Result:
    assert result.exit_code == 0, result.stderr
    return result


def create_training(run: Run, name: str, *more: str, entry_point: str = "train.py") -> Result:
    return run("training", "create", name, *TRAINING, "--entry-point", entry_point, *more)


def test_a_training_from_creation_to_deletion(run: Run) -> None:
    made = json.loads(
        good(
            create_training(
                run, "first", "-p", "epochs=3", "-p", "rule=a=b", "-d", "train=demo/data", "--output", "json"
            )
        ).stdout
    )
    assert made["hyperparameterList"] == [
        {"parameterName": "epochs", "parameterValue": "3"},
        {"parameterName": "rule", "parameterValue": "a=b"},
    ]
    waited = good(run("training", "wait", "first"))
    assert re.search(r"^Training status +COMPLETE$", waited.stdout, re.MULTILINE)
    assert "training 'first': CREATE_IN_PROGRESS, installing requirements" in waited.stderr
    assert "training 'first': COMPLETE" in waited.stderr
    assert good(run("training", "logs", "first", "--follow")).stdout == OUTPUT
    assert "CREATE_REQUESTED" in good(run("training", "events", "first")).stdout
    good(run("training", "update", "first", "--description", "better"))
    assert "better" in good(run("training", "get", made["trainingId"])).stdout
    table = good(run("training", "list")).stdout.splitlines()
    assert table[0].split() == ["ID", "NAME", "STATE", "EXPERIMENT", "IMAGE", "FLAVOR", "SECONDS", "CREATED"]
    assert table[1].split()[:3] == [made["trainingId"], "first", "COMPLETE"]
    assert "is stopping" in good(run("training", "stop", "first")).stderr
    assert good(run("training", "delete", "first")).stdout == ""
    assert run("training", "get", "first").exit_code == 3


def test_creating_again_with_the_same_key_gives_the_same_thing(run: Run) -> None:
    key = ("--idempotency-key", "night-7", "--output=json")
    first = json.loads(good(create_training(run, "t", *key)).stdout)
    assert json.loads(good(create_training(run, "t", *key)).stdout)["trainingId"] == first["trainingId"]
    other = create_training(run, "u", *key)
    assert other.exit_code == 1
    assert "'night-7' was used for another request" in other.stderr


def test_models_are_served_as_asked_for(run: Run) -> None:
    good(create_training(run, "t", "--wait"))
    good(run("model", "create", "iris", "--training", "t"))
    create = ("endpoint", "create", "e", "--model", "iris=/inference", "--flavor", "m2.c2m4", "--output=json")
    wrong = run(*create, "--serving-option", "batch=32")
    assert wrong.exit_code == 2
    assert "max_batch_size" in wrong.stderr
    too_many = run(*create, "--serving-option", "max_batch_size=0")
    assert too_many.exit_code == 2
    assert "max_batch_size" in too_many.stderr or "maxBatchSize" in too_many.stderr
    made = json.loads(good(run(*create, "--serving-option", "max_batch_size=32")).stdout)
    [served] = made["endpointStageList"][0]["endpointModelList"]
    assert served["servingOptions"]["maxBatchSize"] == 32


def test_models_endpoints_and_stages(run: Run, tmp_path: Path) -> None:
    good(run("experiment", "create", "e", "--tag", "team=a", "--wait"))
    good(create_training(run, "t", "--experiment", "e", "--wait"))
    good(run("model", "create", "iris", "--training", "t", "--wait"))
    endpoint = good(
        run(
            "endpoint", "create", "iris", "--model", "iris=/inference", "--flavor", "m2.c2m4", "--wait", "--output=json"
        )
    )
    assert json.loads(endpoint.stdout)["endpointStageList"][0]["endpointStageStatusCode"] == "ACTIVE"
    assert "default stage DEPLOY_IN_PROGRESS" in endpoint.stderr
    (tmp_path / "request.json").write_text('{"instances": [[1, 2]]}')
    for data, stdin in (
        ('{"instances": [[1, 2]]}', None),
        (f"@{tmp_path}/request.json", None),
        ("-", '{"instances": [[1, 2]]}'),
    ):
        answer = good(run("endpoint", "predict", "iris", "--data", data, input=stdin))
        assert json.loads(answer.stdout) == {"predictions": [3]}
    good(run("stage", "create", "blue", "--endpoint", "iris", "--model", "iris", "--flavor", "m2.c2m4", "--wait"))
    assert "blue" in good(run("stage", "list", "--endpoint", "iris")).stdout
    assert "/serve/inference" in good(run("stage", "models", "iris/blue")).stdout
    good(run("stage", "logs", "iris/blue", "--model", "iris"))
    good(run("stage", "delete", "iris/blue"))
    good(run("endpoint", "delete", "iris", "--wait"))
    good(run("model", "delete", "iris"))
    assert json.loads(good(run("model", "list", "--output", "json")).stdout) == []


def test_catalogues_nas_and_logs(run: Run) -> None:
    assert IMAGE_NAME in good(run("image", "list")).stdout
    assert "READY" in good(run("image", "build", IMAGE_NAME)).stdout
    assert "m2.c2m4" in good(run("flavor", "list")).stdout
    volume = json.loads(good(run("nas", "create", "shared", "--output", "json")).stdout)
    assert volume["nasVolumeName"] == "shared"
    assert "shared" in good(run("nas", "list")).stdout
    good(run("nas", "delete", "shared"))
    lines = good(run("logs", "search", 'logLevel:"INFO"', "--limit", "5", "--since", "2026-01-01")).stdout.splitlines()
    assert len(lines) == 6


def test_storage_commands(run: Run, platform: SmallPlatform, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("hello")
    assert good(run("storage", "upload", str(tmp_path / "in"), "demo/x")).stdout.startswith("obs://")
    listed = json.loads(good(run("storage", "list", "demo/x", "-r", "--output", "json")).stdout)
    assert [(row["name"], row["bytes"]) for row in listed] == [("x/a.txt", 5)]
    assert "x/" in good(run("storage", "list", "demo")).stdout
    assert good(run("storage", "cat", "demo/x/a.txt")).stdout == "hello"
    good(run("storage", "download", "demo/x", str(tmp_path / "out")))
    assert (tmp_path / "out" / "a.txt").read_text() == "hello"
    assert "demo" in good(run("storage", "list")).stdout
    assert "api-user" in good(run("storage", "account")).stdout
    assert run("storage", "delete", "demo").exit_code == 1
    assert "1 object deleted" in good(run("storage", "delete", "demo", "--recursive", "--yes")).stderr
    good(run("storage", "create-container", "demo"))
    assert platform.objects == {"demo": {}}


def test_forms_of_output(run: Run) -> None:
    good(run("experiment", "create", "[red]ü[/red]"))
    as_json = json.loads(good(run("--output", "json", "experiment", "list")).stdout)
    as_yaml = yaml.safe_load(good(run("experiment", "list", "--output", "yaml")).stdout)
    assert as_json == as_yaml
    assert "[red]ü[/red]" in good(run("experiment", "list")).stdout
    assert "ü" in good(run("experiment", "list", "--output", "yaml")).stdout


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("training", "get", "nothing"), 3, "there is no training 'nothing'"),
        (("flavor", "get", "m2.c2m5"), 3, "did you mean 'm2.c2m4'"),
        (("training", "list", "--token", "wrong"), 5, "token"),
        (("training", "list", "--api-url", "http://127.0.0.1:9", "--token", "x"), 6, "is the platform up?"),
        (("logs", "search", "("), 2, "position 2"),
        (("training", "create", "x"), 2, "Missing option"),
        (("model", "create", "x"), 2, "--training and --artifact"),
        (("endpoint", "predict", "x", "--data", "{"), 2, "not JSON"),
        (("storage", "upload", "/nonexistent/file", "demo"), 1, "/nonexistent/file: there is no such file"),
        (("storage", "list", "a/../b"), 2, "'..'"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_errors_are_one_clear_line(run: Run, words: tuple[str, ...], code: int, sentence: str) -> None:
    result = run(*words)
    assert result.exit_code == code, result.stderr
    assert sentence in result.stderr
    assert result.stdout == ""


def test_faults_are_listed(run: Run) -> None:
    result = create_training(run, "x", entry_point="missing.py")
    assert result.exit_code == 2
    assert "entryPoint: there is no missing.py in the source" in result.stderr
    local = create_training(run, "y" * 51, "--hyperparameter", "k=" + "v" * 1001)
    assert local.exit_code == 2
    assert "trainingName: must have at most 50 characters" in local.stderr
    assert "hyperparameterList[0].parameterValue" in local.stderr


def test_a_wait_that_ends_badly(run: Run) -> None:
    result = create_training(run, "broken", "--wait", entry_point="broken.py")
    assert result.exit_code == 4
    assert "  | ValueError: no\nerror: training 'broken' ended in FAIL_TRAIN: the script ended" in result.stderr
    good(run("experiment", "create", "slow"))


def test_a_wait_that_takes_too_long(run: Run, platform: SmallPlatform) -> None:
    made = json.loads(good(run("experiment", "create", "slow", "--output", "json")).stdout)
    platform.items["experiments"][made["id"]]["experimentStatusCode"] = "CREATE_IN_PROGRESS"
    result = run("experiment", "wait", "slow", "--timeout", "0.3")
    assert result.exit_code == 7
    assert "is still CREATE_IN_PROGRESS" in result.stderr


def test_global_options_may_stand_anywhere() -> None:
    assert gathered(["training", "list", "--output", "json"]) == ["--output", "json", "training", "list"]
    assert gathered(["training", "get", "x", "--home=/h"]) == ["--home=/h", "training", "get", "x"]
    assert gathered(["--output", "json", "image", "list"]) == ["--output", "json", "image", "list"]
    assert gathered(["credentials", "--output", "json"]) == ["credentials", "--output", "json"]
    assert gathered(["training", "get", "--", "--output"]) == ["training", "get", "--", "--output"]
    assert gathered(["--home", "/h", "--output=json", "status"]) == ["status", "--home", "/h", "--output=json"]
    assert gathered(["--home", "/h", "--output", "json", "up", "-d"]) == [
        "--output",
        "json",
        "up",
        "-d",
        "--home",
        "/h",
    ]
    assert gathered(["training", "list", "--output"]) == ["--output", "training", "list"]


def test_ctrl_c_ends_cleanly(platform: SmallPlatform) -> None:
    item = {"trainingStatusCode": "RUNNING"}
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "MODELYARD_API_URL": platform.url,
        "MODELYARD_APP_KEY": APP_KEY,
        "MODELYARD_ACCESS_TOKEN": TOKEN,
        "PYTHONPATH": str(Path(modelyard.__file__).parents[1]),
    }
    command = [sys.executable, "-m", "modelyard"]
    made = subprocess.run(
        [*command, "training", "create", "long", *TRAINING, "--entry-point", "train.py", "--output", "json"],
        env=environment,
        capture_output=True,
        check=True,
    )
    platform.coming[json.loads(made.stdout)["id"]] = [item] * 10_000
    with subprocess.Popen(
        [*command, "training", "wait", "long"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as waiting:
        assert waiting.stderr is not None
        assert b"RUNNING" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=20)
    assert (waiting.returncode, out, err) == (130, b"", b"interrupted\n")


def test_help_loads_neither_client_nor_rich() -> None:
    program = (
        "import sys\nfrom modelyard.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'httpx', 'rich', 'pydantic', 'yaml', 'sqlalchemy', 'fastapi'} & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(modelyard.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stderr.strip() == "[]"
    assert "training" in result.stdout


def test_names_are_completed(run: Run) -> None:
    good(run("experiment", "create", "alpha"))
    good(run("experiment", "create", "beta"))
    from typer.testing import CliRunner

    from modelyard.cli.main import app

    environment = {
        "_MODELYARD_COMPLETE": "complete_bash",
        "COMP_WORDS": "modelyard experiment get al",
        "COMP_CWORD": "3",
    }
    result = CliRunner().invoke(app, [], env=environment, prog_name="modelyard")
    assert result.stdout.split() == ["alpha"]
