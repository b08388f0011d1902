"""Every limit of a training's fields: at the limit it is taken, one over it is refused by its field with a sentence (mission rows T1 to T10)."""

from __future__ import annotations

from typing import Any

import pytest
from api_platform import ApiPlatform, faults_of, good_training

from modelyard.resources.trainings.lifecycle import TrainingState


def hyperparameters(count: int, name: str = "p{}", value: str = "1") -> list[dict[str, str]]:
    return [{"parameterName": name.format(number), "parameterValue": value} for number in range(count)]


def datasets(count: int, name: str = "d{}") -> list[dict[str, str]]:
    return [{"datasetName": name.format(number), "dataUri": "DATA"} for number in range(count)]


def tags(count: int, key: str = "k{}", value: str = "v") -> list[dict[str, str]]:
    return [{"tagKey": key.format(number), "tagValue": value} for number in range(count)]


TAKEN: list[tuple[str, Any]] = [
    ("trainingName", "x" * 50),
    ("trainingName", "이름 ☃ with spaces, dots. and (signs)"),
    ("description", "x" * 255),
    ("description", "two\nlines\tand a tab"),
    ("description", ""),
    ("description", None),
    ("hyperparameterList", hyperparameters(100)),
    ("hyperparameterList", hyperparameters(1, "x" * 255, "y" * 1000)),
    ("hyperparameterList", hyperparameters(1, "with space-dash.dot 한글", "'\"`$(x);\n\\ \t{}%s")),
    ("hyperparameterList", [{"parameterName": "한글", "parameterValue": ""}, {"parameterName": "학습", "parameterValue": ""}]),
    ("hyperparameterList", None),
    ("datasetList", datasets(10)),
    ("datasetList", datasets(1, "x" * 36)),
    ("datasetList", [{"datasetName": name, "dataUri": "DATA"} for name in ("학습", "검증")]),
    ("datasetList", None),
    ("tagList", tags(10)),
    ("tagList", tags(1, "x" * 64, "y" * 255)),
    ("tagList", None),
    ("instanceCount", 1),
    ("timeoutMinutes", 1),
    ("timeoutMinutes", 43200),
    ("timeoutMinutes", None),
    ("dataStorageSize", 10000),
    ("dataStorageSize", None),
    ("nprocPerNode", None),
    ("useLog", None),
    ("useTorchrun", None),
    ("checkPointInputUri", None),
    ("checkPointUploadUri", None),
    ("experimentName", "e" * 50),
]  # fmt: skip

