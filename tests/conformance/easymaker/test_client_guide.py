"""The guide's flow, whole and for real, with the official client of five releases as its users call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from client_releases import Client, MakeClient
from journey_platform import RunningPlatform, eventually

pytestmark = pytest.mark.slow

ANSWER = {"predictions": [[3.0, 5.0, 7.0, 9.0]]}


def test_release_1_0(make_client: MakeClient, platform: RunningPlatform, files: dict[str, str]) -> None:
    client = make_client("1.0.4")
    said = client.script("guide_1_0.py")
    assert said["default"] == said["second"] == ANSWER
    assert said["stage_names"] == ["default", "second"]
    assert said["model_ids"] == [said["wanted_model_id"]]
    assert "train.py" in said["downloaded"]
    _log_line(platform, "from flow-1-0-4", level="ERROR")
    assert _commands(client, "secret_key", "secretKey", platform)["-training"] == [f"flow-1-0-4 {said['ids'][1]}"]
    platform.client.stages.delete(said["ids"][5], wait=True)
    platform.client.endpoints.delete(said["ids"][4], wait=True)


def test_release_1_1(make_client: MakeClient, platform: RunningPlatform, files: dict[str, str]) -> None:
    client = make_client("1.1.6")
    said = client.script("guide_1_1.py")
    assert said["default"] == said["second"] == ANSWER
    assert said["stage_names"] == ["default", "second"]
    assert said["empty"] == [[], [], []]
    assert "not available in this version" in said["absent"]
    assert "flow-1-1-6" in said["in_use"]
    assert said["again"]
    assert said["left"] == said["left_ids"] == []
    _is_same_file(client, files["large"])
    _log_line(platform, "from flow-1-1-6", level="WARNING")
    commands = _commands(client, "secret_key", "secretKey", platform)
    assert commands["-algorithm"] == commands["-tuning"] == []


def test_release_2_0(make_client: MakeClient, platform: RunningPlatform) -> None:
    client = make_client("2.0.1")
    said = client.script("guide_2_0.py")
    assert said["default"] == said["second"] == ANSWER
    assert said["v2"]["outputs"][0]["data"] == [3.0, 5.0, 7.0, 9.0]
    assert said["stage_names"] == ["default", "second"]
    assert said["type_codes"] == ["TENSORFLOW", "TENSORFLOW"]
    assert said["empty"] == [[], []]
    assert "not available in this version" in said["absent"]
    assert said["left_ids"] == []
    _log_line(platform, "from flow-2-0-1", level="INFO")
    _commands(client, "secret_key", "secretKey", platform)


@pytest.mark.parametrize("release", ["2.1.2", "2.1.5"])
def test_releases_2_1(release: str, make_client: MakeClient, platform: RunningPlatform, files: dict[str, str]) -> None:
    client = make_client(release)
    said = client.script("guide_2_1.py")
    name = client.given["name"]
    assert said["default"] == said["second"] == ANSWER
    assert said["v2"]["outputs"][0]["data"] == [3.0, 5.0, 7.0, 9.0]
    assert said["stage_names"] == ["default", "second"]
    assert said["scaler"] == [True, 1, 3, 40]
    assert said["formats"] == ["TENSORFLOW", "TENSORFLOW"]
    assert said["found"] == [
        f"flows/{name}/source/{each}".removeprefix("flows/") for each in ("lib/more.py", "train.py")
    ]
    assert said["size"] == sum(path.stat().st_size for path in Path(files["source"]).rglob("*.py"))
    assert {"large.bin", "note 한글 100%.txt"} <= set(said["downloaded"])
    _is_same_file(client, files["large"])
    expected = {"Experiment", "Training", "Model", "Endpoint", "EndpointModel"}
    assert {kind for kind, length in said["lengths"].items() if length} == expected
    assert said["experiment_of_training"] == name
    assert said["algorithms"] == []
    assert client.given["flavor"] in said["flavors"]
    assert client.given["image"] in said["images"]
    assert "no-such-training" in said["unknown"]
    assert name in said["in_use"]
    assert "not available in this version" in said["absent"]
    assert "at most 50 characters" in said["wrong"]
    assert said["again"]
    assert said["left"] == said["left_ids"] == []
    _log_line(platform, f"from {name}", level="INFO")
    if release == "2.1.2":
        _commands(client, "access_token", "accessToken", platform)
    else:
        assert "HUGGING_FACE" in said["hugging_face"]
        listed = client.command("sample", "list")
        assert listed.returncode == 0, listed.stderr


def test_a_model_is_taken_off_its_stage(make_client: MakeClient) -> None:
    said = make_client("2.1.5").script("two_models.py")
    assert said["before"] == [ANSWER, ANSWER]
    assert all(answer == ANSWER for answer in said["during"])
    assert said["after"] == ANSWER
    assert said["gone"] != ANSWER
    assert "only model of stage 'default'" in said["last"]
    assert "no-such-model" in said["unknown"]
    assert said["state"] == "ACTIVE"


def _is_same_file(client: Client, original: str) -> None:
    """The file that went up in segments has come down whole."""
    assert Path(client.given["download"], "large.bin").read_bytes() == Path(original).read_bytes()


def _log_line(platform: RunningPlatform, body: str, *, level: str) -> None:
    def found() -> Any:
        lines = platform.client.logs.search(f'category:"easymaker.sdk" AND body:"{body}"').log_list
        return [line for line in lines if line["body"] == body]

    lines = eventually(found, f"the line '{body}' is found")
    assert lines[0]["logLevel"] == level


def _commands(client: Client, option: str, credential: str, platform: RunningPlatform) -> dict[str, list[str]]:
    """Every list of the release's command line: `{option: ["name id", …]}`."""
    known = platform.credentials
    usage = client.command("--help").stdout
    lists = (
        "instance",
        "image",
        "experiment",
        "training",
        "model",
        "endpoint",
        "algorithm",
        "tuning",
        "model_evaluation",
    )
    said: dict[str, list[str]] = {}
    for name in lists:
        if f"-{name} " not in usage.replace("\n", " ").replace("]", " "):
            continue
        done = client.command(
            f"-{name}", "--appkey", known["appKey"], "--region", "kr1", f"--{option}", known[credential]
        )
        assert done.returncode == 0, done.stderr
        said[f"-{name}"] = [
            " ".join(part.split(" : ")[-1] for part in line.split(", ")) for line in done.stdout.splitlines()
        ]
    assert "c2.c1m1" in said["-instance"]
    assert client.given["image"] in said["-image"]
    return said