REFUSED: list[tuple[str, Any, str, str]] = [
    ("trainingName", "x" * 51, "trainingName", "50"),
    ("trainingName", "", "trainingName", "empty"),
    ("trainingName", "  ", "trainingName", "empty"),
    ("trainingName", " x", "trainingName", "white space"),
    ("trainingName", "a\nb", "trainingName", "control"),
    ("trainingName", "a\u2028b", "trainingName", "control"),
    ("trainingName", "a\x00b", "trainingName", "control"),
    ("trainingName", None, "trainingName", ""),
    ("trainingName", 5, "trainingName", ""),
    ("trainingName", ["x"], "trainingName", ""),
    ("description", "x" * 256, "description", "255"),
    ("description", "a\x00b", "description", "control"),
    ("description", {}, "description", ""),
    ("experimentName", "x" * 51, "experimentName", "50"),
    ("experimentName", "", "experimentName", "empty"),
    ("experimentDescription", "x" * 256, "experimentDescription", "255"),
    ("hyperparameterList", hyperparameters(101), "hyperparameterList", "100"),
    ("hyperparameterList", hyperparameters(2, "same"), "hyperparameterList", "more than once"),
    ("hyperparameterList", hyperparameters(1, ""), "hyperparameterList[0].parameterName", ""),
    ("hyperparameterList", hyperparameters(1, "x" * 256), "hyperparameterList[0].parameterName", "255"),
    ("hyperparameterList", hyperparameters(1, "p", "x" * 1001), "hyperparameterList[0].parameterValue", "1000"),
    ("hyperparameterList", hyperparameters(1, "a\x00"), "hyperparameterList[0].parameterName", "NUL"),
    ("hyperparameterList", [{"parameterName": "p"}], "hyperparameterList[0].parameterValue", "given"),
    ("hyperparameterList", [{"parameterName": "p", "parameterValue": None}], "hyperparameterList[0].parameterValue", ""),
    ("hyperparameterList", [None], "hyperparameterList[0]", ""),
    ("hyperparameterList", {"p": 1}, "hyperparameterList", "list"),
    ("datasetList", datasets(11), "datasetList", "10"),
    ("datasetList", datasets(2, "same"), "datasetList", "EM_DATASET_SAME"),
    ("datasetList", [*datasets(1, "train"), *datasets(1, "TRAIN")], "datasetList", "EM_DATASET_TRAIN"),
    ("datasetList", [*datasets(1, "a-b"), *datasets(1, "a.b")], "datasetList", "EM_DATASET_A_B"),
    ("datasetList", datasets(1, ""), "datasetList[0].datasetName", ""),
    ("datasetList", datasets(1, "x" * 37), "datasetList[0].datasetName", "36"),
    ("datasetList", datasets(1, "a\x00b"), "datasetList[0].datasetName", "control"),
    ("datasetList", [{"datasetName": "d", "dataUri": ""}], "datasetList[0].dataUri", ""),
    ("datasetList", [{"datasetName": "d"}], "datasetList[0].dataUri", "given"),
    ("datasetList", [{"datasetName": "d", "dataUri": "obs://h/" + "x" * 255}], "datasetList[0].dataUri", "255"),
    ("tagList", tags(11), "tagList", "10"),
    ("tagList", tags(2, "same"), "tagList", "once"),
    ("tagList", tags(1, "x" * 65), "tagList", "64"),
    ("tagList", tags(1, ""), "tagList", "64"),
    ("tagList", tags(1, "k", "x" * 256), "tagList", "255"),
    ("tagList", tags(1, "a\x00b"), "tagList", "control"),
    ("instanceCount", 0, "instanceCount", "1"),
    ("instanceCount", 11, "instanceCount", "10"),
    ("instanceCount", 1.5, "instanceCount", ""),
    ("instanceCount", 10**30, "instanceCount", ""),
    ("timeoutMinutes", 0, "timeoutMinutes", "1"),
    ("timeoutMinutes", 43201, "timeoutMinutes", "43200"),
    ("dataStorageSize", 0, "dataStorageSize", "1"),
    ("dataStorageSize", 10001, "dataStorageSize", "10000"),
    ("imageId", "none", "imageId", "none"),
    ("imageId", None, "imageId", ""),
    ("flavorId", "none", "flavorId", "none"),
    ("experimentId", "none", "experimentId", "not found"),
    ("experimentId", "0190\x00", "experimentId", ""),
    ("entryPoint", None, "entryPoint", "empty"),
    ("entryPoint", "../x.py", "entryPoint", ".."),
    ("entryPoint", "/x.py", "entryPoint", "absolute"),
    ("entryPoint", "a\x01.py", "entryPoint", "control"),
    ("entryPoint", "missing.py", "entryPoint", "missing.py"),
    ("sourceDirUri", None, "sourceDirUri", "empty"),
    ("sourceDirUri", "s3://x/y", "sourceDirUri", "obs://"),
    ("sourceDirUri", "nas://none:/x", "sourceDirUri", "none"),
    ("modelUploadUri", None, "modelUploadUri", ""),
    ("modelUploadUri", "obs://x", "modelUploadUri", ""),
    ("checkPointInputUri", "nas://none:/x", "checkPointInputUri", "none"),
    ("checkPointUploadUri", "nas://none:/x", "checkPointUploadUri", "none"),
    ("algorithmId", "built-in", "algorithmId", "algorithms"),
    ("trainingTypeCode", "OTHER", "trainingTypeCode", "NORMAL"),
    ("useTorchrun", True, "useTorchrun", "PyTorch"),
]  # fmt: skip


def changed(api: ApiPlatform, good: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """A good body with one field changed; `DATA` in it becomes a data set that is there."""
    if isinstance(value, list) and field == "datasetList":
        value = [
            {**item, "dataUri": api.uri("work/source")} if item.get("dataUri") == "DATA" else item for item in value
        ]
    return good | {field: value}


async def test_all_at_a_limit_is_taken(small_api: ApiPlatform) -> None:
    good = await good_training(small_api)
    for field, value in TAKEN:
        answer = await small_api.call("POST", "/trainings", changed(small_api, good, field, value))
        assert answer.status_code == 200, (field, value, answer.text)
        shown = answer.json()["training"]
        if field in shown and value is not None and field != "datasetList":
            assert shown[field] == value


async def test_all_over_a_limit_is_refused_by_its_field(small_api: ApiPlatform) -> None:
    good = await good_training(small_api)
    for field, value, named, words in REFUSED:
        answer = await small_api.call("POST", "/trainings", changed(small_api, good, field, value))
        told = faults_of(answer)
        assert named in told, (field, value, told)
        assert words in told[named], (field, value, told)
        assert len(told) == 1, told
        assert " should " not in told[named], "pydantic's words, which speak to programmers"
    assert (await small_api.ask("GET", "/trainings"))["paging"]["totalCount"] == 0
    assert (await small_api.ask("GET", "/experiments"))["paging"]["totalCount"] == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b'{"trainingName": "\\ud800"}', b"\xff\xfe"])
async def test_a_body_that_is_no_request_is_refused(small_api: ApiPlatform, body: bytes) -> None:
    assert faults_of(await small_api.call("POST", "/trainings", body))


def test_the_states_are_those_of_the_guide() -> None:
    """Row T11, in the form of the wire."""
    guide = """CREATE REQUESTED, CREATE IN PROGRESS, RUNNING, STOPPED, COMPLETE, STOP IN PROGRESS, FAIL TRAIN, CREATE FAILED,
        FAIL TRAIN IN PROGRESS, COMPLETE IN PROGRESS"""
    assert {word.strip().replace(" ", "_") for word in guide.split(",")} == set(TrainingState)
